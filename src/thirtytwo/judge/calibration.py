"""Making confidence mean something: temperature, and the threshold below which a picture is called unknown."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require

TEMPERATURE_BOUNDS = (0.05, 20.0)


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities of `logits` `(N, C)` divided by `temperature`; rows sum to 1.

    Raises:
        DataError: logits that are not finite, or a temperature that is not above 0.
    """
    return np.asarray(np.exp(_log_softmax(_checked_logits(logits), temperature)))


def negative_log_likelihood(logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float = 1.0) -> float:
    """Mean of -log p(label) in nats, with `logits` `(N, C)` divided by `temperature`."""
    checked, truth = _checked(logits, labels)
    return float(-_log_softmax(checked, temperature)[np.arange(len(truth)), truth].mean())


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature with the least negative log likelihood on validation `logits` `(N, C)` (arXiv 1706.04599).

    Searched over log T within `TEMPERATURE_BOUNDS`. One imagined picture whose label is spread evenly over all classes
    is added (Platt's smoothed targets): without it, a network that gets every validation picture right would be
    sharpened without end.

    Raises:
        DataError: no rows, logits that are not finite, or labels that do not fit them.
    """
    checked, truth = _checked(logits, labels)
    count = len(truth)
    if checked.shape[1] < 2:
        raise DataError(f"A temperature needs at least 2 classes; found {checked.shape[1]}.")
    optimize = require("scipy.optimize", "train")
    # sum over rows of (1 - w) * (-log p_label) + w * mean over classes of (-log p), with w the imagined picture's part
    part = 1.0 / (count + 1.0)
    target = (1.0 - part) * checked[np.arange(count), truth] + part * checked.mean(axis=1)  # (N,)

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        scaled = checked * inverse  # (N, C)
        top = scaled.max(axis=1)
        log_total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((log_total - target * inverse).mean())

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def unknown_threshold(logits: npt.ArrayLike, labels: npt.ArrayLike, share: float = 0.05) -> float:
    """The largest raw logit below which a picture is called unknown: `share` of validation lies below it.

    Whether a row's answer was right does not matter here; `labels` are only checked to belong to `logits` `(N, C)`.

    Raises:
        DataError: as `fit_temperature`, or a share outside 0..1.
    """
    checked, _ = _checked(logits, labels)
    if not 0.0 <= share <= 1.0:
        raise DataError(f"The share of validation called unknown must lie between 0 and 1; found {share}.")
    return float(np.quantile(checked.max(axis=1), share))


def _log_softmax(logits: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"A temperature must be a number above 0; found {temperature}.")
    scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def _checked(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    checked = _checked_logits(logits)
    truth = np.asarray(labels)
    if truth.ndim != 1 or len(truth) != len(checked) or not np.issubdtype(truth.dtype, np.integer):
        raise DataError(
            f"Labels must be {len(checked)} whole numbers, one a row of logits; found {truth.dtype} {truth.shape}."
        )
    if not len(truth):
        raise DataError("There are no validation rows to calibrate on.", "Raise data.val_fraction in the recipe.")
    if truth.min() < 0 or truth.max() >= checked.shape[1]:
        raise DataError(f"Labels must lie between 0 and {checked.shape[1] - 1}; found {truth.min()} to {truth.max()}.")
    return checked, truth.astype(np.int64)


def _checked_logits(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    checked = np.asarray(logits, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] < 1:
        raise DataError(f"Logits must have the shape (N, C); found {checked.shape}.")
    bad = ~np.isfinite(checked).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(checked)} rows of logits hold NaN or infinity (first: row {int(bad.argmax())}).",
            "The training diverged; lower the learning rate.",
        )
    return checked
