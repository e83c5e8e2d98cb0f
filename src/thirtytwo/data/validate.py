"""Check a request and the classes and splits of a data set before anything is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.split import TEST_FRACTION, Positions, Split, split_off
from thirtytwo.data.types import ImageSet, Request
from thirtytwo.data.undecoded import UndecodedDataSet
from thirtytwo.errors import DataError
from thirtytwo.images.formats import FORMATS
from thirtytwo.images.pixels import RESIZE_RULES
from thirtytwo.text import listing

SMALLEST_SIDE = 8
_LARGEST_SIDE = 1024


def check_request(request: Request) -> None:
    """Check image size and resize rule.

    Raises:
        DataError: either is invalid.
    """
    if request.resize not in RESIZE_RULES:
        raise DataError(f"Unknown resize rule {request.resize!r}.", f"Expected one of: {', '.join(RESIZE_RULES)}.")
    size: Any = request.image_size  # as given from Python
    if size != "auto" and not (hasattr(size, "__index__") and SMALLEST_SIDE <= size <= _LARGEST_SIDE):
        raise DataError(f"The image size is {size!r}; expected {SMALLEST_SIDE} to {_LARGEST_SIDE} pixels, or 'auto'.")


def check_class_names(undecoded: UndecodedDataSet) -> None:
    """Check that each class has a name of its own, by which images of other data find their class.

    Blank lines of a list of classes do no harm where no image has such a class.

    Raises:
        DataError: two classes have the same name, or the images of one have a class without a name.
    """
    where, classes = undecoded.where, undecoded.classes
    twice = [name for name, count in Counter(filter(str.strip, classes)).items() if count > 1]
    if twice:
        raise DataError(
            f"{where} has more than one class with the name {listing(twice)}.",
            "Give each class a name of its own, such as 'crane (bird)' and 'crane (machine)'.",
        )
    used = {classes[index] for part in undecoded.parts.values() for index in np.unique(part.labels)}
    if not all(map(str.strip, used)):
        raise DataError(f"{where} has a class without a name.", "Name every class.")


def without_empty_splits(undecoded: UndecodedDataSet) -> UndecodedDataSet:
    """The data set without splits that have no images, otherwise unchecked.

    Raises:
        DataError: no images at all.
    """
    filled = {name: part for name, part in undecoded.parts.items() if len(part.labels)}
    if not filled:
        raise DataError(f"{undecoded.where} contains no images.", f"Expected {FORMATS} files in one folder per class.")
    return replace(undecoded, parts=filled)


def with_all_classes(undecoded: UndecodedDataSet, lacking: list[tuple[str, str]] | None = None) -> UndecodedDataSet:
    """The data set without classes that no split has, and with a note on each split without some of the others.

    Args:
        undecoded: the data set.
        lacking: as in `Request`; then there are no notes, either.

    Raises:
        DataError: no images, only one class, or a split that lacks a class that it must have.
    """
    undecoded = _with_training_images(undecoded)
    counts = {
        name: np.bincount(part.labels, minlength=len(undecoded.classes)) for name, part in undecoded.parts.items()
    }
    present = np.flatnonzero(sum(counts.values()))
    if len(present) < 2:
        reasons = f" ({'; '.join(undecoded.warnings[:3])})" if undecoded.warnings else ""
        raise DataError(
            f"{undecoded.where} has images of only one class, {undecoded.classes[present[0]]!r}{reasons}; expected at "
            "least 2.",
            undecoded.one_class_fix,
        )
    remarks = _check_missing_classes(undecoded, counts, present, lacking)
    undecoded = replace(undecoded, skipped=(*undecoded.skipped, *remarks))
    return undecoded if len(present) == len(undecoded.classes) else _renumbered(undecoded, present)


def _with_training_images(undecoded: UndecodedDataSet) -> UndecodedDataSet:
    """The data set without splits that have no images, which are noted.

    Raises:
        DataError: no images, or no training images.
    """
    filled = without_empty_splits(undecoded)
    if "train" not in filled.parts:
        raise DataError(
            f"{undecoded.where} has no training images; found {', '.join(filled.parts)}.", "Add a train split."
        )
    empty = tuple(f"skipped split {name!r}: no images" for name in undecoded.parts if name not in filled.parts)
    return replace(filled, skipped=(*filled.skipped, *empty))


def _check_missing_classes(
    undecoded: UndecodedDataSet,
    counts: Mapping[Split, npt.NDArray[np.int64]],
    present: Positions,
    lacking: list[tuple[str, str]] | None,
) -> list[str]:
    """Notes on the splits that lack some of the classes `present` in others.

    Raises:
        DataError: such a split must have all classes, and `lacking` is None.
    """
    missing = {name: [undecoded.classes[index] for index in present if not own[index]] for name, own in counts.items()}
    if lacking is not None:
        needed = (name for name in missing if name == "train" or undecoded.all_in_all)
        lacking += [(name, label) for name in needed for label in missing[name]]
        return []
    sentences = {name: f"{name} has no images of {listing(classes)}" for name, classes in missing.items() if classes}
    problems = [sentence for name, sentence in sentences.items() if name == "train" or undecoded.all_in_all]
    if problems:
        raise DataError(
            f"{undecoded.where}: {'; '.join(problems)}, which other splits have.",
            "Every split needs images of every class: add them, or remove the class from all splits. thirtytwo data "
            "doctor DATA --fix-plan FILE suggests which images to move or drop.",
        )
    return list(sentences.values())


def _renumbered(undecoded: UndecodedDataSet, present: Positions) -> UndecodedDataSet:
    """The data set with only the classes `present`, and the labels as indices into these."""
    absent = np.setdiff1d(np.arange(len(undecoded.classes)), present)
    remark = f"skipped classes without images in any split: {listing(undecoded.classes[i] for i in absent)}"
    index = np.zeros(len(undecoded.classes), dtype=np.int64)
    index[present] = np.arange(len(present))
    return replace(
        undecoded,
        classes=tuple(undecoded.classes[i] for i in present),
        parts={name: replace(part, labels=index[part.labels]) for name, part in undecoded.parts.items()},
        skipped=(*undecoded.skipped, remark),
    )


def check_divisible(undecoded: UndecodedDataSet) -> None:
    """Check before decoding that a test set can be split off afterwards.

    Raises:
        DataError: a class with a single image.
    """
    train = undecoded.parts["train"]
    blank = np.zeros((len(train.labels), 1, 1, 3), dtype=np.uint8)
    distinct = np.arange(len(train.labels), dtype=np.uint64)
    split_off(
        ImageSet(blank, train.labels, undecoded.classes, train.rows, hashes=distinct), TEST_FRACTION, 0, "testing"
    )
