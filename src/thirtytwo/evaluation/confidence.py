"""Expected calibration error and negative log likelihood before and after calibration, on the same images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.calibration import Calibration, softmax
from thirtytwo.evaluation.metrics import Reliability, confidence_metrics, reliability
from thirtytwo.rundir import Predictions


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
        fitted_on: number of validation images the calibration was fitted on.
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
