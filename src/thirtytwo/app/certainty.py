"""How certain a model is of its answer, in the words of all pages and of the files that they offer."""

from __future__ import annotations

from typing import Literal

from thirtytwo.inference.classifier import Prediction

Certainty = Literal["sure", "not sure", "unknown"]
SURE = 0.5
"""Calibrated probability of the top class below which the model is not sure: it is then more often wrong than right."""


def certainty(result: Prediction) -> Certainty:
    """Whether the model is sure of an image, not sure, or the image may be something that it does not know."""
    if not result.known:
        return "unknown"
    return "sure" if result.confidence >= SURE else "not sure"
