"""Images for people: enlarged or reduced for display, encoded for files and pages, and on contact sheets."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from thirtytwo.images.fonts import pillow_fonts
from thirtytwo.images.pixels import Pixels
from thirtytwo.text import abbreviate

COLUMNS = 3
_PPM = re.compile(rb"P6 (\d{1,5}) (\d{1,5}) 255\n")
CELL = 192
_GAP = 12
_LINE = 18
_NARROWEST = 2  # pixels of a narrow letter
_DARK = (32, 32, 32)
_LIGHT = (110, 110, 110)


@dataclass(frozen=True, eq=False)
class Entry:
    """An image and its overlay, uint8 `(H, W, 3)` each, and lines of caption below them, the first one darker."""

    image: Pixels
    overlay: Pixels
    lines: tuple[str, ...]


def contact_sheet(entries: Sequence[Entry]) -> Pixels:
    """Draw a page with `COLUMNS` entries per row, uint8 `(H, W, 3)`; needs at least one entry."""
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    below = max(len(entry.lines) for entry in entries)
    width, height = 2 * CELL + 2 * _GAP, CELL + below * _LINE + 2 * _GAP
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    lines = [_Labels([entry.lines[line] for entry in entries if line < len(entry.lines)], 14) for line in range(below)]
    for number, entry in enumerate(entries):
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        for place, pixels in enumerate((entry.image, entry.overlay)):
            small = _fit_cell(pixels)
            corner = (left + place * (CELL + _GAP // 2) + (CELL - small.width) // 2, top + (CELL - small.height) // 2)
            page.paste(small, corner)
        for line, text in enumerate(entry.lines):
            at = (left, top + CELL + 4 + line * _LINE)
            lines[line].draw(page, at, text, 2 * CELL, fill=_LIGHT if line else _DARK)
    return np.asarray(page)


def _fit_cell(pixels: Pixels) -> Image.Image:
    """Resize an image to fit a cell, keeping its aspect ratio."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = CELL / max(image.size)
    size = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


class _Labels:
    """Texts in fonts that have their characters, abbreviated so that different ones stay different.

    Args:
        texts: all texts that will be drawn.
        size: size of the font in pixels.
    """

    def __init__(self, texts: Sequence[str], size: float) -> None:
        self._texts = list(dict.fromkeys(map(_one_line, texts)))
        self._font = pillow_fonts(self._texts, size)
        self._shown: dict[float, dict[str, str]] = {}

    def draw(self, page: Image.Image, at: tuple[float, float], text: str, width: float, **options: Any) -> None:
        """Draw one of the texts in at most `width` pixels; `options` are those of Pillow's `ImageDraw.text`."""
        text = _one_line(text)
        if width not in self._shown:
            self._shown[width] = dict(zip(self._texts, self._fit(width), strict=True))
        ImageDraw.Draw(page).text(at, self._shown[width][text], font=self._font(text), **options)

    def _fit(self, width: float) -> list[str]:
        def fits(text: str, label: str) -> bool:
            return self._font(text).getlength(label) <= width

        wide = [text for text in self._texts if not fits(text, text)]
        most = min(max(map(len, wide), default=0), int(width / _NARROWEST) + 1)
        short = abbreviate(wide, most)
        while most > 3 and not all(map(fits, wide, short)):
            most -= 1
            short = abbreviate(wide, most)
        labels = dict(zip(wide, short, strict=True))
        return [labels.get(text, text) for text in self._texts]


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "?"


_LABEL_WIDTH = 150
_ROW_GAP = 4
_CAPTION_LINE = 14


