"""T502: images that are far from every class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.features import Features, normalized
from thirtytwo.doctor.subject import Subject

DEVIATIONS = 4.5
"""Robust standard deviations beyond the median distance from which an image is an outlier."""
LEAST = 30
"""Number of images below which there is no telling what is usual."""


@CHECKS.register("T502")
class Outliers(Check):
    """Images whose features are far from the mean of every class."""

    code = "T502"
    title = "outliers"
    severity = "note"
    why = (
        "An image that resembles no class may show nothing of the data: a placeholder, a screenshot, another subject. "
        "The features of a bundled model are compared with the mean of each class."
    )
    fix = "Look at them, and remove those that do not belong to the data."
    costly = True

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Every image is compared with the mean features of the classes."""
        if len(subject.places) < LEAST:
            return
        deviations = robust_deviations(subject.features, subject.labels)
        order = np.argsort(-deviations, kind="stable")
        rows = order[deviations[order] > DEVIATIONS]
        if not len(rows):
            return
        groups = [(subject.places[row],) for row in rows]
        are, every = "is" if len(groups) == 1 else "are", len(subject.places)
        yield self.finding(
            f"{len(groups):,} of {every:,} images {are} far from every class: {subject.examples(groups)}.",
            groups,
            notes=[f"{deviations[row]:.1f} deviations from what is usual" for row in rows],
        )


def robust_deviations(features: Features, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How far each image is from the nearest class mean, in robust standard deviations above the median, `(N,)`.

    The distance is Euclidean, of features of length 1. It is compared with the distances of all images on the side of
    large ones: their distribution has a longer tail there than towards the mean.
    """
    directions = normalized(features)
    nearest = np.full(len(labels), np.inf)
    for index in np.unique(labels):
        mean = directions[labels == index].mean(axis=0)
        nearest = np.minimum(nearest, np.linalg.norm(directions - mean, axis=1))
    middle, upper = np.quantile(nearest, [0.5, 0.8413])
    return np.asarray((nearest - middle) / max(float(upper - middle), 1e-9))
