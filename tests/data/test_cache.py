from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from thirtytwo.data import cache, decoding
from thirtytwo.data.load import load_dataset

TREE = {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2}


@pytest.fixture
def decoded(monkeypatch):
    """Number of images decoded so far."""
    seen = []
    real = decoding.load_hashed

    def counting(*arguments):
        seen.append(arguments[3])
        return real(*arguments)

    monkeypatch.setattr(decoding, "load_hashed", counting)
    return seen


def test_the_second_time_nothing_is_decoded(make, tmp_path, decoded):
    root = str(make.tree(tmp_path / "set", TREE))
    first = load_dataset(root)
    assert len(decoded) == 10
    second = load_dataset(root)
    assert len(decoded) == 10
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    for one, two in ((first.train, second.train), (first.test, second.test)):
        np.testing.assert_array_equal(one.images, two.images)
        np.testing.assert_array_equal(one.labels, two.labels)
        assert one.files == two.files
        np.testing.assert_array_equal(one.hashes, two.hashes)
    assert (first.fingerprint, first.sizes) == (second.fingerprint, second.sizes)


def test_without_cache_nothing_is_written(make, tmp_path, decoded):
    root = str(make.tree(tmp_path / "set", TREE))
    for _ in range(2):
        assert not isinstance(load_dataset(root, cache=False).train.images, np.memmap)
    assert len(decoded) == 20
    assert not cache.cache_dir().exists()


def test_moved_data_is_known_again_and_changed_data_is_not(make, tmp_path, decoded):
    root = make.tree(tmp_path / "set", TREE)
    first = load_dataset(str(root))
    root.rename(tmp_path / "moved")
    assert load_dataset(str(tmp_path / "moved")).fingerprint == first.fingerprint
    assert len(decoded) == 10
    file = tmp_path / "moved/train/a/0.png"
    state = file.stat()
    new = make.png(77)
    file.write_bytes(new + b"\0" * (state.st_size - len(new)))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    changed = load_dataset(str(tmp_path / "moved"))
    np.testing.assert_array_equal(changed.train.images[0], make.pixels(77))
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize("options", [{"image_size": 16}, {"image_size": 16, "resize": "pad"}])
def test_other_wishes_are_other_entries(options, make, tmp_path, decoded):
    root = str(make.tree(tmp_path / "set", TREE))
    for _ in range(2):
        load_dataset(root)
        load_dataset(root, **options)
    assert len(decoded) == 20


def test_a_label_moved_to_another_class_is_another_entry(make, tmp_path):
    root = make.tree(tmp_path / "set", TREE)
    load_dataset(str(root))
    (root / "train/a/0.png").rename(root / "train/b/9.png")
    data = load_dataset(str(root))
    np.testing.assert_array_equal(data.train.images[-1], make.pixels(0))
    assert data.train.counts.tolist() == [2, 4]


def _cut(entry: Path) -> None:
    data = (entry / "train.npy").read_bytes()
    (entry / "train.npy").write_bytes(data[: len(data) // 2])


def _flip(entry: Path) -> None:
    data = bytearray((entry / "train.npy").read_bytes())
    data[-7] ^= 1
    (entry / "train.npy").write_bytes(data)


def _empty(entry: Path) -> None:
    (entry / "test.npy").write_bytes(b"")


def _lose(entry: Path) -> None:
    (entry / "test.npy").unlink()


def _no_json(entry: Path) -> None:
    (entry / "entry.json").write_text("{")


def _other_json(entry: Path) -> None:
    (entry / "entry.json").write_text("[]")


@pytest.mark.parametrize("spoil", [_cut, _flip, _empty, _lose, _no_json, _other_json])
def test_damaged_entries_are_made_anew(spoil, make, tmp_path, decoded, caplog):
    root = str(make.tree(tmp_path / "set", TREE))
    first = load_dataset(root).train.images.copy()
    (entry,) = (cache.cache_dir() / cache.ENTRIES).iterdir()
    spoil(entry)
    np.testing.assert_array_equal(load_dataset(root).train.images, first)
    assert len(decoded) == 20
    assert "damaged" in caplog.text
    load_dataset(root)
    assert len(decoded) == 20
    assert [file.name for file in (cache.cache_dir() / cache.ENTRIES).iterdir()] == [entry.name]


def test_a_full_disk_leaves_the_images_in_memory(make, tmp_path, monkeypatch, caplog):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with caplog.at_level(logging.WARNING):
        data = load_dataset(str(make.tree(tmp_path / "set", TREE)))
    np.testing.assert_array_equal(data.train.images[0], make.pixels(0))
    assert "No space left on device" in caplog.text
    assert list((cache.cache_dir() / cache.ENTRIES).iterdir()) == []


def test_a_cache_that_is_no_folder_is_no_obstacle(make, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "file"))
    assert len(load_dataset(str(make.tree(tmp_path / "set", TREE))).train) == 6
    assert "WARNING" in caplog.text


def test_files_are_read_once_when_they_settled(make, tmp_path, monkeypatch):
    root = make.tree(tmp_path / "set", TREE)
    files = sorted(root.rglob("*.png"))
    hashed = []
    real = cache._hash
    monkeypatch.setattr(cache, "_hash", lambda file: hashed.append(file) or real(file))
    keys = {cache.content_key(root, files), cache.content_key(root, files)}
    assert len(hashed) == 2 * len(files), "files this young may change again within one tick of the clock"
    monkeypatch.setattr(cache, "_RECENT_SECONDS", -1.0)
    keys |= {cache.content_key(root, files), cache.content_key(root, files)}
    assert len(hashed) == 3 * len(files)
    files[0].write_bytes(files[0].read_bytes() + b"\0")
    keys.add(cache.content_key(root, files))
    assert len(hashed) == 4 * len(files)
    assert len(keys) == 2


def test_left_overs_of_killed_processes_go(make, tmp_path):
    old = cache.cache_dir() / cache.ENTRIES / ".writing-old"
    young = old.with_name(".writing-young")
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    load_dataset(str(make.tree(tmp_path / "set", TREE)))
    assert (old.exists(), young.exists()) == (False, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other cache folders")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"THIRTYTWO_CACHE": "/there", "XDG_CACHE_HOME": "/xdg"}, "/there"),
        ({"THIRTYTWO_CACHE": "~/there"}, "/home/me/there"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/thirtytwo"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/thirtytwo"),
        ({}, "/home/me/.cache/thirtytwo"),
    ],
)
def test_where_the_cache_is(variables, expected, monkeypatch):
    for name in ("THIRTYTWO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | variables).items():
        monkeypatch.setenv(name, value)
    assert cache.cache_dir() == Path(expected)


def test_a_file_of_a_table_that_changes_without_a_trace_in_size_and_time_is_decoded_again(make, tmp_path, decoded):
    root = make.tree(tmp_path / "set", {"a": 3, "b": 3})
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
    (root / "labels.csv").write_text("\n".join(["file,label", *rows]), encoding="utf-8")
    first = load_dataset(str(root / "labels.csv"), whole=True)
    file = root / "a/0.png"
    state, new = file.stat(), make.png(77)
    file.write_bytes(new + b"\0" * (state.st_size - len(new)))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    changed = load_dataset(str(root / "labels.csv"), whole=True)
    assert changed.fingerprint != first.fingerprint
