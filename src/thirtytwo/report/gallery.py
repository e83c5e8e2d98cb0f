"""Misclassified images, and the lookup of images by prediction."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.images.render import PIXELATED_SIDE, as_uri, data_uri, is_pixelated
from thirtytwo.predictions import Predictions
from thirtytwo.report.enlarged import Enlarged, Photographs, enlarge
from thirtytwo.text import as_printable, percent, readable, readable_names

MIN_COLUMNS = 16
SAMPLE = 64
HEADROOM = 1.05  # the sample only estimates the total size


@dataclass(frozen=True)
class Quality:
    """How images are stored: longest side in pixels, JPEG quality (None: lossless), correct images per class."""

    side: int
    jpeg: int | None
    right: int

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored image."""
        scale = min(1.0, self.side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


QUALITIES = (Quality(128, None, 12), Quality(128, 95, 12), Quality(64, 95, 12), Quality(64, 85, 6), Quality(48, 75, 3))
"""From best to smallest; the first that fits the budget is used."""


def choose_quality(sample: npt.NDArray[np.uint8], wrong: int, classes: int, budget: int) -> tuple[Quality, int]:
    """The best quality at which all images fit `budget` characters, and how many images fit at it.

    `sample`, uint8 `(S, H, W, 3)`, are typical images; `wrong` misclassified ones and some correct ones of each class
    have to fit.
    """
    room = 0
    for quality in QUALITIES:
        mean = len(sprite(sample, quality)) / len(sample)
        head = max(0.0, len(sprite(sample[:1], quality)) - mean)  # of the sprite of each class
        room = max(0, int((budget - classes * head) / (HEADROOM * mean)))
        if wrong + classes * quality.right <= room:
            return quality, room
    return QUALITIES[-1], room


def columns_of(count: int) -> int:
    """Number of images in a row of a sprite, which is about square because formats limit the longest side."""
    return min(count, max(MIN_COLUMNS, math.isqrt(max(0, count - 1)) + 1))


def sprite(images: npt.NDArray[np.uint8], quality: Quality) -> str:
    """Images, uint8 `(N, H, W, 3)`, in rows of `columns_of(N)` as a data URI, without chroma subsampling."""
    count, height, width = images.shape[:3]
    size = quality.fitted(height, width)
    if size != (height, width):
        images = _resize(images, size)
    columns = columns_of(count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, *size, 3), dtype=np.uint8)
    grid[:count] = images
    joined = grid.reshape(rows, columns, *size, 3).swapaxes(1, 2).reshape(rows * size[0], columns * size[1], 3)
    buffer = io.BytesIO()
    image = Image.fromarray(joined)
    if quality.jpeg is not None:
        image.save(buffer, kind := "JPEG", quality=quality.jpeg, subsampling=0)
    elif features.check("webp"):
        image.save(buffer, kind := "WEBP", lossless=True, quality=50, method=2)
    else:
        image.save(buffer, kind := "PNG")
    return as_uri(buffer.getvalue(), kind.lower())


def _resize(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    small: Sequence[npt.NDArray[np.uint8]] = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BOX))
        for image in images
    ]
    return np.stack(small)


