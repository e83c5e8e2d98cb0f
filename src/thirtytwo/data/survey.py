"""Survey of a data set by the headers of its files, and the image size that it suggests."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from thirtytwo.data.undecoded import UndecodedDataSet
from thirtytwo.data.validate import SMALLEST_SIDE, without_empty_splits
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.formats import FORMATS
from thirtytwo.images.header import read_size

AUTO_SIZE = 32
_SIZE_SAMPLE = 256


@dataclass(frozen=True)
class Survey:
    """What is known of a data set before its images are decoded.

    `side` is the median of their shorter sides in pixels, `images` and `classes` are their numbers in all splits.
    """

    side: int
    images: int
    classes: int


def survey_of(undecoded: UndecodedDataSet) -> Survey:
    """Survey a data set by the headers of a sample of its images.

    Raises:
        DataError: it has no images, or none that can be read.
    """
    side = _median_side(without_empty_splits(undecoded))
    if isinstance(side, ImageError):
        raise DataError(
            f"{undecoded.where}: no image can be read; the first: {side.message}", f"Expected {FORMATS} files."
        )
    return Survey(side, sum(len(part.rows) for part in undecoded.parts.values()), len(undecoded.classes))


def auto_size(undecoded: UndecodedDataSet) -> int:
    """Median of the shorter sides of a sample of training images, at most `AUTO_SIZE`."""
    side = _median_side(undecoded)
    return AUTO_SIZE if isinstance(side, ImageError) else max(SMALLEST_SIDE, min(AUTO_SIZE, side))


def _median_side(undecoded: UndecodedDataSet) -> int | ImageError:
    """Median of the shorter sides of a sample of training images; the first error where none of them can be read."""
    part = undecoded.parts["train"] if "train" in undecoded.parts else next(iter(undecoded.parts.values()))
    step = max(1, len(part.rows) // _SIZE_SAMPLE) if part.random_access else 1
    sides: list[int] = []
    errors: list[ImageError] = []
    for source in part.stream(part.rows[::step][:_SIZE_SAMPLE]):
        try:
            sides.append(min(read_size(source)))
        except ImageError as error:  # reported on decoding
            errors.append(error)
    return (
        int(statistics.median(sides)) if sides else next(iter(errors), ImageError(f"{undecoded.where} has no images."))
    )
