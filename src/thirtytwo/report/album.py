"""The images that the report shows for a cell or a class: misclassified ones, and a sample of correct ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.report.gallery import PIXELATED_UP_TO, locate
from thirtytwo.report.sheets import QUALITIES, SAMPLE, Quality, choose_quality, columns_of, sprite
from thirtytwo.rundir import Predictions

BUDGET = 6_000_000
"""Maximum number of characters of the page for images."""
MAX_NAMES = 20_000
"""Maximum number of misclassified images listed by name where images are not available."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageAlbum:
    """Images by true class, for the script of the page.

    `data` is read by the script; `wrong` counts misclassified images, `shown` those of them that are included; `right`
    is the number of correct ones included per class; `note` describes lossy storage, `problem` says why there are no
    images; both are empty otherwise.
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

    If not all misclassified images fit, the most confident of each cell of the confusion matrix are kept. Correct ones
    are spaced evenly from the least to the most confident of their class.
    """
    predicted, classes = predictions.predicted, len(predictions.classes)
    wrong = _by_rank_in_cell(predictions, np.flatnonzero(predicted != predictions.truth))
    typical = np.linspace(0, len(predicted) - 1, min(SAMPLE, len(predicted))).astype(np.int64)
    places, problem = locate(predictions, images, np.arange(len(predicted)))
    quality, room = QUALITIES[0], MAX_NAMES
    if images is not None and places is not None:
        quality, room = choose_quality(images.images[places[typical]], len(wrong), classes, budget)
    right = _sample_correct(predictions, quality.right)
    kept = wrong[: max(0, room - len(right))]
    chosen = _by_class(predictions, np.concatenate([kept, right]))
    data = _describe(predictions, chosen, superclasses)
    if images is not None and places is not None:
        height, width = quality.fitted(*images.images.shape[1:3])
        data["height"], data["width"] = height, width
        data["pixelated"] = max(height, width) <= PIXELATED_UP_TO
        for entry, positions in zip(data["sprites"], chosen, strict=True):
            if len(positions):
                entry["columns"] = columns_of(len(positions))
                entry["source"] = sprite(images.images[places[positions]], quality)
    note = "" if images is None or problem else _note(quality, images.images.shape[1:3])
    return ImageAlbum(data, wrong=len(wrong), shown=len(kept), right=quality.right, note=note, problem=problem)


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
    right = np.flatnonzero(predictions.predicted == predictions.truth)
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
        "classes": list(predictions.classes),
        "groups": groups,
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