BUDGET = 6_000_000
"""Maximum number of characters of the page for images."""
MAX_NAMES = 20_000
"""Maximum number of misclassified images listed by name where images are not available."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageAlbum:
    """Images by true class, for the script of the page.

    `data` is read by the script; `wrong` counts misclassified images, `shown` those of them that are included; `right`
    is the largest number of correct ones included per class; `note` describes lossy storage, `problem` says why there
    are no images; both are empty otherwise.
    """

    data: dict[str, Any]
    wrong: int
    shown: int
    right: int
    note: str
    problem: str


def make_album(
    predictions: Predictions,
    images: ImageSet | None,
    superclasses: Mapping[str, str] | None = None,
    budget: int = BUDGET,
) -> ImageAlbum:
    """Choose images and their quality so that they take at most `budget` characters.

    If not all misclassified images fit, the most confident of each cell of the confusion matrix are kept, and correct
    ones take at most half of the room. Those are spaced evenly from the least to the most confident of their class.
    """
    predicted, classes = predictions.predicted, len(predictions.classes)
    wrong = _by_rank_in_cell(predictions, np.flatnonzero(~predictions.correct))
    typical = np.linspace(0, len(predicted) - 1, min(SAMPLE, len(predicted))).astype(np.int64)
    places, problem = locate(predictions, images, np.arange(len(predicted)))
    quality, room = QUALITIES[0], MAX_NAMES
    if images is not None and places is not None:
        quality, room = choose_quality(images.images[places[typical]], len(wrong), classes, budget)
    each = min(quality.right, max(room - len(wrong), room // 2) // classes)
    right = _sample_correct(predictions, each)
    kept = wrong[: max(0, room - len(right))]
    chosen = _by_class(predictions, np.concatenate([kept, right]))
    data = _describe(predictions, chosen, superclasses)
    if images is not None and places is not None:
        height, width = quality.fitted(*images.images.shape[1:3])
        data["height"], data["width"] = height, width
        data["pixelated"] = max(height, width) <= PIXELATED_SIDE
        for entry, positions in zip(data["sprites"], chosen, strict=True):
            if len(positions):
                entry["columns"] = columns_of(len(positions))
                entry["source"] = sprite(images.images[places[positions]], quality)
    note = "" if images is None or problem else _note(quality, images.images.shape[1:3])
    return ImageAlbum(data, wrong=len(wrong), shown=len(kept), right=each, note=note, problem=problem)


def _by_rank_in_cell(predictions: Predictions, wrong: Ints) -> Ints:
    """Positions of misclassified images: the most confident of each cell, then the second of each, and so on."""
    cells = predictions.truth[wrong] * len(predictions.classes) + predictions.predicted[wrong]
    order = np.lexsort((-predictions.confidence[wrong], cells))
    ordered = cells[order]
    first = np.searchsorted(ordered, ordered)  # start of the cell of each
    rank = np.arange(len(ordered)) - first
    wrong = wrong[order]
    return wrong[np.lexsort((-predictions.confidence[wrong], rank))]


def _sample_correct(predictions: Predictions, most: int) -> Ints:
    """`most` correct predictions of each class, evenly from the least to the most confident."""
    right = np.flatnonzero(predictions.correct)
    right = right[np.argsort(predictions.confidence[right], kind="stable")]
    chosen = [np.zeros(0, dtype=np.int64)]
    for index in range(len(predictions.classes)):
        members = right[predictions.truth[right] == index]
        chosen.append(members[np.linspace(0, len(members) - 1, min(most, len(members))).astype(np.int64)])
    return np.concatenate(chosen)


def _by_class(predictions: Predictions, positions: Ints) -> list[Ints]:
    """The positions of each true class, most confident first."""
    ordered = positions[np.argsort(-predictions.confidence[positions], kind="stable")]
    return [ordered[predictions.truth[ordered] == index] for index in range(len(predictions.classes))]


def _describe(predictions: Predictions, chosen: list[Ints], superclasses: Mapping[str, str] | None) -> dict[str, Any]:
    matrix = confusion_matrix(predictions)
    cells = np.argwhere(matrix > 0)
    groups = sorted(set(superclasses.values())) if superclasses else []
    return {
        "classes": list(map(as_printable, readable_names(predictions.classes))),
        "groups": list(map(as_printable, readable_names(groups))),
        "group_of": [groups.index(superclasses[name]) for name in predictions.classes] if superclasses else [],
        "cells": [[int(row), int(column), int(matrix[row, column])] for row, column in cells],
        "sprites": [{"images": [_entry(predictions, int(place)) for place in positions]} for positions in chosen],
    }


def _entry(predictions: Predictions, place: int) -> list[Any]:
    """Predicted class, confidence in it and in the true class in thousandths, and file name or row."""
    shares, truth = predictions.probabilities[place], int(predictions.truth[place])
    predicted = int(shares.argmax())
    name = predictions.files[place] if predictions.files else int(predictions.rows[place])
    return [predicted, round(1000 * float(shares[predicted])), round(1000 * float(shares[truth])), name]


def _note(quality: Quality, size: tuple[int, ...]) -> str:
    """How images were reduced to save space; empty where they were not."""
    stored = quality.fitted(size[0], size[1])
    losses = []
    if stored != size:
        losses.append(f"reduced to {stored[1]} × {stored[0]} pixels")
    if quality.jpeg is not None:
        losses.append(f"stored as JPEG of quality {quality.jpeg}")
    return f"To keep this page small, images are {' and '.join(losses)}." if losses else ""


HOW_TO_GET_IMAGES = "To include them, run where the data is: thirtytwo report RUN (with THIRTYTWO_DATA or --data-root)."


@dataclass(frozen=True)
class Misclassified:
    """A misclassified image; `source` is a data URI, or None where the image is not available."""

    true: str
    predicted: str
    confidence: float
    confidence_in_truth: float
    name: str
    source: str | None
    pixelated: bool
    large: Enlarged | None = None
    """A larger copy; None where there is none."""


def worst_errors(predictions: Predictions, most: int) -> Ints:
    """Positions of the misclassified images with the highest confidence, int64 `(<= most,)`."""
    wrong = np.flatnonzero(~predictions.correct)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]


def most_confident_errors(
    predictions: Predictions, images: ImageSet | None, most: int = 24, photographs: Photographs | None = None
) -> tuple[list[Misclassified], str]:
    """The misclassified images with the highest confidence, and why images are missing (empty if they are not).

    With `photographs` they have larger copies.
    """
    worst = worst_errors(predictions, most)
    places, problem = locate(predictions, images, worst)
    large: list[Enlarged | None] = [None] * len(worst)
    if images is not None and places is not None and photographs is not None:
        large = enlarge(images, places.tolist(), photographs)
    errors = []
    for number, position in enumerate(worst.tolist()):
        truth, predicted = int(predictions.truth[position]), int(predictions.probabilities[position].argmax())
        image = None if images is None or places is None else images.images[places[number]]
        errors.append(
            Misclassified(
                true=readable(predictions.classes[truth]),
                predicted=readable(predictions.classes[predicted]),
                confidence=float(predictions.probabilities[position, predicted]),
                confidence_in_truth=float(predictions.probabilities[position, truth]),
                name=predictions.name_of(position),
                source=None if image is None else data_uri(image),
                pixelated=image is not None and is_pixelated(image),
                large=large[number],
            )
        )
    return errors, problem


def locate(
    predictions: Predictions, images: ImageSet | None, wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Indices into `images` of the wanted predictions, int64; or None and the reason as a sentence."""
    if images is None:
        return None, f"This page was written without images. {HOW_TO_GET_IMAGES}"
    order = np.argsort(images.rows, kind="stable")
    slots = np.searchsorted(images.rows, predictions.rows[wanted], sorter=order)
    places = np.append(order, -1)[slots]
    if (places < 0).any() or (images.rows[places] != predictions.rows[wanted]).any():
        return None, f"The available data lacks some of the evaluated images. {HOW_TO_GET_IMAGES}"
    index = {name: number for number, name in enumerate(predictions.classes)}
    known = np.array([index.get(name, -1) for name in images.classes], dtype=np.int64)
    if (known[images.labels[places]] != predictions.truth[wanted]).any():
        return None, f"The available data differs from the evaluated data: labels differ. {HOW_TO_GET_IMAGES}"
    return np.asarray(places, dtype=np.int64), ""


