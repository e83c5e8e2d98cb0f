"""Which images get further views at prediction: those whose answer further views can change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

COVERED = 0.95
"""Share of the answers that further views change which are below the threshold."""
LEAST_CHANGED = 20
"""Number of changed answers below which a threshold would be a guess."""


def choose_threshold(single: npt.NDArray[np.floating], averaged: npt.NDArray[np.floating], usual: float) -> float:
    """The confidence below which an image gets further views.

    An answer changes where the model is in doubt, so that most images need one view. Labels are not needed: whether a
    changed answer is the better one has much more noise.

    Args:
        single: probabilities from one view `(N, C)` of validation images.
        averaged: probabilities from all views `(N, C)` of the same images.
        usual: the threshold where too few answers change.

    Returns:
        The confidence from one view, 0 to 1, below which `COVERED` of the changed answers are.
    """
    changed = single.argmax(axis=1) != averaged.argmax(axis=1)
    if changed.sum() < LEAST_CHANGED:
        return usual
    return float(np.quantile(single.max(axis=1)[changed], COVERED))
