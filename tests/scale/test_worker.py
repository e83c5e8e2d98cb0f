"""What a worker does when an object store fails for a time, and when another command takes its folder. No cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.inference.classifier import NamedImage, UnreadableImage, load

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec", reason="needs the extra scale")

from thirtytwo.scale import worker as module  # noqa: E402
from thirtytwo.scale.job import Job, Request, make_request, start_or_continue  # noqa: E402
from thirtytwo.scale.shards import Shard  # noqa: E402
from thirtytwo.scale.store import open_store  # noqa: E402
from thirtytwo.scale.worker import InterruptedStoreError, ShardClassifier, images_of  # noqa: E402

IMAGES = ["blue", "green", "grey", "red"]


@pytest.fixture
def place(remote: Any, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the images in an object store that fails, if it does, for less than a moment."""
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(module, "READ_THREADS", 1)
    return f"remote://user:secret@host{image_folder}"


@pytest.fixture
def request_for(tmp_path: Path, colour_model: Path) -> Callable[[str], Request]:
    def make(source: str) -> Request:
        return make_request([source], str(tmp_path / "out"), colour_model, "colours", 5, absolute=True)

    return make


def classify(request: Request, model: Path) -> tuple[dict[str, Any], list[str], list[str]]:
    """The summary of the only shard, and the names of images with predictions and with errors."""
    job, (shard,), _ = start_or_continue(open_store(request.out), request)
    worker = ShardClassifier(job, None)
    worker._classifier = load(model)
    summary = worker._summary(shard)
    found = []
    for folder in ("predictions", "errors"):
        part = Path(request.out, folder, shard.part)
        rows = parquet.read_table(part).to_pylist() if part.is_file() else []
        found.append([Path(row["file"]).stem for row in rows])
    return summary, found[0], found[1]


def failing(reads: Iterator[bool], only: str = "") -> Callable[[str, str], None]:
    """A check of `remote` that raises an error for those reads, of a file or of all, of which the iterator says so."""

    def check(access: str, path: str) -> None:
        if access == "read" and only in path and next(reads, False):
            raise ConnectionError("timed out")

    return check


@pytest.mark.parametrize(
    "reads",
    [
        [False, True],  # one read fails, and then does not
        [False, *[True] * 5],  # the store is gone for the rest of the shard
        [True] * 4,  # and for a whole shard
        [*[True] * 4, False, *[True] * 5],
    ],
)
def test_no_image_is_lost_where_the_store_fails_for_a_time(
    reads: list[bool], remote: Any, place: str, request_for: Callable[[str], Request], colour_model: Path
) -> None:
    remote.check = staticmethod(failing(iter(reads)))
    summary, predicted, failed = classify(request_for(place), colour_model)
    assert (predicted, failed) == (IMAGES, []), summary
    assert (summary["images"], summary["unreadable"], summary["error"]) == (4, 0, "")


def test_an_image_that_the_store_never_gives_is_an_error_of_its_own(
    remote: Any, place: str, request_for: Callable[[str], Request], colour_model: Path
) -> None:
    remote.check = staticmethod(failing(iter([True] * 100), only="green"))
    summary, predicted, failed = classify(request_for(place), colour_model)
    assert (predicted, failed) == (["blue", "grey", "red"], ["green"])
    assert (summary["images"], summary["unreadable"]) == (3, 1)


def test_a_store_that_stays_away_ends_the_command_and_no_part_is_written(
    remote: Any, place: str, request_for: Callable[[str], Request], colour_model: Path
) -> None:
    remote.check = staticmethod(failing(iter([False, *[True] * 100])))
    summary, predicted, failed = classify(request_for(place), colour_model)
    assert (predicted, failed) == ([], [])
    assert summary["error"] == "InputError"
    assert "timed out" in summary["message"]
    assert "secret" not in summary["message"] + summary["fix"]
    remote.check = staticmethod(failing(iter([])))
    assert classify(request_for(place), colour_model)[1] == IMAGES


def test_a_parquet_file_in_a_store_that_fails(remote: Any, tmp_path: Path) -> None:
    """A lost connection is no damage of the file."""
    image = arrow.array([b"bytes"] * 3, arrow.binary())
    parquet.write_table(arrow.table({"image": image}), tmp_path / "a.parquet")
    request = Request((), "", "", "model", "", 5)
    job = Job(request, "parquet", f"remote://user:secret@host{tmp_path}", "image", 3, 1)
    remote.check = staticmethod(failing(iter([True])))
    with pytest.raises(InterruptedStoreError, match="timed out"):
        list(images_of(job, Shard(0, 3, ("a.parquet",))))
    found = list(images_of(job, Shard(0, 3, ("a.parquet",))))
    assert [image.file for image in found if isinstance(image, NamedImage | UnreadableImage)] == [
        f"remote://host{tmp_path}/a.parquet#{row}" for row in range(3)
    ]


def test_a_worker_of_a_replaced_command_writes_nothing(
    request_for: Callable[[str], Request], image_folder: Path, colour_model: Path
) -> None:
    """Its command was killed, or works on another machine; another one has started again with --force."""
    request = request_for(str(image_folder))
    store = open_store(request.out)
    job, (shard,), _ = start_or_continue(store, request)
    late = ShardClassifier(job, None)
    late._classifier = load(colour_model)
    start_or_continue(store, replace(request, top=1), force=True)
    summary = late._summary(shard)
    assert summary["error"] == "OutputError"
    assert "another command" in summary["message"]
    assert not store.names("predictions")
