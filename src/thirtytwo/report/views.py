"""What the charts of a run show, computed once for the report (SVG) and the image files (Matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import Reliability, wilson
from thirtytwo.text import readable, readable_names

CURVES = (("accuracy", "Accuracy"), ("loss", "Loss"))
"""Metrics of the history and their titles."""


@dataclass(frozen=True, eq=False)
class MatrixView:
    """A confusion matrix, ordered by superclass where there are any.

    `names` are the C classes in order, as people read them; `groups` their superclasses, empty where there are none;
    `counts` int64 `(C, C)`, rows are true classes; `shares` float64 `(C, C)`, rows sum to 1.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, matrix: npt.NDArray[np.int64], classes: Sequence[str], superclasses: Mapping[str, str] | None = None
    ) -> MatrixView:
        """The view of a matrix `(C, C)` in the order of `classes`."""
        groups = [readable(superclasses[name]) for name in classes] if superclasses else []
        shown = readable_names(classes)
        order = list(range(len(classes)))
        if groups:
            order.sort(key=lambda index: (groups[index], index))
        counts = matrix[np.ix_(order, order)]
        return cls(
            names=tuple(shown[index] for index in order),
            groups=tuple(groups[index] for index in order) if groups else (),
            counts=counts,
            shares=counts / np.maximum(counts.sum(axis=1, keepdims=True), 1),
        )

    @property
    def spans(self) -> list[tuple[str, int, int]]:
        """Neighbors of one superclass, or each class where there are none: (name, first position, length)."""
        spans: list[tuple[str, int, int]] = []
        for position, label in enumerate(self.groups):
            if spans and spans[-1][0] == label:
                spans[-1] = (label, spans[-1][1], spans[-1][2] + 1)
            else:
                spans.append((label, position, 1))
        return spans or [(name, position, 1) for position, name in enumerate(self.names)]


def readable_on(color: tuple[float, ...]) -> str:
    """Black or white, whichever has more contrast (WCAG 2.2) on an sRGB color with channels from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def history_series(history: Sequence[Mapping[str, float]], column: str) -> list[tuple[float, float]]:
    """A column of the history as points (epoch, value); epochs without it, or where it is not finite, are left out."""
    return [
        (row.get("epoch", number), row[column])
        for number, row in enumerate(history, 1)
        if column in row and math.isfinite(row[column])
    ]


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of confidence with images: its edges, mean confidence, accuracy with Wilson's interval, and count."""

    low: float
    high: float
    confidence: float
    accuracy: float
    interval: tuple[float, float]
    count: int


def reliability_bins(found: Reliability) -> list[ReliabilityBin]:
    """The bins of a reliability diagram that contain images."""
    bins = []
    for number, count in enumerate(found.counts.tolist()):
        if count:
            accuracy = float(found.accuracy[number])
            low, high, confidence = (float(value[number]) for value in (found.edges, found.edges[1:], found.confidence))
            bins.append(ReliabilityBin(low, high, confidence, accuracy, wilson(round(accuracy * count), count), count))
    return bins
