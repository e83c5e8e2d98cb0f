"""Choose the base model of a linear probe by the size of the images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

from thirtytwo.config.recommend import SMALL_SIDE, is_small
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.inference.library import DEFAULT_BUNDLED, SMALL_BUNDLED, bundled_models, default_model, find_model

PHOTO_BASE, SMALL_BASE = DEFAULT_BUNDLED, SMALL_BUNDLED
"""Bases for photographs, and for small images."""
RESIZE: ResizeRule = "squash"
"""How images are resized: the whole image counts. Chosen on the development half of `benchmarks/fewshot.py`."""


def choose_base(name: str | Path | None, sides: Iterable[int]) -> tuple[Path, str]:
    """The model file whose features are used, and the reason as a phrase.

    Args:
        name: a bundled model, run directory or model file; None: chosen by the size of the images.
        sides: shorter side of each image, in pixels.

    Raises:
        UnknownNameError, ModelFileError, RunError: as `inference.library.find_model`.
    """
    if name is not None:
        return find_model(name), "as requested"
    found = list(sides)
    side = median(found) if found else SMALL_SIDE + 1
    wanted, kind = (SMALL_BASE, "small images") if is_small(side) else (PHOTO_BASE, "photographs")
    bundled = bundled_models()
    if wanted not in bundled:
        return default_model(), f"this installation has no bundled model {wanted!r}"
    return bundled[wanted], f"{kind}: the median of their shorter sides is {side:g} pixels"
