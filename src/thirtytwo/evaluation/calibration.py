"""Calibrate a network's probabilities on validation data: temperature scaling with an optional curvature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.evaluation.checks import DIVERGED, check_finite, check_labels
from thirtytwo.evaluation.evaluators import Context, Evaluator, Results, register
from thirtytwo.evaluation.metrics import Reliability, confidence_metrics, reliability, wilson
from thirtytwo.evaluation.sections import Cell, Chart, Section, Table
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.predictions import Predictions
from thirtytwo.text import counted, interval, percent

LEAST_IMAGES = 20
"""Least number of validation images on which the temperature and the threshold for unknown images are set.

A threshold with 5 % of the images below it needs 20, so that one is below it. Of fewer images a few decide the
temperature as well: without an error among them, it only makes the network more confident.
"""
TEMPERATURE_BOUNDS = (0.05, 20.0)
CURVATURE_TEST = 6.635
"""Least value of the likelihood ratio statistic for which the curvature is kept: chi-squared, 1 degree, 1 %."""


@dataclass(frozen=True)
class Calibration:
    """A map from logits to probabilities: softmax((z - curvature · log_softmax(z)²) / temperature).

    Temperature scaling (arXiv 1706.04599) with one more parameter. A network trained with label smoothing gives all
    unlikely classes nearly the same probability, which no temperature corrects. The squared term spreads these
    probabilities and keeps the order of the classes.
    """

    temperature: float = 1.0
    curvature: float = 0.0

    def logits(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Logits `(N, C)` of the network minus the curvature term; the output `logits` of `model.onnx`."""
        checked = _validate_logits(raw)
        return checked - self.curvature * log_softmax(checked, 1.0) ** 2 if self.curvature else checked

    def probabilities(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrated probabilities `(N, C)` of the network's logits; rows sum to 1."""
        return softmax(self.logits(raw), self.temperature)


def calibration_of(info: ModelInfo) -> Calibration:
    """The calibration that turns this model's logits into probabilities."""
    return Calibration(info.temperature, info.curvature)


def is_calibrated(info: ModelInfo) -> bool:
    """Whether the temperature, the curvature or the threshold for unknown images was set on validation images."""
    return info.temperature != 1.0 or info.curvature != 0.0 or info.unknown_threshold is not None


def uncalibrated(count: int) -> str:
    """A sentence, without its full stop, on a model with `count` validation images, too few to calibrate it."""
    found = f"{counted(count, 'validation image')}, and both need at least {LEAST_IMAGES}"
    return f"the probabilities are not calibrated and no image is marked unknown: {found}"


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Softmax of `logits` `(N, C)` divided by `temperature`; rows sum to 1.

    Raises:
        DataError: logits are not finite, or the temperature is not above 0.
    """
    return np.asarray(np.exp(log_softmax(_validate_logits(logits), temperature)))


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Fit the temperature that minimizes the negative log likelihood on validation data (arXiv 1706.04599).

    The search runs over log T within `TEMPERATURE_BOUNDS`. One pseudo-sample with uniform label probabilities is added
    (after Platt's smoothed targets): without it, the temperature of a network that predicts every validation image
    correctly would approach 0.

    Args:
        logits: float `(N, C)`, at least 2 classes.
        labels: int `(N,)`.

    Raises:
        DataError: there are no samples, logits are not finite, or labels do not match them.
    """
    checked, truth = _validate(logits, labels)
    if checked.shape[1] < 2:
        raise DataError(f"Fitting a temperature needs at least 2 classes; found {checked.shape[1]}.")
    optimize = require("scipy.optimize", "train")
    target = _smoothed_target_values(checked, truth)  # (N,)

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        scaled = checked * inverse  # (N, C)
        return float((log_sum_exp(scaled) - target * inverse).mean())

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Fit the temperature and curvature that minimize the negative log likelihood on validation data.

    The problem is convex in 1 / T and curvature / T, so the optimum is unique. The curvature is 0 unless the gain in
    likelihood is significant (`CURVATURE_TEST`). Uses the pseudo-sample of `fit_temperature`.

    Args:
        logits: float `(N, C)`, at least 2 classes.
        labels: int `(N,)`.

    Raises:
        DataError: as for `fit_temperature`.
    """
    checked, truth = _validate(logits, labels)
    temperature = fit_temperature(checked, truth)
    optimize = require("scipy.optimize", "train")
    logs = log_softmax(checked, 1.0)
    squares = logs**2
    target_values, target_squares = _smoothed_target_values(checked, truth), _smoothed_target_values(squares, truth)

    def loss(values: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        inverse, scaled_curvature = values  # 1 / T and curvature / T
        scaled = checked * inverse - squares * scaled_curvature  # (N, C)
        total = log_sum_exp(scaled)
        softmaxed = np.exp(scaled - total[:, None])
        slope = [(softmaxed * checked).sum(axis=1) - target_values, target_squares - (softmaxed * squares).sum(axis=1)]
        value = total - target_values * inverse + target_squares * scaled_curvature
        return float(value.mean()), np.array([values.mean() for values in slope])

    start = np.array([1.0 / temperature, 0.0])
    low, high = TEMPERATURE_BOUNDS
    bounds = [(1.0 / high, 1.0 / low), (0.0, None)]
    found = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    inverse, scaled_curvature = (float(value) for value in found.x)
    gain = 2.0 * len(truth) * (loss(start)[0] - float(found.fun))
    if not gain > CURVATURE_TEST or not math.isfinite(scaled_curvature):
        return Calibration(temperature)
    return Calibration(1.0 / inverse, scaled_curvature / inverse)


def _smoothed_target_values(values: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The label's value per row of `values` `(N, C)`, mixed with the row mean by the pseudo-sample's weight, `(N,)`."""
    count = len(truth)
    weight = 1.0 / (count + 1.0)
    return np.asarray((1.0 - weight) * values[np.arange(count), truth] + weight * values.mean(axis=1))


def log_sum_exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithm of the sum of exponentials of each row `(N, C)`, `(N,)`, without overflow."""
    top = values.max(axis=1)
    return np.asarray(top + np.log(np.exp(values - top[:, None]).sum(axis=1)))


def log_softmax(logits: npt.NDArray[np.float64], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Logarithm of the softmax of `logits` `(N, C)` divided by `temperature`.

    Raises:
        DataError: the temperature is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise DataError(f"A temperature must be a number above 0; found {temperature}.")
    scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def _validate(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    checked = _validate_logits(logits)
    truth = np.asarray(labels)
    if truth.ndim != 1 or len(truth) != len(checked) or not np.issubdtype(truth.dtype, np.integer):
        raise DataError(
            f"Labels must be {len(checked)} integers, one per row of logits; found {truth.dtype} {truth.shape}."
        )
    if not len(truth):
        raise DataError("There are no validation images to calibrate on.", "Raise data.val_fraction in the recipe.")
    check_labels(truth, checked.shape[1], "Labels")
    return checked, truth.astype(np.int64)


def _validate_logits(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    checked = np.asarray(logits, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] < 1:
        raise DataError(f"Logits must have the shape (N, C); found {checked.shape}.")
    check_finite(checked, "logits", DIVERGED)
    return checked


def calibration_record(
    after: Predictions,
    logits: npt.NDArray[np.float32],
    calibration: Calibration,
    *,
    temperature_only: float | None,
    fitted_on: int,
) -> dict[str, Any]:
    """Build the entry `calibration` of `metrics.json`.

    Args:
        after: predictions with calibrated probabilities.
        logits: the network's uncalibrated logits of the same images, float `(N, C)`.
        calibration: the calibration that was applied.
        temperature_only: the temperature fitted without a curvature, for comparison; None: leave it out.
        fitted_on: number of validation images the calibration was fitted on; 0: by another run, or not at all.
    """
    before = _replace_probabilities(after, softmax(logits))
    record: dict[str, Any] = {
        "temperature": calibration.temperature,
        "curvature": calibration.curvature,
        "fitted_on": fitted_on,
        "before": {**confidence_metrics(before), "bins": _bins(reliability(before))},
    }
    if temperature_only is not None:
        scaled = _replace_probabilities(after, softmax(logits, temperature_only))
        record["temperature_only"] = {"temperature": temperature_only, **confidence_metrics(scaled)}
    return record | {"after": confidence_metrics(after)}


def was_not_calibrated(record: Mapping[str, Any]) -> bool:
    """Whether the entry `calibration` of `metrics.json` is of a model without calibration."""
    temperature, curvature = record.get("temperature"), record.get("curvature")
    return record.get("fitted_on") == 0 and temperature == 1.0 and not curvature


def stored_reliability(record: Mapping[str, Any]) -> Reliability | None:
    """The reliability before calibration from the entry `calibration` of `metrics.json`; None where it is missing."""
    bins = (record.get("before") or {}).get("bins")
    if not bins:
        return None
    return Reliability(
        edges=np.array(bins["edges"], dtype=np.float64),
        counts=np.array(bins["counts"], dtype=np.int64),
        confidence=np.array(bins["confidence"], dtype=np.float64),  # None becomes NaN
        accuracy=np.array(bins["accuracy"], dtype=np.float64),
    )


def _replace_probabilities(predictions: Predictions, probabilities: npt.NDArray[np.float64]) -> Predictions:
    return Predictions(
        predictions.classes, predictions.truth, probabilities.astype(np.float32), predictions.rows, predictions.files
    )


def _bins(result: Reliability) -> dict[str, Any]:
    def to_list(values: npt.NDArray[np.float64]) -> list[float | None]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    return {
        "edges": result.edges.tolist(),
        "counts": result.counts.tolist(),
        "confidence": to_list(result.confidence),
        "accuracy": to_list(result.accuracy),
    }


@register
class CalibrationEvaluator(Evaluator):
    """Confidence before and after calibration."""

    key, title, default = "calibration", "Calibration", True
    order = 1

    def measure(self, context: Context) -> dict[str, Any]:
        """Compute ECE and NLL before and after calibration."""
        validation = context.validation
        record = calibration_record(
            context.predictions,
            context.logits,
            calibration_of(context.info),
            temperature_only=validation.temperature_only,
            fitted_on=validation.count if is_calibrated(context.info) else 0,
        )
        return record | dict(validation.selection)

    def read(self, results: Results) -> Mapping[str, Any] | None:
        """The entry of `metrics.json`, with the reliability and the accuracy by confidence of the predictions."""
        stored, predictions = super().read(results), results.predictions.get(results.split)
        if stored is None and predictions is None:
            return None
        added = {"ece": (results.metrics.get("ece") or {}).get("value"), "predictions": predictions}
        return {**(stored or {}), **added}

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Reliability diagrams, ECE and NLL of each stage, and accuracy by confidence."""
        predictions = record.get("predictions")
        before = None if was_not_calibrated(record) else stored_reliability(record)
        stages = _calibration_table(record)
        charts = [Chart("Before calibration", before)] if before is not None else []
        if predictions is not None:
            charts.append(Chart("After calibration" if charts else "", reliability(predictions)))
        return Section(
            sentences=(
                "Of predictions with 80\u00a0% confidence, 80\u00a0% should be correct.",
                *_calibration_sentences(record, split, stages),
            ),
            charts=tuple(charts),
            legend=("Calibrated probabilities lie on the dotted line; bars are 95\u00a0% intervals.",),
            tables=tuple(table for table in (stages, _coverage_table(predictions)) if table is not None),
        )


STAGES = (("before", "As trained"), ("temperature_only", "Temperature only"), ("after", "Calibrated"))
CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)


