"""Jobs in their output folders: which command continues one, and what `--force` removes. No cluster."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thirtytwo.errors import DataError, OutputError

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec", reason="needs the extra scale")

from thirtytwo.scale.job import ERRORS, PREDICTIONS, Request, finished, make_request, start_or_continue
from thirtytwo.scale.store import Store, open_store
from thirtytwo.scale.worker import images_of


@pytest.fixture
def request_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Request]:
    """Requests with results in `out`; relative paths are those of a folder with four images."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{number}.png")

    def make(*source: str | Path, absolute: bool = False) -> Request:
        return make_request(list(map(str, source)), "out", model, "model", 5, absolute=absolute)

    return make


def files(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.names(recursive=True)}


@pytest.fixture
def done(request_for: Callable[..., Request]) -> Store:
    """An output folder with a job of which a part is done."""
    store = open_store(request_for("images").out)
    start_or_continue(store, request_for("images"))
    store.write(f"{PREDICTIONS}/part-00000.parquet", lambda stream: stream.write(b"rows"))
    return store


@pytest.mark.parametrize("source", ["none", "empty"])
def test_force_keeps_the_results_if_there_is_nothing_to_classify(
    source: str, done: Store, request_for: Callable[..., Request]
) -> None:
    Path("empty").mkdir()
    before = files(done)
    with pytest.raises(DataError):
        start_or_continue(done, request_for(source), force=True)
    assert files(done) == before


@pytest.mark.parametrize("name", ["notes.txt", f"{PREDICTIONS}/summary.csv", f"{ERRORS}/mine.csv"])
def test_force_keeps_the_results_if_there_are_other_files(
    name: str, done: Store, request_for: Callable[..., Request]
) -> None:
    done.write(name, lambda stream: stream.write(b"mine"))
    before = files(done)
    with pytest.raises(OutputError) as caught:
        start_or_continue(done, request_for("images"), force=True)
    assert name in caught.value.message
    assert files(done) == before


@pytest.mark.parametrize("name", [f"{PREDICTIONS}/summary.csv", f"{PREDICTIONS}/_SUCCESS"])
def test_other_files_beside_the_parts_are_no_parts(name: str, done: Store, request_for: Callable[..., Request]) -> None:
    done.write(name, lambda stream: stream.write(b"of another program"))
    start_or_continue(done, request_for("images"))
    assert finished(done) == {"part-00000.parquet"}


@pytest.mark.parametrize("removed", range(4))
def test_force_that_is_killed_leaves_a_job_that_can_be_started_again(
    removed: int, done: Store, request_for: Callable[..., Request]
) -> None:
    """No part of the earlier job is left where the new one has none, whichever file was the last to be removed."""
    for name in (f"{ERRORS}/part-00000.parquet", f"{ERRORS}/part-00001.parquet"):
        done.write(name, lambda stream: stream.write(b"rows"))

    class Killed(Exception):
        """The end of the process."""

    class Files:
        """The file system, in which a number of files can be removed."""

        left = removed

        def __getattr__(self, name: str) -> Any:
            return getattr(done.filesystem, name)

        def delete_file(self, path: str) -> None:
            if not self.left:
                raise Killed
            self.left -= 1
            done.filesystem.delete_file(path)

    with pytest.raises(Killed):
        start_or_continue(replace(done, filesystem=Files()), request_for("images/1.png"), force=True)
    if done.kind("job.json"):
        with pytest.raises(OutputError, match="another command"):
            start_or_continue(done, request_for("images/1.png"))
        assert start_or_continue(done, request_for("images"))[0].images == 4
    job, _, plan = start_or_continue(done, request_for("images/1.png"), force=True)
    assert plan is not None
    assert job.images == 1
    assert not done.names(PREDICTIONS) + done.names(ERRORS)


def test_a_folder_that_was_moved_is_continued_where_it_is(done: Store, request_for: Callable[..., Request]) -> None:
    Path(done.root).rename("moved")
    request = replace(request_for("images"), out=str(Path("moved").resolve()))
    store = open_store(request.out)
    job, _, plan = start_or_continue(store, request)
    assert plan is None
    assert job.request.out == store.root
    assert finished(store) == {"part-00000.parquet"}


