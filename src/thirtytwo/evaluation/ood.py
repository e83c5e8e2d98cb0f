"""Is a picture unlike anything in training? Scores that say so, and how well they tell.

Every score is larger for pictures that look known. They are computed from what `model.onnx` gives, without PyTorch.
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
    """The largest probability (Hendrycks and Gimpel 2017, arXiv 1610.02136); logits `(N, C)` → `(N,)`."""
    scaled = _checked(logits, "logits") / temperature
    return np.asarray(1.0 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1))


def max_logit(logits: npt.ArrayLike) -> Floats:
    """The largest logit (Hendrycks et al. 2022, arXiv 1911.11132); logits `(N, C)` → `(N,)`."""
    return np.asarray(_checked(logits, "logits").max(axis=1))


def energy(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Negative free energy, T log Σ exp(logit / T) (Liu et al. 2020, arXiv 2010.03759); logits `(N, C)` → `(N,)`."""
    scaled = _checked(logits, "logits") / temperature
    top = scaled.max(axis=1)
    return np.asarray(temperature * (top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))))


def nearest(features: npt.ArrayLike, bank: npt.ArrayLike, k: int = 10) -> Floats:
    """Minus the distance to the k-th nearest training picture (Sun et al. 2022, arXiv 2204.06507).

    `features` `(N, D)` and those of training pictures, `bank` `(M, D)`, are brought to length 1 first; `(N,)`.

    Raises:
        DataError: features that are not finite or of another width, or fewer than k in the bank.
    """
    looked, known = (_unit(values) for values in (features, bank))
    if looked.shape[1] != known.shape[1]:
        raise DataError(f"The features are {looked.shape[1]} wide, and those of training {known.shape[1]}.")
    if not 1 <= k <= len(known):
        raise DataError(f"The nearest number {k} was asked for, and there are {len(known)} training pictures.")
    found = []
    for start in range(0, len(looked), _CHUNK):
        likeness = looked[start : start + _CHUNK] @ known.T  # (n, M); 2 - 2 likeness is the squared distance
        found.append(np.partition(likeness, len(known) - k, axis=1)[:, len(known) - k])
    likenesses = np.concatenate(found).astype(np.float64) if found else np.zeros(0)
    return np.asarray(-np.sqrt(np.maximum(2.0 - 2.0 * likenesses, 0.0)))


def class_means(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.float32]:
    """The mean direction of each class's features, float32 `(C, D)`, rows of length 1 (0 for a class without pictures).

    `features` `(N, D)` of training pictures are brought to length 1 first; `labels` int `(N,)`.

    Raises:
        DataError: features that are not finite, or labels that do not fit them.
    """
    directions, truth = _unit(features), np.asarray(labels)
    if truth.shape != (len(directions),) or (len(truth) and not 0 <= truth.min() <= truth.max() < classes):
        raise DataError(f"There must be {len(directions)} labels from 0 to {classes - 1}, one a row of features.")
    sums = np.zeros((classes, directions.shape[1]))
    np.add.at(sums, truth, directions)
    return _unit(sums)


def class_mean(features: npt.ArrayLike, means: npt.ArrayLike) -> Floats:
    """Cosine between a picture's features and the nearest class mean, -1..1; `(N, D)` and `(C, D)` → `(N,)`.

    After Techapanurak et al. 2019 (arXiv 1905.10628), with the classes' mean features for their trained weights.
    """
    return np.asarray((_unit(features) @ np.asarray(means, dtype=np.float32).T).max(axis=1), dtype=np.float64)


LOGIT_SCORES: dict[str, Callable[[npt.ArrayLike], Floats]] = {
    "max_softmax": max_softmax,
    "max_logit": max_logit,
    "energy": energy,
}
"""Scores that need no features."""


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """The chance that a known picture scores above an unknown one, ties counted half; 0.5 is guessing.

    Raises:
        DataError: no scores of one kind, or NaN.
    """
    above, below = _scores(known, "known"), np.sort(_scores(unknown, "unknown"))
    less, up_to = np.searchsorted(below, above, "left"), np.searchsorted(below, above, "right")
    return float((less + up_to).sum() / 2.0 / (len(above) * len(below)))


def fpr_at_tpr(known: npt.ArrayLike, unknown: npt.ArrayLike, tpr: float = 0.95) -> float:
    """The share of unknown pictures called known where at least `tpr` of the known ones are.

    Raises:
        DataError: as `auroc`.
    """
    kept, others = np.sort(_scores(known, "known"))[::-1], _scores(unknown, "unknown")
    place = int(np.ceil(round(tpr * len(kept), 9)))
    return float((others >= kept[max(place, 1) - 1]).mean())


def false_alarms(known: npt.ArrayLike, threshold: float) -> float:
    """The share of known pictures that score below the threshold, and so are called unknown."""
    return float((_scores(known, "known") < threshold).mean())


def threshold_at(known: npt.ArrayLike, share: float = 0.05) -> float:
    """The score below which `share` of the known pictures lie."""
    return float(np.quantile(_scores(known, "known"), share))


def measure_unknown(known: npt.ArrayLike, unknown: npt.ArrayLike, threshold: float) -> dict[str, Any]:
    """How well a score tells: AUROC, false positives at 95 % true positives, and unknown ones seen at a threshold."""
    return {
        "auroc": auroc(known, unknown),
        "fpr95": fpr_at_tpr(known, unknown),
        "called_unknown": false_alarms(unknown, threshold),
    }


def _scores(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or not len(checked):
        raise DataError(f"There must be scores of {what} pictures, one each; found the shape {checked.shape}.")
    if np.isnan(checked).any():
        raise DataError(f"{int(np.isnan(checked).sum())} of {len(checked)} scores of {what} pictures are NaN.")
    return checked


def _checked(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] < 1:
        raise DataError(f"The {what} must be rows by columns; found the shape {checked.shape}.")
    bad = ~np.isfinite(checked).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(checked)} rows of {what} hold NaN or infinity (first: row {int(bad.argmax())}).",
            "The training diverged; lower the learning rate.",
        )
    return checked


def _unit(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    checked = _checked(values, "features")
    lengths = np.linalg.norm(checked, axis=1, keepdims=True)
    return np.asarray(checked / np.maximum(lengths, 1e-12), dtype=np.float32)