def labeled_rows(
    names: Sequence[str],
    rows: Sequence[Sequence[Pixels]],
    cell: int,
    columns: int,
    captions: Sequence[Sequence[Sequence[str]]] | None = None,
    *,
    first_apart: bool = False,
) -> Image.Image:
    """Contact sheet with one row per name: the name and up to `columns` images.

    Args:
        names: R names.
        rows: R lists of images, uint8 `(H, W, 3)`.
        cell: width and height of an image on the sheet, in pixels.
        columns: number of images there is room for.
        captions: for each image, the lines of text below it.
        first_apart: leave a larger gap after the first image of each row.
    """
    lines = max((len(text) for row in captions or () for text in row), default=0)
    high, apart = cell + lines * _CAPTION_LINE + _ROW_GAP, 2 * _ROW_GAP if first_apart else 0
    size = (_LABEL_WIDTH + columns * (cell + _ROW_GAP) + _ROW_GAP + apart, len(names) * high + _ROW_GAP)
    sheet = Image.new("RGB", size, "white")
    labels = _Labels(names, 13)
    small = _Labels([text for row in captions or () for lines in row for text in lines], 11)
    for number, name in enumerate(names):
        top = _ROW_GAP + number * high
        labels.draw(sheet, (_ROW_GAP, top + cell // 2), name, _LABEL_WIDTH - 2 * _ROW_GAP, fill="black", anchor="lm")
        for column, pixels in enumerate(rows[number]):
            left = _LABEL_WIDTH + column * (cell + _ROW_GAP) + (apart if column else 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels))
            sheet.paste(tile.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
            for line, text in enumerate(captions[number][column] if captions else ()):
                at = (left, top + cell + line * _CAPTION_LINE)
                small.draw(sheet, at, text, cell, fill="black")
    return sheet


LEAST, MOST = 256, 1024
"""Bounds of `for_display` for the shorter and the longer side, in pixels."""
PIXEL_ART_SIDE = 128
THUMBNAIL_SIDE = 128
PIXELATED_SIDE = 64
"""Longer side up to which images are shown pixelated instead of smoothed, in pixels."""


def png(pixels: Pixels, *, optimize: bool = False) -> bytes:
    """Encode an image, uint8 `(H, W, 3)` or `(H, W, 4)`, as a PNG file; `optimize` is slower, the file smaller."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", optimize=optimize)
    return stream.getvalue()


def jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode an image, uint8 `(H, W, 3)`, as a JPEG file of a quality from 1 to 95."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def ppm(pixels: Pixels) -> bytes:
    """Encode an image, uint8 `(H, W, 3)`, as a PPM file: uncompressed, so that arrays can be read as files are."""
    height, width = pixels.shape[:2]
    return b"P6 %d %d 255\n" % (width, height) + np.ascontiguousarray(pixels).tobytes()


def from_ppm(data: bytes) -> Pixels | None:
    """The image that `ppm` encoded, uint8 `(H, W, 3)`; None for any other data."""
    found = _PPM.match(data)
    if found is None:
        return None
    width, height = int(found[1]), int(found[2])
    pixels = np.frombuffer(data, dtype=np.uint8, offset=found.end())
    return pixels.reshape(height, width, 3) if len(pixels) == 3 * width * height else None


def data_uri(pixels: Pixels, side: int | None = THUMBNAIL_SIDE, quality: int | None = None) -> str:
    """Encode an image, uint8 `(H, W, 3)`, as a data URI.

    Args:
        pixels: the image.
        side: larger images are reduced to this side; None: never.
        quality: JPEG quality; None: PNG, which is lossless.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if side is not None and max(image.size) > side:
        image.thumbnail((side, side))
    if quality is None:
        return as_uri(png(np.asarray(image), optimize=True), "png")
    return as_uri(jpeg(np.asarray(image), quality), "jpeg")


def as_uri(data: bytes, kind: str) -> str:
    """The data URI of an encoded image; `kind` is its format: `png`, `jpeg` or `webp`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def is_pixelated(pixels: Pixels) -> bool:
    """Whether an image, uint8 `(H, W, 3)`, is so small that it is shown pixelated."""
    height, width = pixels.shape[:2]
    return bool(max(height, width) <= PIXELATED_SIDE)


def for_display(image: Pixels, least: int = LEAST, most: int = MOST) -> Pixels:
    """Resize an image for display: its shorter side to at least `least`, its longer side to at most `most`, in pixels.

    Small images are enlarged by an integer factor without interpolation, larger ones by interpolation. The shorter side
    of a very elongated image stays below `least`.
    """
    height, width = image.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if shorter < least:
        factor = max(1, min(-(-least // shorter), 4 * most // longer))
        filter = Image.Resampling.NEAREST if shorter <= PIXEL_ART_SIDE else Image.Resampling.BICUBIC
        size = (factor * width, factor * height)
    elif longer > most:
        scale = max(most / longer, least / shorter)
        filter = Image.Resampling.LANCZOS
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
    else:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, filter))
