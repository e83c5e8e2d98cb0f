"""Predict every label by a linear probe that was fitted without its image: ridge regression in closed form.

The sums over the images of a fold are computed once and left out in turn, so all folds and penalties together take a
few passes over the features, and 60,000 images seconds. Squares, unlike the logarithm of a logistic layer, leave a
wrong label among many right ones little influence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.features import Features
from thirtytwo.evaluation.calibration import fit_temperature, softmax
from thirtytwo.fewshot.cross_validation import assign_folds
from thirtytwo.rundir import Predictions

FOLDS = 5
LEAST = 5
"""Number of images below which a class says too little about its next one."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from, in units of the mean variance of a feature."""

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def normalized(features: Features) -> Features:
    """Features of length 1, float32 `(N, D)`."""
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))


def predict_held_out(features: Features, labels: Labels, classes: tuple[str, ...], seed: int = 0) -> Predictions:
    """Predictions of every image by a probe that was fitted on the other folds.

    The penalty is the one with the smallest log loss, at the temperature that fits it best.

    Args:
        features: float32 `(N, D)`.
        labels: int64 `(N,)`; every class occurs at least `FOLDS` times.
        classes: C class names.
        seed: seed of the folds.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    fold_of = assign_folds(labels, FOLDS, seed)
    best: tuple[float, Floats] | None = None
    for logits in _held_out_logits(normalized(features), labels, len(classes), fold_of):
        probabilities = softmax(logits, fit_temperature(logits, labels))
        loss = -float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())
        if best is None or loss < best[0]:
            best = loss, probabilities
    assert best is not None
    return Predictions(classes, labels, best[1].astype(np.float32), np.arange(len(labels), dtype=np.int64))


def _held_out_logits(features: Features, labels: Labels, classes: int, fold_of: Labels) -> list[Floats]:
    """Logits `(N, C)` for each penalty."""
    rows = np.concatenate([features - features.mean(axis=0), np.ones((len(features), 1), np.float32)], axis=1)
    targets = np.eye(classes, dtype=np.float32)[labels]
    members = [np.flatnonzero(fold_of == fold) for fold in range(FOLDS)]
    squares = np.stack([rows[chosen].T @ rows[chosen] for chosen in members]).astype(np.float64)  # (folds, D+1, D+1)
    products = np.stack([rows[chosen].T @ targets[chosen] for chosen in members]).astype(np.float64)
    found = [np.empty((len(labels), classes)) for _ in PENALTIES]
    for fold, chosen in enumerate(members):
        others, goal = squares.sum(axis=0) - squares[fold], products.sum(axis=0) - products[fold]
        unit = np.trace(others[:-1, :-1]) / (len(others) - 1)
        for logits, penalty in zip(found, PENALTIES, strict=True):
            strength = np.full(len(others), penalty * unit)
            strength[-1] = 1e-9 * len(labels)  # of the bias
            logits[chosen] = rows[chosen] @ np.linalg.solve(others + np.diag(strength), goal)
    return found
