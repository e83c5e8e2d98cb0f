"""Sizes, aspect ratios and file formats of the images of a data set, from headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from thirtytwo.images.header import FileFacts

RATIO_BINS = 24
SCATTERED = 0.1
"""Share of the images that the most frequent sizes have at least where a list of them says something."""
AREAS = {"Smallest": 0.0, "25 % are smaller": 0.25, "Median": 0.5, "75 % are smaller": 0.75, "Largest": 1.0}
"""Images whose sizes describe those of all, with the share of images that have a smaller area."""
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

    def are_scattered(self, listed: int) -> bool:
        """Whether hardly any images share a size, so that a list of the most frequent ones says little.

        `listed` is the number of sizes that the list has room for.
        """
        most = sum(count for *_, count in self.sizes[:listed])
        return len(self.sizes) > listed and (self.sizes[0][2] == 1 or most < SCATTERED * self.images)

    def by_area(self) -> list[tuple[str, int, int]]:
        """What share of the images is smaller, as words, with width and height: from the smallest to the largest."""
        ordered = sorted(self.sizes, key=_area)
        ends = np.cumsum([count for *_, count in ordered])
        places = {name: int(np.searchsorted(ends, max(1, ceil(share * self.images)))) for name, share in AREAS.items()}
        return [(name, *ordered[place][:2]) for name, place in places.items()]

    def typical(self, most: int) -> list[tuple[int, int, int]]:
        """At most `most` sizes: the most frequent ones and, of those that are equally frequent, some of every area.

        Those with the smallest and the largest width and height are always among them; `most` is at least 4.
        """
        if len(self.sizes) <= most:
            return list(self.sizes)
        ends = [end(self.sizes, key=lambda size: size[axis]) for axis in (0, 1) for end in (min, max)]
        rest = [size for size in self.sizes if size not in ends]
        room = most - len(set(ends))
        if not room:
            return list(dict.fromkeys(ends))
        more = [size for size in rest if size[2] > rest[room - 1][2]]
        equal = sorted((size for size in rest if size[2] == rest[room - 1][2]), key=_area)
        places = np.linspace(0, len(equal) - 1, room - len(more)).astype(np.int64)
        return [*dict.fromkeys(ends), *more, *(equal[place] for place in places.tolist())]

    def median(self) -> tuple[int, int]:
        """Medians of width and height in pixels."""
        return _median((width, count) for width, _, count in self.sizes), _median(
            (height, count) for _, height, count in self.sizes
        )


def _area(size: tuple[int, int, int]) -> tuple[int, tuple[int, int, int]]:
    return size[0] * size[1], size


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
