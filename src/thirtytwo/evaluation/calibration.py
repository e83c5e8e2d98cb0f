"""Making confidence mean something: from a network's logits to probabilities that hold on validation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require

TEMPERATURE_BOUNDS = (0.05, 20.0)
CURVATURE_TEST = 6.635
"""Twice the gain in log likelihood that a curvature must bring to be kept: chi-squared at 1 %."""


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities: softmax((z - curvature · log_softmax(z)²) / temperature).

    Temperature scaling (arXiv 1706.04599) with one number more. Label smoothing teaches a network to leave every wrong
    class the same small probability, so that of two unlikely classes it never says how much less likely one is; no
    temperature brings that back. The square spreads what smoothing pressed together, and keeps the order of classes.
    """

    temperature: float = 1.0
    curvature: float = 0.0

    def logits(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The network's logits `(N, C)` bent by the curvature; what `model.onnx` gives as `logits`."""
        checked = _checked_logits(raw)
        return checked - self.curvature * _log_softmax(checked, 1.0) ** 2 if self.curvature else checked

    def probabilities(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probabilities `(N, C)` of the network's logits; rows sum to 1."""
        return softmax(self.logits(raw), self.temperature)


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
    if checked.shape[1] < 2:
        raise DataError(f"A temperature needs at least 2 classes; found {checked.shape[1]}.")
    optimize = require("scipy.optimize", "train")
    target = _towards(checked, truth)  # (N,)

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        scaled = checked * inverse  # (N, C)
        return float((_log_total(scaled) - target * inverse).mean())

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Temperature and curvature with the least negative log likelihood on validation `logits` `(N, C)`.

    The likelihood is concave in 1 / T and curvature / T, so there is one best pair. The curvature stays 0 where it does
    not raise the likelihood by more than chance would (`CURVATURE_TEST`). The imagined picture of `fit_temperature`
    is there as well.

    Raises:
        DataError: as `fit_temperature`.
    """
    checked, truth = _checked(logits, labels)
    temperature = fit_temperature(checked, truth)
    optimize = require("scipy.optimize", "train")
    logs = _log_softmax(checked, 1.0)
    squares = logs**2
    towards, towards_squares = _towards(checked, truth), _towards(squares, truth)

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        inverse, bend = values  # 1 / T and curvature / T
        scaled = checked * inverse - squares * bend  # (N, C)
        total = _log_total(scaled)
        shares = np.exp(scaled - total[:, None])
        slope = [(shares * checked).sum(axis=1) - towards, towards_squares - (shares * squares).sum(axis=1)]
        value = total - towards * inverse + towards_squares * bend
        return float(value.mean()), np.array([part.mean() for part in slope])

    straight = np.array([1.0 / temperature, 0.0])
    low, high = TEMPERATURE_BOUNDS
    bounds = [(1.0 / high, 1.0 / low), (0.0, None)]
    found = optimize.minimize(loss, straight, jac=True, bounds=bounds, method="L-BFGS-B")
    inverse, bend = (float(value) for value in found.x)
    gain = 2.0 * len(truth) * (loss(straight)[0] - float(found.fun))
    if not gain > CURVATURE_TEST or not math.isfinite(bend):
        return Calibration(temperature)
    return Calibration(1.0 / inverse, bend / inverse)


def _towards(values: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of each row `(N, C)` the label's value, mixed with the mean by the imagined picture's part."""
    count = len(truth)
    part = 1.0 / (count + 1.0)
    return np.asarray((1.0 - part) * values[np.arange(count), truth] + part * values.mean(axis=1))


def _log_total(scaled: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    top = scaled.max(axis=1)
    return np.asarray(top + np.log(np.exp(scaled - top[:, None]).sum(axis=1)))


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
