"""Measure what a few features tell about the label: a cross-validated linear probe, one class against the rest.

The probe is least-squares regression of all one-hot labels at once on the features and their squares, which takes
seconds for 60,000 images and 100 classes. Scores of images are predicted by a probe that did not see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FOLDS = 5
LEAST_IMAGES = 10
"""Classes with fewer images are not probed."""
SIGNIFICANCE = 1e-3
"""Probability of any finding in data without a relation of features and labels (Bonferroni over the classes)."""
PRECISION = 0.95
"""Precision at which recall is measured."""
_CLIP = 6.0
_RIDGE = 1e-3
_COMMON = 12
"""Categories that get an indicator each."""


@dataclass(frozen=True, eq=False)
class Separation:
    """How well features tell one class from the rest.

    Attributes:
        label: index of the class.
        auroc: probability that an image of the class has a higher score than one of another class; 0.5 is chance.
        recall: share of the class that is found at a precision of at least `PRECISION`; 0 where that is not reached.
        deviation: distance of `auroc` from 0.5, in standard deviations under chance.
        order: positions of the class's images, int64, highest score first.
    """

    label: int
    auroc: float
    recall: float
    deviation: float
    order: Ints


def one_against_rest(features: npt.ArrayLike, labels: Ints, classes: int, seed: int = 0) -> list[Separation]:
    """Probe every class with at least `LEAST_IMAGES` images inside and outside of it.

    Args:
        features: `(N, D)`; NaN where unknown.
        labels: int64 `(N,)`.
        classes: number of classes.
        seed: seed of the folds.
    """
    counts = np.bincount(labels, minlength=classes)
    usable = np.flatnonzero((counts >= LEAST_IMAGES) & (len(labels) - counts >= LEAST_IMAGES))
    if not len(usable):
        return []
    targets = np.eye(classes)[labels]
    scores = cross_validated(np.asarray(features, dtype=np.float64), targets, folds_of(labels, seed))
    return [_separation(scores[:, label], labels == label, int(label)) for label in usable]


def threshold(tests: int) -> float:
    """Standard deviations above chance that only a share `SIGNIFICANCE` of random data exceeds in any of the tests."""
    return NormalDist().inv_cdf(1 - SIGNIFICANCE / max(1, tests))


def folds_of(labels: Ints, seed: int = 0) -> Ints:
    """A fold of each image, int64 `(N,)`, stratified by label."""
    folds = np.zeros(len(labels), dtype=np.int64)
    random = np.random.default_rng(seed)
    start = 0
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        folds[members] = (np.arange(len(members)) + start) % FOLDS
        start += len(members)
    return folds


def cross_validated(features: Floats, targets: Floats, folds: Ints) -> Floats:
    """Scores `(N, C)` for targets `(N, C)`, each by a ridge regression on the other folds."""
    design = expanded(features)
    scores = np.zeros(targets.shape)
    weighted = [(design[folds == fold], targets[folds == fold]) for fold in range(FOLDS)]
    grams = [rows.T @ rows for rows, _ in weighted]
    moments = [rows.T @ wanted for rows, wanted in weighted]
    gram, moment = sum(grams), sum(moments)
    for fold in range(FOLDS):
        rest = len(design) - len(weighted[fold][0])
        penalty = _RIDGE * rest * np.eye(design.shape[1])
        solution = np.linalg.solve(gram - grams[fold] + penalty, moment - moments[fold])
        scores[folds == fold] = weighted[fold][0] @ solution
    return scores


def expanded(features: Floats) -> Floats:
    """Standardized features, their squares and a constant, `(N, 2 D + 1)`; unknown values become the mean."""
    known = np.isfinite(features)
    filled = np.where(known, features, 0.0)
    count = np.maximum(known.sum(axis=0), 1)
    mean = filled.sum(axis=0) / count
    centered = np.where(known, features - mean, 0.0)
    scale = np.sqrt((centered**2).sum(axis=0) / count)
    standard = np.clip(centered / np.where(scale > 1e-9, scale, 1.0), -_CLIP, _CLIP)
    return np.concatenate([standard, standard**2, np.ones((len(features), 1))], axis=1)


def indicators(values: Sequence[object]) -> Floats:
    """A column of zeros and ones for each of the most common values, `(N, at most _COMMON)`."""
    kinds: dict[object, int] = {}
    index = np.array([kinds.setdefault(value, len(kinds)) for value in values], dtype=np.int64)
    common = np.argsort(-np.bincount(index, minlength=len(kinds)), kind="stable")[:_COMMON]
    return np.asarray(index[:, None] == common[None, :], dtype=np.float64)


def auroc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Probability that a positive has a higher score than a negative; ties count half."""
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]  # mean rank of equal scores, from 1
    inside = int(positive.sum())
    outside = len(scores) - inside
    return float((ranks[positive].sum() - inside * (inside + 1) / 2) / (inside * outside))


def chance_error(inside: int, outside: int) -> float:
    """Standard deviation of the AUROC where scores do not depend on the label (Mann and Whitney 1947)."""
    return math.sqrt((inside + outside + 1) / (12 * inside * outside))


def _separation(scores: Floats, positive: npt.NDArray[np.bool_], label: int) -> Separation:
    inside = int(positive.sum())
    value = auroc(scores, positive)
    members = np.flatnonzero(positive)
    return Separation(
        label,
        value,
        _recall(scores, positive),
        (value - 0.5) / chance_error(inside, len(scores) - inside),
        members[np.argsort(-scores[members], kind="stable")],
    )


def _recall(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Largest recall at a precision of at least `PRECISION`, over all thresholds between different scores."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.diff(scores[order]) < 0, True)  # the last of equal scores
    precise = last & (hits >= PRECISION * np.arange(1, len(scores) + 1))
    return float(hits[precise].max() / hits[-1]) if precise.any() else 0.0
