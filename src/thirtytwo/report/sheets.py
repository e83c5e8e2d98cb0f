"""Sprites: many small images in one file, of the best quality that a budget of bytes allows."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, features

MIN_COLUMNS = 16
SAMPLE = 64
HEADROOM = 1.05  # the sample only estimates the total size


@dataclass(frozen=True)
class Quality:
    """How images are stored: longest side in pixels, JPEG quality (None: lossless), correct images per class."""

    side: int
    jpeg: int | None
    right: int

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored image."""
        scale = min(1.0, self.side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


QUALITIES = (Quality(128, None, 12), Quality(128, 95, 12), Quality(64, 95, 12), Quality(64, 85, 6), Quality(48, 75, 3))
"""From best to smallest; the first that fits the budget is used."""


def choose_quality(sample: npt.NDArray[np.uint8], wrong: int, classes: int, budget: int) -> tuple[Quality, int]:
    """The best quality at which all images fit `budget` characters, and how many images fit at it.

    `sample`, uint8 `(S, H, W, 3)`, are typical images; `wrong` misclassified ones and some correct ones of each class
    have to fit.
    """
    room = 0
    for quality in QUALITIES:
        each = HEADROOM * len(sprite(sample, quality)) / len(sample)
        room = int(budget / each)
        if wrong + classes * quality.right <= room:
            return quality, room
    return QUALITIES[-1], room


def columns_of(count: int) -> int:
    """Number of images in a row of a sprite, which is about square because formats limit the longest side."""
    return min(count, max(MIN_COLUMNS, math.isqrt(max(0, count - 1)) + 1))


def sprite(images: npt.NDArray[np.uint8], quality: Quality) -> str:
    """Images, uint8 `(N, H, W, 3)`, in rows of `columns_of(N)` as a data URI, without chroma subsampling."""
    count, height, width = images.shape[:3]
    size = quality.fitted(height, width)
    if size != (height, width):
        images = _resize(images, size)
    columns = columns_of(count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, *size, 3), dtype=np.uint8)
    grid[:count] = images
    joined = grid.reshape(rows, columns, *size, 3).swapaxes(1, 2).reshape(rows * size[0], columns * size[1], 3)
    buffer = io.BytesIO()
    image = Image.fromarray(joined)
    if quality.jpeg is not None:
        image.save(buffer, kind := "JPEG", quality=quality.jpeg, subsampling=0)
    elif features.check("webp"):
        image.save(buffer, kind := "WEBP", lossless=True, quality=50, method=2)
    else:
        image.save(buffer, kind := "PNG")
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _resize(images: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    small: Sequence[npt.NDArray[np.uint8]] = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BOX))
        for image in images
    ]
    return np.stack(small)
