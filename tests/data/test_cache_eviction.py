"""The cache on disk has a size limit, keeps entries in use by other processes, and detects damage."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thirtytwo.data import cache, cache_eviction
from thirtytwo.errors import DataError

KB = 1000


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("THIRTYTWO_CACHE_GB", raising=False)
    return cache.entries_dir()


def key(number: int) -> str:
    return cache.digest(number)


def images(number: int, count: int = 200) -> np.ndarray:
    """An entry of `count` images of 3 kB each."""
    return np.random.default_rng(number).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def kept(number: int, make: Callable[[], cache.Entry] | None = None, count: int = 200) -> cache.Entry:
    def made() -> cache.Entry:
        hashes = {"train": np.arange(count, dtype=np.uint64)}
        return cache.Entry({"train": images(number, count)}, hashes, {(32, 32): count}, "f")

    return cache.cached(key(number), make or made, f"data {number}")


def names() -> set[str]:
    return {entry.data or "" for entry in cache_eviction.stored(cache.entries_dir())}


def age(number: int, seconds: float) -> None:
    """Set the time of the last use."""
    record = cache.entries_dir() / key(number) / "entry.json"
    then = record.stat().st_mtime - seconds
    os.utime(record, (then, then))


@pytest.mark.long
def test_beyond_the_bound_the_least_recently_used_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE_GB", "0.0015")  # two entries of 615 kB
    for number in (1, 2):
        kept(number)
        age(number, 100 - number)
    gc.collect()
    kept(1)  # used again
    gc.collect()
    kept(3)
    assert names() == {"data 1", "data 3"}
    assert sum(entry.size for entry in cache_eviction.stored(cache.entries_dir())) < 1_500 * KB


@pytest.mark.slow
def test_an_entry_above_the_bound_is_kept_while_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE_GB", "0")
    found = kept(1)
    assert isinstance(found.images["train"], np.memmap)
    np.testing.assert_array_equal(found.images["train"], images(1))
    kept(2)
    assert names() == {"data 1", "data 2"}, "both are open"
    del found
    gc.collect()
    kept(3)
    assert names() == {"data 3"}


OPEN = """
import sys
from thirtytwo.data import cache
found = cache.cached(sys.argv[1], lambda: exit("it was not there"))
part = found.images["train"][5:7]
del found
print("open", flush=True)
sys.stdin.read()
print(int(part.sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there the system itself refuses")
def test_an_entry_that_another_process_has_open_stays() -> None:
    total = int(images(1)[5:7].sum())
    kept(1)
    gc.collect()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", OPEN, key(1)], text=True, **pipes)
    assert other.stdout is not None
    assert other.stdout.readline() == "open\n"
    done = cache_eviction.make_room(cache.entries_dir(), 0)
    assert [(entry.data, reason) for entry, reason in done.left] == [("data 1", "in use")]
    assert names() == {"data 1"}
    out, _ = other.communicate("")
    assert int(out) == total
    assert [entry.data for entry in cache_eviction.make_room(cache.entries_dir(), 0).removed] == ["data 1"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there the system itself refuses")
def test_a_killed_process_keeps_nothing_in_use() -> None:
    kept(1)
    gc.collect()
    other = subprocess.Popen([sys.executable, "-c", OPEN, key(1)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    other.kill()
    other.communicate()
    assert len(cache_eviction.make_room(cache.entries_dir(), 0).removed) == 1


@pytest.mark.slow
def test_only_what_was_written_here_is_removed(place: Path, tmp_path: Path) -> None:
    kept(1)
    gc.collect()
    (place / key(1) / "notes.txt").write_text("mine")
    (place / "photos").mkdir()
    (place / "photos" / "train.npy").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "entry.json").write_text("mine")
    (place / ("a" * 32)).symlink_to(outside)
    done = cache_eviction.remove(cache_eviction.stored(place))
    assert not done.removed
    assert len(done.left) == 1
    assert done.freed > 600 * KB
    assert [file.name for file in (place / key(1)).iterdir()] == ["notes.txt"]
    assert (place / "photos" / "train.npy").exists()
    assert (outside / "entry.json").exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf"])
def test_a_bound_that_is_no_number_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE_GB", text)
    with pytest.raises(DataError) as caught:
        kept(1)
    assert "THIRTYTWO_CACHE_GB" in caught.value.message
    assert caught.value.fix is not None


def test_the_bound_is_a_share_of_a_small_disk(place: Path) -> None:
    assert 0 < cache_eviction.limit_bytes(place) <= 20 * cache_eviction.GB


def _write(file: Path, at: int, times: bool) -> None:
    """Change one byte, with or without updating the file's times."""
    state = file.stat()
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))
    if not times:
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.long
@pytest.mark.parametrize("at", [200, 3_000_000, 6_144_000])
@pytest.mark.parametrize("times", [True, False])
def test_damage_is_noticed_and_the_entry_made_anew(
    at: int, times: bool, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(1, count=2000)
    gc.collect()
    if at == 3_000_000 and not times:
        at = int(np.linspace(0, 6_144_000 - (1 << 16), 16)[7]) + 128  # of one of the blocks that are compared
    _write(place / key(1) / "train.npy", at, times)
    np.testing.assert_array_equal(kept(1, count=2000).images["train"], images(1, 2000))
    assert "damaged" in caplog.text


@pytest.mark.slow
def test_opening_does_not_read_everything(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(1, count=2000)
    gc.collect()
    read = []
    real = cache.zlib.crc32

    def counting(data, *start):
        read.append(len(bytes(data)))
        return real(data, *start)

    monkeypatch.setattr(cache.zlib, "crc32", counting)
    kept(1, lambda: pytest.fail("it was there"))
    assert sum(read) <= 16 << 16
    assert sum(read) < 2000 * 3072 / 4


@pytest.mark.long
def test_a_copied_cache_is_compared_once_and_used(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(1, count=2000)
    gc.collect()
    os.utime(place / key(1) / "train.npy", (1, 1))
    kept(1, lambda: pytest.fail("it was there"))
    gc.collect()
    read = []
    monkeypatch.setattr(cache, "_checksum", lambda array: read.append(array))
    kept(1, lambda: pytest.fail("it was there"))
    assert not read