def test_passwords_of_addresses_are_in_no_file_and_no_message(
    remote: Any, request_for: Callable[..., Request], tmp_path: Path
) -> None:
    request_for("images")

    def ask(password: str, source: str = "images") -> Request:
        place = f"remote://user:{password}@host{tmp_path}"
        out = f"{place}/out?token={password}&region=here"
        return make_request([f"{place}/{source}"], out, tmp_path / "model.onnx", "model", 5, absolute=True)

    store = open_store(ask("secret").out)
    job, shards, _ = start_or_continue(store, ask("secret"))
    assert store.address == f"remote://host{tmp_path}/out?region=here"
    assert {"job.json", "shards.parquet"} <= set(files(store))
    assert not [name for name, content in files(store).items() if b"secret" in content]
    names = [image.file for image in images_of(job, shards[0]) if not isinstance(image, Path)]
    assert names == [f"remote://host{tmp_path}/images/{number}.png" for number in range(4)]
    again, _, plan = start_or_continue(store, ask("renewed"))
    assert plan is None
    assert again.root == ask("renewed").source[0], "workers need the password"
    assert again.request.out == ask("renewed").out
    with pytest.raises(OutputError) as caught:
        start_or_continue(store, ask("secret", "more"))
    assert "more" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_force_starts_again(done: Store, request_for: Callable[..., Request]) -> None:
    job, shards, plan = start_or_continue(done, request_for("images/1.png"), force=True)
    assert plan is not None
    assert (job.images, len(shards)) == (1, 1)
    assert not done.names(PREDICTIONS)
    assert start_or_continue(done, request_for("images/1.png"))[0] == job


def give(monkeypatch: pytest.MonkeyPatch, how: str, *paths: str) -> str:
    """The argument that means a list of these paths: a file, or standard input."""
    content = "".join(f"{path}\n" for path in paths).encode()
    Path("list.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return how


@pytest.mark.parametrize("how", ["-", "@list.txt"])
def test_a_list_continues_only_the_job_of_the_same_paths(
    how: str, request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monday = ("images/0.png", "images/1.png")
    request = request_for(give(monkeypatch, how, *monday))
    store = open_store(request.out)
    job, shards, _ = start_or_continue(store, request)
    assert [name for shard in shards for name in shard.files] == list(monday)
    again = start_or_continue(store, request_for(give(monkeypatch, how, *monday)))
    assert again == (job, shards, None)
    for other in (("images/2.png",), (*monday, "images/2.png")):
        with pytest.raises(OutputError) as caught:
            start_or_continue(store, request_for(give(monkeypatch, how, *other)))
        assert "the images" in caught.value.message
        assert other[-1] in caught.value.message


def test_long_lists_that_differ_in_the_middle_are_different(request_for: Callable[..., Request]) -> None:
    paths = [f"images/{number}.png" for number in [0, 1, 2] * 100]
    request = request_for(*paths)
    store = open_store(request.out)
    start_or_continue(store, request)
    assert start_or_continue(store, request_for(*paths))[2] is None
    with pytest.raises(OutputError, match="images"):
        start_or_continue(store, request_for(*paths[:150], "images/3.png", *paths[151:]))
    assert len(store.read("job.json")) < 3000


def test_an_entry_of_a_list_is_never_a_list(
    request_for: Callable[..., Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(give(monkeypatch, "-", "@none", "images/1.png"))
    _, shards, _ = start_or_continue(open_store(request.out), request)
    assert [name for shard in shards for name in shard.files] == ["@none", "images/1.png"]


def test_jobs_of_earlier_versions_are_continued(done: Store, request_for: Callable[..., Request]) -> None:
    stored = json.loads(done.read("job.json"))
    del stored["request"]["source_sha256"]
    done.write("job.json", lambda stream: stream.write(json.dumps(stored).encode()))
    assert start_or_continue(done, request_for("images"))[2] is None
    with pytest.raises(OutputError, match="images"):
        start_or_continue(done, request_for("images/1.png"))


@pytest.mark.parametrize(
    ("source", "relative"),
    [
        (("images",), True),
        (("images?image=photo",), True),
        (("{here}/images",), False),
        (("{here}/images/0.png", "images/1.png"), True),
        (("~/images",), False),
        (("file://{here}/images",), False),
        (("s3://bucket/images",), False),
    ],
)
def test_only_relative_paths_need_the_working_directory(
    source: tuple[str, ...], relative: bool, request_for: Callable[..., Request]
) -> None:
    here = str(Path.cwd())
    given = [text.format(here=here) for text in source]
    assert request_for(*given).folder == (here if relative else "")
    assert request_for(*given, absolute=True).folder == ""
