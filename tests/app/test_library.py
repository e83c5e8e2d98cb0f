"""Uploaded model files: complete, deduplicated, bounded, and deleted with their session."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest

from thirtytwo.app import library
from thirtytwo.app.file_store import UploadStore
from thirtytwo.app.settings import AppSettings


def names(store: UploadStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


@pytest.mark.long
def test_equal_uploads_share_one_file_until_the_last_is_released() -> None:
    store = UploadStore()
    one, other, third = store.add(b"a"), store.add(b"a"), store.add(b"b")
    assert one.path == other.path != third.path
    assert one.path.read_bytes() == b"a"
    place = one.path
    del one
    gc.collect()
    assert place.is_file(), "the other handle still references it"
    del other
    gc.collect()
    assert not place.exists()
    assert names(store) == [third.path.name]
    assert store.add(b"a").path != place, "the old path may be about to be deleted"


def test_number_and_bytes_are_bounded_by_evicting_the_least_recently_used() -> None:
    store = UploadStore(max_files=3)
    held = [store.add(bytes([number])) for number in range(3)]
    store.touch(held[0].path)
    held.append(store.add(b"new"))
    assert [one.path.exists() for one in held] == [True, False, True, True]
    assert store.add(bytes([1])).path.exists(), "an evicted file can be added again"
    store = UploadStore(max_bytes=10)
    held = [store.add(bytes(size)) for size in (4, 5, 6, 20)]
    assert [one.path.exists() for one in held] == [False, False, False, True]


def test_stores_anew_what_something_else_deleted() -> None:
    store = UploadStore()
    one = store.add(b"a")
    one.path.unlink()
    other = store.add(b"a")
    assert other.path.read_bytes() == b"a"
    del one
    gc.collect()
    assert other.path.exists()


@pytest.mark.slow
def test_directory_is_deleted_with_the_store() -> None:
    store = UploadStore()
    folder, held = store.folder, store.add(b"a")
    del store, held
    gc.collect()
    assert not folder.exists()


def test_concurrent_uploads_of_the_same_file(
    colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())
    data = colour_model.read_bytes() + b"\x72\x00"  # an extra empty field: content that no other test uploads
    half, go = threading.Event(), threading.Event()
    write = Path.write_bytes

    def slowly(path: Path, data: bytes) -> int:
        write(path, data[: len(data) // 2])
        half.set()
        assert go.wait(20)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", slowly)
    wrong: list[Exception] = []

    def upload() -> None:
        try:
            library.add_upload("mine.onnx", data)
        except Exception as error:
            wrong.append(error)

    first, second = threading.Thread(target=upload), threading.Thread(target=upload)
    first.start()
    assert half.wait(20)
    second.start()
    second.join(0.5)
    go.set()
    first.join()
    second.join()
    assert not wrong


@pytest.mark.slow
def test_upload_is_deleted_with_its_session(
    colour_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_bundled: None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "settings", AppSettings())

    def script() -> None:
        from thirtytwo.app.views.models import show

        show()

    before = set(library.uploads().folder.iterdir())
    session = AppTest.from_function(script, default_timeout=60).run()
    session.file_uploader(key="model-upload").set_value(("mine.onnx", colour_model.read_bytes(), "")).run()
    (new,) = set(library.uploads().folder.iterdir()) - before
    assert "mine" in [one.value for one in session.subheader]
    new.unlink()  # as if evicted
    assert "mine" not in [one.value for one in session.run().subheader]
    session.file_uploader(key="model-upload").set_value(("mine.onnx", colour_model.read_bytes(), "")).run()
    (new,) = set(library.uploads().folder.iterdir()) - before
    del session
    gc.collect()
    assert not new.exists()
