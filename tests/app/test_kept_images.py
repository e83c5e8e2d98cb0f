"""Images of closed pages: kept for a time and in bounded number, apart for each page."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("streamlit")

from thirtytwo.app import kept
from thirtytwo.app.file_store import UploadStore
from thirtytwo.app.kept import KeptImages
from thirtytwo.app.photos import InputImage


def images(*names: str) -> list[InputImage]:
    return [InputImage(name, Path(name), name) for name in names]


def names(found: kept.Kept | None) -> list[str]:
    return [] if found is None else [one.name for one in found.images]


def wait_until_empty(store: KeptImages) -> None:
    for _ in range(200):
        if not len(store):
            return
        time.sleep(0.02)
    raise AssertionError(f"{len(store)} lists are still kept")


def test_a_reloaded_page_gets_its_images_and_predictions() -> None:
    open_pages = {"first"}
    store = KeptImages(open_pages.__contains__)
    identity, found = store.take("", "first")
    assert found is None
    results = {"a": 1}
    store.put(identity, "first", images("a", "b"), results)
    open_pages.clear()  # reloading closes the session
    again, found = store.take(identity, "second")
    assert again == identity
    assert names(found) == ["a", "b"]
    assert found is not None
    assert found.results is results


def test_a_duplicated_page_gets_a_copy() -> None:
    store = KeptImages({"first", "second"}.__contains__)
    identity, _ = store.take("", "first")
    store.put(identity, "first", images("a"), {})
    copy, found = store.take(identity, "second")
    assert copy != identity
    assert names(found) == ["a"]
    store.put(copy, "second", images("b"), {})
    store.put(identity, "first", [], {})
    assert names(store.take(copy, "second")[1]) == ["b"]
    assert names(store.take(identity, "first")[1]) == []


@pytest.mark.parametrize("identity", ["", "../etc", "0123456789abcdef"])
def test_an_unknown_address_has_no_images(identity: str) -> None:
    made, found = KeptImages(lambda session: False).take(identity, "a")
    assert found is None
    assert len(made) == 16
    assert made != identity


def test_files_are_deleted_some_time_after_the_page_was_closed() -> None:
    open_pages = {"page"}
    store, files = KeptImages(open_pages.__contains__, seconds=0.05), UploadStore()
    handle = files.add(b"image", ".png")
    path = handle.path
    store.put("one", "page", [InputImage("a", path, "a", handle=handle)], {})
    del handle
    time.sleep(0.2)
    assert path.is_file(), "the page is open"
    open_pages.clear()
    wait_until_empty(store)
    assert not path.exists()


def test_the_longest_closed_lists_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_LISTS", 2)
    monkeypatch.setattr(kept, "MAX_IMAGES", 5)
    store = KeptImages({"open"}.__contains__)
    store.put("open", "open", images(*map(str, range(20))), {})
    for number in range(4):
        store.put(f"{number}", f"closed {number}", images("a", "b"), {})
    assert len(store) == 3, "two closed ones, and the open one"
    assert names(store.take("0", "new")[1]) == []
    store.put("large", "closed", images(*"abcde"), {})
    assert names(store.take("3", "new")[1]) == []
    assert len(names(store.take("large", "new")[1])) == 5
    assert len(names(store.take("open", "new")[1])) == 20
