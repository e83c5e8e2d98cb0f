"""Overview of a data set: counts per class and contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.images.render import labeled_rows, png
from thirtytwo.io import write_bytes
from thirtytwo.text import percent

_CHUNK = 2048
"""Images that are copied into memory at once."""
_MOST_CLASSES = 100
_SMALLEST_CELL = 48
_AUGMENTED_CELL = 90


@dataclass(frozen=True)
class ClassCount:
    """Number of images of one class, by split."""

    name: str
    counts: dict[str, int]


def class_counts(dataset: DataSet) -> list[ClassCount]:
    """Counts of all classes, in the order of their indices."""
    counts = {name: images.counts for name, images in dataset.stored.items()}
    return [
        ClassCount(label, {name: int(found[index]) for name, found in counts.items()})
        for index, label in enumerate(dataset.classes)
    ]


LEAST_CUT = 0.1
"""Share of an image's longer side below which what a central crop cuts off is not mentioned."""


@dataclass(frozen=True)
class CutEnds:
    """What a central crop cuts off of `images` of `total` images: shares of the longer side, median and maximum."""

    images: int
    total: int
    median: float
    most: float

    def __str__(self) -> str:
        """As a sentence."""
        of = "all images" if self.images == self.total else f"{self.images:,} of {self.total:,} images"
        share = percent(self.median, 0)
        range_ = f"{share} of the longer side" + (
            "" if percent(self.most, 0) == share else f" in the median, at most {percent(self.most, 0)}"
        )
        return f"A central crop cuts off the ends of {of}: {range_}."


HOW_TO_KEEP_ENDS = "The recipe photos keeps them (data.resize=squash); others do with --set data.resize=squash, or pad."


def cut_ends(sizes: Mapping[tuple[int, int], int]) -> CutEnds | None:
    """What a central crop cuts off, by the number of images of each (width, height); None: hardly anything."""
    shares = {size: 1 - min(size) / max(size) for size in sizes}
    cut = sorted((share, sizes[size]) for size, share in shares.items() if share >= LEAST_CUT)
    images = sum(count for _, count in cut)
    if not images:
        return None
    ends = np.cumsum([count for _, count in cut])
    middle = cut[int(np.searchsorted(ends, (images + 1) // 2))][0]
    return CutEnds(images, sum(sizes.values()), middle, cut[-1][0])


def balanced_sample(labels: npt.NDArray[np.int64], most: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Positions of at most `most` images, int64, by class and in random order within it.

    Every class has the same number, but those that have fewer images: these are all chosen.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    by_class = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(by_class, by_class)
    chosen = np.lexsort((by_class, rank))[:most]
    return np.asarray(order[np.sort(chosen)], dtype=np.int64)


def class_means(images: ImageSet) -> npt.NDArray[np.uint8]:
    """Mean image of each class, uint8 `(C, H, W, 3)`; black for a class without images."""
    means = np.zeros((len(images.classes), *images.images.shape[1:]), dtype=np.uint8)
    for index in range(len(images.classes)):
        members = np.flatnonzero(images.labels == index)
        total = np.zeros(images.images.shape[1:], dtype=np.float64)
        for start in range(0, len(members), _CHUNK):
            total += images.images[members[start : start + _CHUNK]].sum(axis=0, dtype=np.uint32)
        means[index] = np.rint(total / max(1, len(members)))
    return means


def class_sheet(images: ImageSet, per_class: int = 10, seed: int = 0) -> Image.Image:
    """Contact sheet with one row per class: its name and randomly chosen images, enlarged by an integer factor.

    Args:
        images: the images to choose from.
        per_class: images per row.
        seed: seed of the choice.

    Returns:
        An RGB image with at most 100 rows; further classes are left out.
    """
    names = images.classes[:_MOST_CLASSES]
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(len(names)):
        members = np.flatnonzero(images.labels == index)
        rows.append([images.images[position] for position in np.sort(rng.permutation(members)[:per_class])])
    return labeled_rows(names, rows, _cell(images.images.shape[1], _SMALLEST_CELL), per_class)


def write_sheet(images: ImageSet, path: Path, per_class: int = 10, seed: int = 0) -> None:
    """Write `class_sheet` as PNG."""
    write_bytes(path, png(np.asarray(class_sheet(images, per_class, seed))))


def augmented_sheet(
    originals: npt.NDArray[np.uint8],
    augmented: npt.NDArray[np.uint8],
    names: Sequence[str],
    captions: Sequence[Sequence[Sequence[str]]] | None = None,
) -> Image.Image:
    """Contact sheet with one row per image: its name, the original and its augmented versions.

    Args:
        originals: uint8 `(R, H, W, 3)`.
        augmented: uint8 `(R, K, H, W, 3)`.
        names: R names.
        captions: for each augmented image, the lines of text below it.
    """
    rows = [[original, *versions] for original, versions in zip(originals, augmented, strict=True)]
    lines = None if captions is None else [[(), *row] for row in captions]
    columns, side = augmented.shape[1:3]
    return labeled_rows(names, rows, _cell(side, _AUGMENTED_CELL), columns + 1, lines, first_apart=True)


def _cell(side: int, least: int) -> int:
    """Side of an image that is enlarged by an integer factor to at least `least` pixels."""
    return side * max(1, -(-least // side))
