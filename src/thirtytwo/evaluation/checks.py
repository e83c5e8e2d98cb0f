"""Checks of labels, probabilities and other values of images, with errors that name the first bad row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError
from thirtytwo.predictions import Predictions

Ints = npt.NDArray[np.int64]
DIVERGED = "The training diverged; lower the learning rate."
"""How to fix values that are not finite."""


def check_finite(values: npt.NDArray[np.floating[Any]], what: str, fix: str = "", numbers: Ints | None = None) -> None:
    """Check that values `(N, ...)` are finite.

    Args:
        values: one row for each image.
        what: name of the rows in the message, such as `probabilities`.
        fix: how to fix it.
        numbers: number of each row in the message; by default its position.

    Raises:
        DataError: a row contains NaN or infinity.
    """
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"{int(bad.sum())} of {len(values)} rows of {what} contain NaN or infinity "
            f"(first: row {first if numbers is None else int(numbers[first])}).",
            fix,
        )


def check_labels(truth: Ints, width: int, what: str = "True classes") -> None:
    """Check that labels `(N,)` lie between 0 and `width` - 1.

    Raises:
        DataError: one does not.
    """
    if len(truth) and (truth.min() < 0 or truth.max() >= width):
        raise DataError(f"{what} must lie between 0 and {width - 1}; found {truth.min()} to {truth.max()}.")


def check_shape(predictions: Predictions, what: str) -> None:
    """Check that there are images, and one row of probabilities for each of them.

    Raises:
        DataError: there are none, or the shapes do not match.
    """
    expected = len(predictions.truth), len(predictions.classes)
    if not expected[0]:
        raise DataError(f"The {what} contain no images, so there is nothing to evaluate.")
    if predictions.probabilities.shape != expected or len(predictions.rows) != expected[0]:
        raise DataError(
            f"The {what} must have the shape {expected}, images × classes; found {predictions.probabilities.shape} and "
            f"{len(predictions.rows)} rows."
        )


def check_predictions(predictions: Predictions, what: str) -> None:
    """Check predictions completely: shapes, labels, and finite probabilities that sum to 1.

    Raises:
        DataError: a check fails; `what` names the predictions.
    """
    check_shape(predictions, what)
    probabilities = predictions.probabilities
    check_labels(predictions.truth, len(predictions.classes))
    check_finite(probabilities, f"the {what}")
    totals = probabilities.sum(axis=1, dtype=np.float64)
    if probabilities.min() < 0 or np.abs(totals - 1.0).max() > 1e-3:
        raise DataError(
            f"Each row of the {what} must be at least 0 and sum to 1; "
            f"found a minimum of {probabilities.min():.4g} and sums from {totals.min():.4g} to {totals.max():.4g}."
        )
