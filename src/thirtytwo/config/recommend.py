"""The recipe that suits data by the size of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thirtytwo.config.settings import Choice

SMALL, PHOTOS = "fast", "photos"
"""Recipes for small images, and for photographs."""
SMALL_SIDE = 64
"""Largest median shorter side, in pixels, of images that count as small; above it they are photographs."""
WHAT = "recipe"


def is_small(side: float) -> bool:
    """Whether images of this median shorter side, in pixels, count as small instead of as photographs."""
    return side <= SMALL_SIDE


def recommend_recipe(side: int, images: int, classes: int) -> Choice:
    """The recipe for data, with the reason; `value` is its name.

    Args:
        side: median of the images' shorter sides, in pixels.
        images: number of images.
        classes: number of classes.
    """
    from thirtytwo.config.settings import Choice  # imports pydantic, which takes a while

    small = is_small(side)
    kind = "small images" if small else "photographs"
    reason = f"{images:,} {kind} of {classes:,} classes with a median shorter side of {side:,} pixels"
    return Choice(WHAT, SMALL if small else PHOTOS, reason)
