"""Arrays larger than the limit are temporary files; rows are read on use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from thirtytwo.data import arrays
from thirtytwo.data.arrays import Rows, blank, joined, release_pages, taken


@pytest.fixture(params=[2**30, 100])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(arrays, "IN_MEMORY", request.param)
    return int(request.param)


def test_blank_taken_and_joined(limit: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 3), dtype=np.uint8)
    empty = blank(images.shape)
    assert isinstance(empty, np.memmap) == (limit == 100)
    assert not empty.any()
    order = np.array([6, 0, 3])
    np.testing.assert_array_equal(taken(images, order), images[order])
    np.testing.assert_array_equal(joined(images, images[:2]), np.concatenate([images, images[:2]]))
    assert len(taken(images, order[:0])) == 0


def test_rows() -> None:
    images = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    rows = Rows.all_of(images).take(np.array([5, 1, 2]))
    assert (len(rows), rows.side) == (3, 4)
    np.testing.assert_array_equal(rows.read(np.array([2, 0])), images[[2, 5]])
    both = rows.joined(Rows.all_of(images).take(np.array([0])))
    assert both.array is images
    np.testing.assert_array_equal(both.read(np.arange(4)), images[[5, 1, 2, 0]])
    other = rows.joined(Rows.all_of(images[:1].copy()))
    np.testing.assert_array_equal(other.read(np.arange(4)), images[[5, 1, 2, 0]])


def test_released_pages_of_a_file_are_read_again(tmp_path: Path) -> None:
    written = np.arange(3 * 4096, dtype=np.int64).astype(np.uint8)
    np.save(tmp_path / "a.npy", written)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert mapped.sum() == written.sum()
    release_pages(mapped)
    np.testing.assert_array_equal(mapped, written)
    release_pages(written)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the pages of files in memory, as Linux does")
def test_rows_that_were_read_do_not_stay_in_memory(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 512, 512, 3), dtype=np.uint8)  # 50 MB
    np.save(tmp_path / "a.npy", images)
    rows = Rows.all_of(np.load(tmp_path / "a.npy", mmap_mode="r"))
    before = psutil.Process().memory_info().shared
    for start in range(0, len(rows), 4):
        positions = np.arange(start, start + 4)
        np.testing.assert_array_equal(rows.read(positions), images[positions])
    assert psutil.Process().memory_info().shared - before < 20 * 2**20