ROWS, PASSES = 6, 7
"""Number of training images shown, and of augmented versions of each."""
SIDE = 64
MAX_MIXED_CLASSES = 2


class Augmented(Protocol):
    """Images before and after augmentation, as `thirtytwo.training.batches.augment_samples` returns them.

    `originals` uint8 `(R, H, W, 3)`; `augmented` uint8 `(R, K, H, W, 3)`; `targets` float `(R, K, C)`, rows sum to 1;
    `labels` int64 `(R,)`.
    """

    @property
    def originals(self) -> npt.NDArray[np.uint8]: ...

    @property
    def augmented(self) -> npt.NDArray[np.uint8]: ...

    @property
    def targets(self) -> npt.NDArray[np.float32]: ...

    @property
    def labels(self) -> npt.NDArray[np.int64]: ...


def augmented_rows(samples: Augmented, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each training image: class, original, and augmented versions with their mixed targets."""
    return [
        {
            "class": readable(classes[int(label)]),
            "source": data_uri(samples.originals[row], SIDE),
            "pixelated": is_pixelated(samples.originals[row]),
            "augmented": [
                {"source": data_uri(image, SIDE), "mixed": _mixed(target, classes)}
                for image, target in zip(samples.augmented[row], samples.targets[row], strict=True)
            ],
        }
        for row, label in enumerate(samples.labels)
    ]


def _mixed(target: npt.NDArray[np.float32], classes: tuple[str, ...]) -> str:
    """The classes of a mixed target, largest share first; empty for a single class."""
    if float(target.max()) >= 1.0:
        return ""
    most = (-target).argsort(kind="stable")[:MAX_MIXED_CLASSES]
    return ", ".join(
        f"{percent(float(target[place]), 0)} {readable(classes[place])}" for place in most if target[place] > 0
    )
