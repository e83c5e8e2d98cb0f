"""What hiding a part of the picture does to the answer: maps for any model file, without its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from thirtytwo.explain.faithfulness import blurred
from thirtytwo.explain.overlay import Heat, Pixels

WINDOW = 3 / 8
STRIDE = 1 / 8
"""Sides of the hidden square and of its steps, as shares of the picture's side."""

Logits = Callable[[Pixels], npt.NDArray[np.float32]]
"""From pixels uint8 `(M, S, S, 3)` to logits `(M, C)`."""


def occlusion_maps(logits: Logits, pictures: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    """How much surer the model is of a class with each place seen than with it hidden, float32 `(N, S, S)`.

    A square is blurred, step by step over all the picture and half over its edges; a pixel's value is the mean loss of
    log-odds of the class under the squares that hid it. After Zeiler and Fergus 2014 (arXiv 1311.2901).

    Args:
        logits: the model.
        pictures: uint8 `(N, S, S, 3)`.
        classes: int64 `(N,)`.
    """
    return np.stack([_occlusion_map(logits, *one) for one in zip(pictures, classes.tolist(), strict=True)])


def _occlusion_map(logits: Logits, picture: Pixels, label: int) -> Heat:
    side = len(picture)
    window, stride = max(1, round(WINDOW * side)), max(1, round(STRIDE * side))
    starts = np.arange(stride - window, side, stride)
    places = np.arange(side)
    bands = (places >= starts[:, None]) & (places < starts[:, None] + window)  # (P, S)
    hidden = (bands[:, None, :, None] & bands[None, :, None, :]).reshape(-1, side, side)  # (P², S, S)
    tried = np.where(hidden[..., None], blurred(picture), picture)
    odds = log_odds(logits(np.concatenate([picture[None], tried])), label)
    lost = odds[0] - odds[1:]
    return np.asarray(np.tensordot(lost, hidden, axes=1) / hidden.sum(axis=0), dtype=np.float32)


def log_odds(logits: npt.NDArray[np.float32], label: int) -> npt.NDArray[np.float64]:
    """Logarithm of a class's odds against all others, `(N, C)` → `(N,)`; does not level off where it is sure."""
    exact = logits.astype(np.float64)
    others = np.delete(exact, label, axis=1)
    if not others.shape[1]:
        return exact[:, label]
    top = others.max(axis=1)
    return np.asarray(exact[:, label] - top - np.log(np.exp(others - top[:, None]).sum(axis=1)))
