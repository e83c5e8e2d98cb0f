"""Arrays of images that may be larger than memory: files that are mapped into memory, and rows that are read on use."""

from __future__ import annotations

import math
import mmap
import tempfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

IN_MEMORY = 2**30
"""Largest array, in bytes, that is kept in memory; larger ones are temporary files that are mapped into it."""
_CHUNK = 4096


def blank(shape: tuple[int, ...]) -> Pixels:
    """Zeros, uint8 of `shape`: in memory, or in a temporary file where they take more than `IN_MEMORY` bytes.

    The file has no name, so it disappears with the array.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.zeros(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def taken(images: Pixels, positions: Positions) -> Pixels:
    """A copy of the images at `positions`, in that order; see `blank` for where it is."""
    if len(positions) * math.prod(images.shape[1:]) <= IN_MEMORY:
        return images[positions]
    copy = blank((len(positions), *images.shape[1:]))
    for start in range(0, len(positions), _CHUNK):
        copy[start : start + _CHUNK] = images[positions[start : start + _CHUNK]]
    return copy


def joined(first: Pixels, second: Pixels) -> Pixels:
    """The images of `first`, then those of `second`."""
    copy = blank((len(first) + len(second), *first.shape[1:]))
    copy[: len(first)], copy[len(first) :] = first, second
    return copy


def release_pages(images: npt.NDArray[np.uint8]) -> None:
    """Release the pages of a memory-mapped array that were read; they are read again on access."""
    mapped: object = images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array uint8 `(M, L, L, 3)`, usually a memory map; pixels are read only when they are used."""

    array: Pixels
    positions: Positions

    @classmethod
    def all_of(cls, array: Pixels) -> Rows:
        """Every row, in order."""
        return cls(array, np.arange(len(array), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def side(self) -> int:
        """Side L of the images, in pixels."""
        return int(self.array.shape[1])

    def take(self, positions: Positions) -> Rows:
        """The rows at `positions`, in that order."""
        return Rows(self.array, self.positions[positions])

    def read(self, positions: Positions) -> Pixels:
        """Copy the images at `positions`, uint8 `(B, L, L, 3)`; pages of a memory map do not stay in memory."""
        images = self.array[self.positions[positions]]
        release_pages(self.array)
        return images

    def joined(self, other: Rows) -> Rows:
        """The rows of this and then those of `other`; copied unless both are rows of one array."""
        if other.array is self.array:
            return Rows(self.array, np.concatenate([self.positions, other.positions]))
        return Rows.all_of(joined(taken(self.array, self.positions), taken(other.array, other.positions)))