def _calibration_table(record: Mapping[str, Any]) -> Table | None:
    """ECE and NLL of each stage; None where they were not measured."""
    if not record.get("before") or not record.get("after"):
        return None
    rows = []
    for key, name in STAGES:
        if not record.get(key) or (key == "temperature_only" and not record.get("curvature")):
            continue
        if key == "after" and was_not_calibrated(record):
            continue
        ece, nll = record[key]["ece"], record[key]["nll"]
        cells = (
            Cell(f"{found['value']:.4f}", interval(found["ci95"], as_percent=False, digits=4)) for found in (ece, nll)
        )
        rows.append((Cell(name), *cells))
    return Table(("Probabilities", "ECE", "NLL, nats"), tuple(rows))


def _calibration_sentences(record: Mapping[str, Any], split: str, stages: Table | None) -> list[str]:
    if stages is None:
        ece = record.get("ece")
        return [] if ece is None else [f"The expected calibration error (ECE, 15 bins) is {ece:.4f}."]
    before, after = (stages.rows[place][1].text for place in (0, -1))
    if was_not_calibrated(record):
        few = f"The probabilities are not calibrated: that needs at least {LEAST_IMAGES} validation images."
        return [few, f"The expected calibration error (ECE, 15 bins) is {after}."]
    curvature, fitted = float(record.get("curvature") or 0.0), int(record.get("fitted_on") or 0)
    spread = (
        f", after subtracting {curvature:.4f} times the square of their log-softmax (curvature), which corrects the "
        "effect of label smoothing on unlikely classes"
        if curvature
        else ""
    )
    source = f"; fitted on {fitted:,} validation images, measured on {split}" if fitted else ""
    found = [
        f"The expected calibration error (ECE, 15 bins) was {before} before calibration and is {after} after it.",
        f"Logits are divided by a temperature of {record['temperature']:.3f} (Guo et al. 2017){spread}{source}.",
        "The predicted class does not change.",
    ]
    chosen = record.get("validation_chose") or ()
    if chosen:
        found.append(
            f"The validation images were also used to choose {', '.join(chosen)}, so the fitted confidence may be "
            f"slightly too high; metrics on {split} are not affected."
        )
    return found


def _coverage_table(predictions: Predictions | None) -> Table | None:
    """Coverage and accuracy of predictions with at least each confidence; None without predictions."""
    if predictions is None:
        return None
    right = predictions.correct
    rows = []
    for least in CONFIDENCES:
        kept = predictions.confidence >= least
        count = int(kept.sum())
        ends = interval(wilson(int(right[kept].sum()), count)) if count else ""
        accuracy = percent(float(right[kept].mean())) if count else "–"
        rows.append((Cell(f"≥ {percent(least, 0)}"), Cell(percent(count / len(right))), Cell(accuracy, ends)))
    return Table(("Confidence", "Coverage", "Accuracy"), tuple(rows), title="Accuracy against coverage")
