"""Many explained pictures on one page: each picture beside its heat, with what was said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thirtytwo.explain.overlay import Pixels

COLUMNS = 3
CELL = 192
_GAP = 12
_LINE = 18
_INK = (32, 32, 32)
_PALE = (110, 110, 110)


@dataclass(frozen=True, eq=False)
class Entry:
    """A picture and its overlay, uint8 `(H, W, 3)` each, and lines below them, the first one darker."""

    picture: Pixels
    overlay: Pixels
    lines: tuple[str, ...]


def contact_sheet(entries: Sequence[Entry]) -> Pixels:
    """A page of `COLUMNS` entries a row, uint8 `(H, W, 3)`; at least one entry."""
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    below = max(len(entry.lines) for entry in entries)
    width, height = 2 * CELL + 2 * _GAP, CELL + below * _LINE + 2 * _GAP
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for number, entry in enumerate(entries):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        for place, pixels in enumerate((entry.picture, entry.overlay)):
            small = _fitted(pixels)
            corner = (left + place * (CELL + _GAP // 2) + (CELL - small.width) // 2, top + (CELL - small.height) // 2)
            page.paste(small, corner)
        for line, text in enumerate(entry.lines):
            at = (left, top + CELL + 4 + line * _LINE)
            draw.text(at, _cut(draw, font, text, 2 * CELL), fill=_PALE if line else _INK, font=font)
    return np.asarray(page)


def _fitted(pixels: Pixels) -> Image.Image:
    """The picture within a cell, its shape kept."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = CELL / max(picture.size)
    size = (max(1, round(scale * picture.width)), max(1, round(scale * picture.height)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _cut(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str, width: int) -> str:
    """`text`, its middle left out where it is wider than `width`; line ends would break the drawing."""
    text = " ".join(text.split()) or "?"
    kept = len(text)
    while kept > 2 and draw.textlength(text, font=font) > width:
        kept -= 1
        text = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return text
