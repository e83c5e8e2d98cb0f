"""What calibration did: expected calibration error and likelihood before and after, on the same pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.calibration import Calibration, softmax
from thirtytwo.evaluation.metrics import Reliability, confidence_figures, reliability
from thirtytwo.rundir import Predictions


def calibration_record(
    after: Predictions,
    logits: npt.NDArray[np.float32],
    calibration: Calibration,
    *,
    temperature_only: float | None,
    fitted_on: int,
) -> dict[str, Any]:
    """The entry `calibration` of `metrics.json`.

    Args:
        after: calibrated predictions.
        logits: the network's own of the same pictures, float `(N, C)`.
        calibration: what made the one of the other.
        temperature_only: the best temperature without a curvature, for comparison.
        fitted_on: how many validation pictures the calibration was fitted on.
    """
    before = _with(after, softmax(logits))
    record: dict[str, Any] = {
        "temperature": calibration.temperature,
        "curvature": calibration.curvature,
        "fitted_on": fitted_on,
        "before": {**confidence_figures(before), "bins": _bins(reliability(before))},
    }
    if temperature_only is not None:
        straight = _with(after, softmax(logits, temperature_only))
        record["temperature_only"] = {"temperature": temperature_only, **confidence_figures(straight)}
    return record | {"after": confidence_figures(after)}


def _with(predictions: Predictions, probabilities: npt.NDArray[np.float64]) -> Predictions:
    return Predictions(
        predictions.classes, predictions.truth, probabilities.astype(np.float32), predictions.rows, predictions.files
    )


def _bins(found: Reliability) -> dict[str, Any]:
    def listed(values: npt.NDArray[np.float64]) -> list[float | None]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    return {
        "edges": found.edges.tolist(),
        "counts": found.counts.tolist(),
        "confidence": listed(found.confidence),
        "accuracy": listed(found.accuracy),
    }
