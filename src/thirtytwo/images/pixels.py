"""RGB images as arrays of pixels, and the one function that resizes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.errors import DataError

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""RGB, uint8 `(H, W, 3)` or `(N, H, W, 3)`."""
ResizeRule: TypeAlias = Literal["crop", "pad", "squash"]
RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
REDUCING_GAP = 3.0
"""Images are first averaged to this many times the size that is needed, then resampled."""


def resize(image: Pixels, size: int, rule: ResizeRule = "crop") -> Pixels:
    """Resize an image to a square, uint8 `(size, size, 3)`; returned unchanged where it has that size.

    Args:
        image: uint8 `(H, W, 3)`.
        size: side of the square in pixels.
        rule: `crop` takes the central square, `pad` adds black borders, `squash` changes the aspect ratio.

    Raises:
        DataError: unknown `rule`.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image

    def resample(box: Box, wide: int, high: int) -> Pixels:
        left, top, right, bottom = box
        return _resample(image[top:bottom, left:right], wide, high)

    return resize_by(resample, width, height, size, rule)


def resize_by(
    resample: Callable[[Box, int, int], Pixels], width: int, height: int, size: int, rule: ResizeRule
) -> Pixels:
    """Resize an image of this width and height with a function that resamples a part of it to a width and height."""
    whole = (0, 0, width, height)
    if rule == "crop":
        return resample(_center(width, height), size, size)
    if rule == "squash":
        return resample(whole, size, size)
    if rule == "pad":
        scale = size / max(height, width)
        inner = resample(whole, max(1, round(width * scale)), max(1, round(height * scale)))
        square = np.zeros((size, size, 3), dtype=np.uint8)
        top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
        square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return square
    raise DataError(f"Unknown resize rule {rule!r}.", "Expected one of: " + ", ".join(RESIZE_RULES) + ".")


def seen_box(width: int, height: int, rule: ResizeRule) -> tuple[int, int, int, int]:
    """The part of an upright image that `resize` uses: left, top, right and bottom in pixels."""
    return _center(width, height) if rule == "crop" else (0, 0, width, height)


def _center(width: int, height: int) -> Box:
    """The central square."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _resample(image: Pixels, width: int, height: int) -> Pixels:
    """Resample bicubically with antialiasing; larger images are first averaged to `REDUCING_GAP` times the size."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return resampled(Image.fromarray(np.ascontiguousarray(image)), width, height)


def resampled(image: Image.Image, width: int, height: int) -> Pixels:
    """`_resample` of an RGB image of Pillow's."""
    if image.size == (width, height):
        return np.asarray(image)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP))
