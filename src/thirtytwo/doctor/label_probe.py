"""Predict every label by a linear probe that was fitted without its image: ridge regression in closed form.

The sums over the images of a fold are computed once and left out in turn, so all folds and penalties together take a
few passes over the features, and 60,000 images seconds. Squares, unlike the logarithm of a logistic layer, leave a
wrong label among many right ones little influence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.features import Features
from thirtytwo.fewshot.cross_validation import assign_folds
from thirtytwo.predictions import Predictions

FOLDS = 5
LEAST = 5
"""Number of images below which a class says too little about its next one."""
PENALTIES = (1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from, in units of the mean variance of a feature."""

_SMALLEST = 1e-4
"""Least estimate of a probability, before rows are scaled."""

Labels = npt.NDArray[np.int64]


def predict_held_out(
    features: Features,
    labels: Labels,
    classes: tuple[str, ...],
    seed: int = 0,
    fitted: npt.NDArray[np.bool_] | None = None,
) -> Predictions:
    """Predictions of every image by a probe that was fitted on the other folds.

    The penalty is the one with the smallest squared error in one fold. Ridge regression on indicators estimates
    probabilities as it is: what is below 0 is clipped, and rows are scaled to sum to 1. A softmax would rank worse.

    Args:
        features: float32 `(N, D)`.
        labels: int64 `(N,)`; every class occurs at least `FOLDS` times.
        classes: C class names.
        seed: seed of the folds.
        fitted: which images the probe is fitted on, bool `(N,)`; by default all. The others are predicted only.
    """
    fold_of = assign_folds(labels, FOLDS, seed)
    targets = np.eye(len(classes), dtype=np.float32)[labels]
    best = _held_out_estimates(features, targets, fold_of, np.ones(len(labels), bool) if fitted is None else fitted)
    clipped = np.maximum(best, _SMALLEST)
    probabilities = clipped / clipped.sum(axis=1, keepdims=True)
    return Predictions(classes, labels, probabilities.astype(np.float32), np.arange(len(labels), dtype=np.int64))


def _held_out_estimates(
    features: Features, targets: Features, fold_of: Labels, fitted: npt.NDArray[np.bool_]
) -> Features:
    """Estimates of the targets, float32 `(N, C)`, with the penalty that has the smallest squared error in fold 0.

    The error is that of the images that are fitted on in the other folds.
    """
    center = fitted.astype(np.float32) @ features / np.float32(fitted.sum())
    rows = np.concatenate([features - center, np.ones((len(features), 1), np.float32)], axis=1)
    members = [np.flatnonzero(fold_of == fold) for fold in range(FOLDS)]
    known = [chosen[fitted[chosen]] for chosen in members]
    squares = [rows[chosen].T @ rows[chosen] for chosen in known]  # (D + 1, D + 1) each
    products = [rows[chosen].T @ targets[chosen] for chosen in known]  # (D + 1, C) each
    all_squares, all_products = sum(squares[1:], squares[0]), sum(products[1:], products[0])

    def estimate(fold: int, penalty: float) -> Features:
        others = all_squares - squares[fold]
        strength = np.full(len(others), penalty * np.trace(others[:-1, :-1]) / (len(others) - 1), dtype=np.float32)
        strength[-1] = 0.0  # of the bias
        weights = np.linalg.solve(others + np.diag(strength), all_products - products[fold])
        return np.asarray(rows[members[fold]] @ weights, dtype=np.float32)

    first = {penalty: estimate(0, penalty) for penalty in PENALTIES}
    evaluated = fitted[members[0]]
    best = min(PENALTIES, key=lambda one: float(((first[one] - targets[members[0]])[evaluated] ** 2).mean()))
    found = np.empty_like(targets)
    for fold, chosen in enumerate(members):
        found[chosen] = first[best] if fold == 0 else estimate(fold, best)
    return found
