"""Out-of-distribution (OOD) detection: scores, thresholds and metrics.

Every score is larger for known images. Scores are computed from the outputs of `model.onnx`, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError

Floats = npt.NDArray[np.float64]
_CHUNK = 1000


def max_softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Maximum softmax probability (Hendrycks and Gimpel 2017, arXiv 1610.02136); logits `(N, C)` → `(N,)`."""
    scaled = _validate(logits, "logits") / temperature
    return np.asarray(1.0 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1))


def max_logit(logits: npt.ArrayLike) -> Floats:
    """Maximum logit (Hendrycks et al. 2022, arXiv 1911.11132); logits `(N, C)` → `(N,)`."""
    return np.asarray(_validate(logits, "logits").max(axis=1))


def energy(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Negative free energy T log Σ exp(logit / T) (Liu et al. 2020, arXiv 2010.03759); logits `(N, C)` → `(N,)`."""
    scaled = _validate(logits, "logits") / temperature
    top = scaled.max(axis=1)
    return np.asarray(temperature * (top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))))


def nearest(features: npt.ArrayLike, bank: npt.ArrayLike, k: int = 10) -> Floats:
    """Negative distance to the k-th nearest training image (Sun et al. 2022, arXiv 2204.06507).

    Args:
        features: `(N, D)`; normalized to length 1 here, as is `bank`.
        bank: features of training images, `(M, D)`.
        k: which neighbor, 1 to M.

    Returns:
        Scores `(N,)`, -2 to 0.

    Raises:
        DataError: features are not finite or differ in width, or `bank` has fewer than k rows.
    """
    queries, known = (_normalize(values) for values in (features, bank))
    if queries.shape[1] != known.shape[1]:
        raise DataError(f"The features have {queries.shape[1]} columns, those of training images {known.shape[1]}.")
    if not 1 <= k <= len(known):
        raise DataError(f"k must be 1 to {len(known)}, the number of training images; found {k}.")
    found = []
    for start in range(0, len(queries), _CHUNK):
        similarity = queries[start : start + _CHUNK] @ known.T  # (n, M); 2 - 2 similarity is the squared distance
        found.append(np.partition(similarity, len(known) - k, axis=1)[:, len(known) - k])
    similarities = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    return np.asarray(-np.sqrt(np.maximum(2.0 - 2.0 * similarities, 0.0)))


def class_means(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.float32]:
    """Compute the mean direction of each class's features.

    Args:
        features: features of training images, `(N, D)`; normalized to length 1 here.
        labels: int `(N,)`, 0 to `classes` - 1.
        classes: number of classes, C.

    Returns:
        Float32 `(C, D)`, rows of length 1; 0 for a class without images.

    Raises:
        DataError: features are not finite, or labels do not match them.
    """
    directions, truth = _normalize(features), np.asarray(labels)
    if truth.shape != (len(directions),) or (len(truth) and not 0 <= truth.min() <= truth.max() < classes):
        raise DataError(f"Labels must be {len(directions)} integers from 0 to {classes - 1}, one per row of features.")
    sums = np.zeros((classes, directions.shape[1]))
    np.add.at(sums, truth, directions)
    return _normalize(sums)


def class_mean(features: npt.ArrayLike, means: npt.ArrayLike) -> Floats:
    """Cosine between each image's features and the nearest class mean, -1..1; `(N, D)` and `(C, D)` → `(N,)`.

    After Techapanurak et al. 2019 (arXiv 1905.10628), with class means instead of trained weights.
    """
    return np.asarray((_normalize(features) @ np.asarray(means, dtype=np.float32).T).max(axis=1), dtype=np.float64)


LOGIT_SCORES: dict[str, Callable[[npt.ArrayLike], Floats]] = {
    "max_softmax": max_softmax,
    "max_logit": max_logit,
    "energy": energy,
}
"""Scores computed from logits alone."""


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a known image scores above an unknown one; 0.5 is chance.

    Raises:
        DataError: there are no scores of one kind, or NaN.
    """
    above, below = _validate_scores(known, "known"), np.sort(_validate_scores(unknown, "unknown"))
    less, up_to = np.searchsorted(below, above, "left"), np.searchsorted(below, above, "right")
    return float((less + up_to).sum() / 2.0 / (len(above) * len(below)))


def fpr_at_tpr(known: npt.ArrayLike, unknown: npt.ArrayLike, tpr: float = 0.95) -> float:
    """False positive rate, the share of unknown images accepted as known, where at least `tpr` of known ones are.

    Raises:
        DataError: as for `auroc`.
    """
    kept, others = np.sort(_validate_scores(known, "known"))[::-1], _validate_scores(unknown, "unknown")
    rank = int(np.ceil(round(tpr * len(kept), 9)))
    return float((others >= kept[max(rank, 1) - 1]).mean())


def false_alarms(known: npt.ArrayLike, threshold: float) -> float:
    """Share of images that score below the threshold and are marked unknown; for known images, the false alarm rate."""
    return float((_validate_scores(known, "known") < threshold).mean())


def threshold_at(known: npt.ArrayLike, share: float = 0.05) -> float:
    """Threshold below which `share` of the known images score."""
    return float(np.quantile(_validate_scores(known, "known"), share))


def measure_unknown(known: npt.ArrayLike, unknown: npt.ArrayLike, threshold: float) -> dict[str, Any]:
    """Evaluate OOD detection: AUROC, FPR at 95 % TPR, and the share of unknown images below `threshold`."""
    return {
        "auroc": auroc(known, unknown),
        "fpr95": fpr_at_tpr(known, unknown),
        "called_unknown": false_alarms(unknown, threshold),
    }


def _validate_scores(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or not len(checked):
        raise DataError(f"Scores of {what} images must have the shape (N,), N at least 1; found {checked.shape}.")
    if np.isnan(checked).any():
        raise DataError(f"{int(np.isnan(checked).sum())} of {len(checked)} scores of {what} images are NaN.")
    return checked


def _validate(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] < 1:
        raise DataError(f"The {what} must have the shape (N, columns); found {checked.shape}.")
    bad = ~np.isfinite(checked).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(checked)} rows of {what} contain NaN or infinity "
            f"(first: row {int(bad.argmax())}).",
            "The training diverged; lower the learning rate.",
        )
    return checked


def _normalize(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    checked = _validate(values, "features")
    lengths = np.linalg.norm(checked, axis=1, keepdims=True)
    return np.asarray(checked / np.maximum(lengths, 1e-12), dtype=np.float32)
