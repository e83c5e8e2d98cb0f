"""Occlusion maps: for any model file, without the network's weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from thirtytwo.explain.faithfulness import blurred
from thirtytwo.explain.overlay import Heat, Pixels

WINDOW = 3 / 8
STRIDE = 1 / 8
"""Sides of the occluded square and of its steps, as shares of the image's side."""

Logits = Callable[[Pixels], npt.NDArray[np.float32]]
"""Maps pixels uint8 `(M, S, S, 3)` to logits `(M, C)`."""


def occlusion_maps(logits: Logits, images: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    """Compute occlusion maps float32 `(N, S, S)`: the decrease of a class's log-odds where a part is hidden.

    A blurred square slides over the image and its edges; a pixel's value is the mean decrease over the squares that
    cover it. After Zeiler and Fergus 2014 (arXiv 1311.2901).

    Args:
        logits: the model, from pixels to logits.
        images: uint8 `(N, S, S, 3)`.
        classes: int64 `(N,)`.
    """
    return np.stack([_occlusion_map(logits, *one) for one in zip(images, classes.tolist(), strict=True)])


def _occlusion_map(logits: Logits, image: Pixels, label: int) -> Heat:
    side = len(image)
    window, stride = max(1, round(WINDOW * side)), max(1, round(STRIDE * side))
    starts = np.arange(stride - window, side, stride)
    positions = np.arange(side)
    intervals = (positions >= starts[:, None]) & (positions < starts[:, None] + window)  # (P, S)
    masks = (intervals[:, None, :, None] & intervals[None, :, None, :]).reshape(-1, side, side)  # (P², S, S)
    occluded = np.where(masks[..., None], blurred(image), image)
    values = log_odds(logits(np.concatenate([image[None], occluded])), label)
    decrease = values[0] - values[1:]
    return np.asarray(np.tensordot(decrease, masks, axes=1) / masks.sum(axis=0), dtype=np.float32)


def log_odds(logits: npt.NDArray[np.float32], label: int) -> npt.NDArray[np.float64]:
    """Log-odds of a class, `(N, C)` → `(N,)`; unlike its probability, it does not saturate."""
    exact = logits.astype(np.float64)
    others = np.delete(exact, label, axis=1)
    if not others.shape[1]:
        return exact[:, label]
    top = others.max(axis=1)
    return np.asarray(exact[:, label] - top - np.log(np.exp(others - top[:, None]).sum(axis=1)))
