"""Sizes, aspect ratios and file formats of the images of a data set, from headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.images.header import FileFacts

RATIO_BINS = 24
RATIOS = (0.4, 2.5)
"""Range of width divided by height in the histogram; what lies beyond counts in its last bins."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Sizes of images before they are resized.

    Attributes:
        sizes: (width, height, number of images), most frequent first.
        ratios: histogram of the logarithm of width divided by height, int64 `(RATIO_BINS,)`, from `RATIOS[0]` to
            `RATIOS[1]`.
        portrait: number of images that are taller than wide.
        square: number of images that are as wide as tall.
        landscape: number of images that are wider than tall.
    """

    sizes: tuple[tuple[int, int, int], ...]
    ratios: npt.NDArray[np.int64]
    portrait: int
    square: int
    landscape: int

    @property
    def images(self) -> int:
        """Number of images."""
        return self.portrait + self.square + self.landscape

    def median(self) -> tuple[int, int]:
        """Medians of width and height in pixels."""
        return _median((width, count) for width, _, count in self.sizes), _median(
            (height, count) for _, height, count in self.sizes
        )


def _median(values: Iterable[tuple[int, int]]) -> int:
    """The median of values that occur several times."""
    ordered = sorted(values)
    ends = np.cumsum([count for _, count in ordered])
    return ordered[int(np.searchsorted(ends, (ends[-1] + 1) // 2))][0]


def shapes_of(sizes: Mapping[tuple[int, int], int]) -> Shapes | None:
    """Shapes from the number of images by (width, height); None where it is empty."""
    if not sizes:
        return None
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    width, height = np.array([size for size, _ in ordered], dtype=np.float64).T
    counts = np.array([count for _, count in ordered], dtype=np.int64)
    low, high = np.log(RATIOS)
    ratios, _ = np.histogram(np.clip(np.log(width / height), low, high), RATIO_BINS, (low, high), weights=counts)
    return Shapes(
        tuple((*size, count) for size, count in ordered),
        ratios.astype(np.int64),
        int(counts[width < height].sum()),
        int(counts[width == height].sum()),
        int(counts[width > height].sum()),
    )


@dataclass(frozen=True)
class Formats:
    """What the headers of the files state.

    Attributes:
        formats: (format, number of files), most frequent first.
        modes: (Pillow's mode of the pixels, number of files), most frequent first.
        rotated: number of files that EXIF metadata says to rotate or mirror.
        median_bytes: median size of a file.
        largest_bytes: size of the largest file.
        total_bytes: size of all files.
    """

    formats: tuple[tuple[str, int], ...]
    modes: tuple[tuple[str, int], ...]
    rotated: int
    median_bytes: int
    largest_bytes: int
    total_bytes: int


def formats_of(facts: Iterable[FileFacts]) -> Formats | None:
    """Summary of the headers of files; None where there are none."""
    files = list(facts)
    if not files:
        return None
    sizes = np.array([file.bytes for file in files])
    return Formats(
        tuple(Counter(file.format for file in files).most_common()),
        tuple(Counter(file.mode for file in files).most_common()),
        sum(file.orientation != 1 for file in files),
        int(np.median(sizes)),
        int(sizes.max()),
        int(sizes.sum()),
    )
