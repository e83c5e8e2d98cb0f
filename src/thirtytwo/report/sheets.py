"""Many small pictures in one file each: sheets, as good as a budget of bytes allows."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, features

LEAST_COLUMNS = 16
SAMPLE = 64
HEADROOM = 1.05  # a sample is not the whole


@dataclass(frozen=True)
class Quality:
    """How pictures are stored: their longest side in pixels, JPEG quality or None for exact, and right ones a class."""

    side: int
    jpeg: int | None
    right: int

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored picture."""
        scale = min(1.0, self.side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


LADDER = (Quality(128, None, 12), Quality(128, 95, 12), Quality(64, 95, 12), Quality(64, 85, 6), Quality(48, 75, 3))
"""From best to smallest; the first that fits the budget is taken."""


def choose_quality(sample: npt.NDArray[np.uint8], wrong: int, classes: int, budget: int) -> tuple[Quality, int]:
    """The best quality at which all pictures fit `budget` characters, and how many pictures fit at it.

    `sample` uint8 `(S, H, W, 3)`, typical pictures; `wrong` pictures and some right ones of each class are wanted.
    """
    room = 0
    for quality in LADDER:
        each = HEADROOM * len(sheet(sample, quality)) / len(sample)
        room = int(budget / each)
        if wrong + classes * quality.right <= room:
            return quality, room
    return LADDER[-1], room


def columns_of(count: int) -> int:
    """Pictures in a row of a sheet; no sheet is much longer than wide, as formats have a longest side."""
    return min(count, max(LEAST_COLUMNS, math.isqrt(max(0, count - 1)) + 1))


def sheet(pictures: npt.NDArray[np.uint8], quality: Quality) -> str:
    """Pictures uint8 `(N, H, W, 3)` in rows of `columns_of(N)` as a data URI, colour as sharp as brightness."""
    count, height, width = pictures.shape[:3]
    size = quality.fitted(height, width)
    if size != (height, width):
        pictures = _reduced(pictures, size)
    columns = columns_of(count)
    rows = -(-count // columns)
    grid = np.zeros((rows * columns, *size, 3), dtype=np.uint8)
    grid[:count] = pictures
    joined = grid.reshape(rows, columns, *size, 3).swapaxes(1, 2).reshape(rows * size[0], columns * size[1], 3)
    buffer = io.BytesIO()
    picture = Image.fromarray(joined)
    if quality.jpeg is not None:
        picture.save(buffer, kind := "JPEG", quality=quality.jpeg, subsampling=0)
    elif features.check("webp"):
        picture.save(buffer, kind := "WEBP", lossless=True, quality=50, method=2)
    else:
        picture.save(buffer, kind := "PNG")
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _reduced(pictures: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = size
    small: Sequence[npt.NDArray[np.uint8]] = [
        np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BOX))
        for picture in pictures
    ]
    return np.stack(small)
