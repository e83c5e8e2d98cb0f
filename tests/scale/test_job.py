"""Jobs in their output folders: which command continues one, and what `--force` removes. No cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from thirtytwo.errors import DataError, OutputError

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec", reason="needs the extra scale")

from thirtytwo.scale.job import PREDICTIONS, Request, make_request, start_or_continue  # noqa: E402
from thirtytwo.scale.store import Store, open_store  # noqa: E402


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


@pytest.mark.parametrize("name", ["notes.txt", f"{PREDICTIONS}/summary.csv"])
def test_force_keeps_the_results_if_there_are_other_files(
    name: str, done: Store, request_for: Callable[..., Request]
) -> None:
    done.write(name, lambda stream: stream.write(b"mine"))
    before = files(done)
    with pytest.raises(OutputError) as caught:
        start_or_continue(done, request_for("images"), force=True)
    assert name in caught.value.message
    assert files(done) == before


def test_force_starts_again(done: Store, request_for: Callable[..., Request]) -> None:
    job, shards, plan = start_or_continue(done, request_for("images/1.png"), force=True)
    assert plan is not None
    assert (job.images, len(shards)) == (1, 1)
    assert not done.names(PREDICTIONS)
    assert start_or_continue(done, request_for("images/1.png"))[0] == job
