"""Test-time augmentation of a model file: further views of an image, and which images get them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Tta: TypeAlias = Literal["off", "auto", "all"]
"""Images that get further views: none, those whose confidence is below the model's threshold, or all."""

SMALL_SIDE = 64
"""Largest input in pixels of which a shift by one pixel is a view of its own."""
USUAL_THRESHOLD = 0.9
"""Threshold of models that have none: a fixed value, with which benchmarks/tta.py measures the bundled models."""
_LEAST = float(np.finfo(np.float32).tiny)
"""Instead of a probability of 0, of which there is no logarithm."""


class TtaInfo(BaseModel):
    """Test-time augmentation that suits a model."""

    model_config = ConfigDict(frozen=True)

    shift: int = Field(ge=0, le=4)
    """Shift of the shifted views in pixels; 0: the mirror image is the only further view."""
    threshold: float = Field(ge=0, le=1)
    """Images whose confidence from one view is below this get further views."""


def usual_tta(input_size: int) -> TtaInfo:
    """The test-time augmentation of a model that names none, by the side of its input in pixels."""
    return TtaInfo(shift=1 if input_size <= SMALL_SIDE else 0, threshold=USUAL_THRESHOLD)


def further_views(images: npt.NDArray[np.uint8], shift: int) -> list[tuple[float, npt.NDArray[np.uint8]]]:
    """The further views of images with their weights; the image itself has the rest of 1.

    With a shift these are the mirror image and two shifted copies, each also mirrored; the unshifted pair has the
    weight of the four shifted views together (arXiv 2404.00498).

    Args:
        images: uint8 `(N, H, W, 3)`.
        shift: in pixels; 0: only the mirror image, with a weight of a half.

    Returns:
        Weights and views uint8 `(N, H, W, 3)`.
    """
    if not shift:
        return [(0.5, _mirrored(images))]
    views = [(0.25, _mirrored(images))]
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
    for start in (0, 2 * shift):
        crop = np.ascontiguousarray(padded[:, start : start + height, start : start + width])
        views += [(0.125, crop), (0.125, _mirrored(crop))]
    return views


def averaged(weighted: list[tuple[float, npt.NDArray[np.float32]]]) -> npt.NDArray[np.float32]:
    """Average probabilities `(N, C)` of views, as the softmax of their weighted log probabilities.

    This is the average of the logits after calibration: with their curvature term, divided by the temperature.
    """
    logs = sum(weight * np.log(np.maximum(values, _LEAST)) for weight, values in weighted)
    powers = np.exp(logs - np.max(logs, axis=1, keepdims=True))
    result: npt.NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _mirrored(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(images[:, :, ::-1])
