"""What the page shows behind a press on a cell or a class: every wrong picture, and a sample of the right ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.report.gallery import PIXELATED_UP_TO, locate
from thirtytwo.report.sheets import LADDER, SAMPLE, Quality, choose_quality, columns_of, sheet
from thirtytwo.rundir import Predictions

BUDGET = 6_000_000
"""Characters of the page that pictures may take."""
MOST_NAMES = 20_000
"""Wrong answers listed where there are no pictures."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Album:
    """Pictures by true class, ready for the page's script.

    `data` is what the script reads; `wrong` and `shown` count wrong answers and those among them that can be looked at;
    `note` says how the pictures are stored where that costs something; `problem` why there are none (else empty).
    """

    data: dict[str, Any]
    wrong: int
    shown: int
    right: int
    note: str
    problem: str


def make_album(
    predictions: Predictions,
    pictures: ImageSet | None,
    superclasses: Mapping[str, str] | None = None,
    budget: int = BUDGET,
) -> Album:
    """Choose pictures and how they are stored, so that they take `budget` characters at most.

    Where not all wrong ones fit, the most confident of each cell of the confusion matrix are kept. Right ones are
    spread evenly from the least to the most confident of their class.
    """
    predicted, classes = predictions.predicted, len(predictions.classes)
    wrong = _by_rank_in_cell(predictions, np.flatnonzero(predicted != predictions.truth))
    typical = np.linspace(0, len(predicted) - 1, min(SAMPLE, len(predicted))).astype(np.int64)
    places, problem = locate(predictions, pictures, np.arange(len(predicted)))
    quality, room = LADDER[0], MOST_NAMES
    if pictures is not None and places is not None:
        quality, room = choose_quality(pictures.images[places[typical]], len(wrong), classes, budget)
    right = _right(predictions, quality.right)
    kept = wrong[: max(0, room - len(right))]
    chosen = _by_class(predictions, np.concatenate([kept, right]))
    data = _listed(predictions, chosen, superclasses)
    if pictures is not None and places is not None:
        height, width = quality.fitted(*pictures.images.shape[1:3])
        data["height"], data["width"] = height, width
        data["pixelated"] = max(height, width) <= PIXELATED_UP_TO
        for entry, positions in zip(data["sheets"], chosen, strict=True):
            if len(positions):
                entry["columns"] = columns_of(len(positions))
                entry["source"] = sheet(pictures.images[places[positions]], quality)
    note = "" if pictures is None or problem else _note(quality, pictures.images.shape[1:3])
    return Album(data, wrong=len(wrong), shown=len(kept), right=quality.right, note=note, problem=problem)


def _by_rank_in_cell(predictions: Predictions, wrong: Ints) -> Ints:
    """Positions of wrong answers, the most confident of each cell first, then the second of each, and so on."""
    cells = predictions.truth[wrong] * len(predictions.classes) + predictions.predicted[wrong]
    order = np.lexsort((-predictions.confidence[wrong], cells))
    ordered = cells[order]
    first = np.searchsorted(ordered, ordered)  # where the cell of each begins
    rank = np.arange(len(ordered)) - first
    wrong = wrong[order]
    return wrong[np.lexsort((-predictions.confidence[wrong], rank))]


def _right(predictions: Predictions, most: int) -> Ints:
    """`most` right answers of each class, evenly from the least to the most confident."""
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


def _listed(predictions: Predictions, chosen: list[Ints], superclasses: Mapping[str, str] | None) -> dict[str, Any]:
    matrix = confusion_matrix(predictions)
    cells = np.argwhere(matrix > 0)
    groups = sorted(set(superclasses.values())) if superclasses else []
    return {
        "classes": list(predictions.classes),
        "groups": groups,
        "group_of": [groups.index(superclasses[name]) for name in predictions.classes] if superclasses else [],
        "cells": [[int(row), int(column), int(matrix[row, column])] for row, column in cells],
        "sheets": [{"pictures": [_entry(predictions, int(place)) for place in positions]} for positions in chosen],
    }


def _entry(predictions: Predictions, place: int) -> list[Any]:
    """Class given, confidence in it and in the truth in thousandths, and the file's name or the row."""
    shares, truth = predictions.probabilities[place], int(predictions.truth[place])
    given = int(shares.argmax())
    name = predictions.files[place] if predictions.files else int(predictions.rows[place])
    return [given, round(1000 * float(shares[given])), round(1000 * float(shares[truth])), name]


def _note(quality: Quality, size: tuple[int, ...]) -> str:
    """What storing the pictures cost, or nothing."""
    stored = quality.fitted(size[0], size[1])
    losses = []
    if stored != size:
        losses.append(f"reduced to {stored[1]} × {stored[0]} pixels")
    if quality.jpeg is not None:
        losses.append(f"stored as JPEG of quality {quality.jpeg}")
    return f"To keep this page small, pictures are {' and '.join(losses)}." if losses else ""
