"""Decoded images as upright RGB, converted part by part so that the whole of a large one is never in memory as RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, floor

import numpy as np
from PIL import Image

from thirtytwo.images.convert import converter, rows_in_band
from thirtytwo.images.orientation import FLIPPED_ACROSS, FLIPPED_DOWN, SIDEWAYS, apply_orientation, orientation_of
from thirtytwo.images.pixels import REDUCING_GAP, Box, Pixels, ResizeRule, resize_by


@dataclass(frozen=True, slots=True)
class Upright:
    """A decoded image whose parts are converted to upright RGB where they are needed.

    Sizes and boxes are in pixels of the file: an image that was decoded at a smaller scale has fewer of its own.
    """

    image: Image.Image
    orientation: int
    convert: Callable[[Image.Image], Pixels] | None
    """None where the image is RGB already."""
    stored: tuple[int, int]
    """Width and height in the file, before the orientation is applied."""
    scale: int
    """Factor by which the sides were divided when the image was decoded; sizes were rounded up."""

    @classmethod
    def of(cls, image: Image.Image, name: str, stored: tuple[int, int], scale: int) -> Upright:
        is_rgb = image.mode == "RGB" and not image.has_transparency_data
        return cls(image, orientation_of(image), None if is_rgb else converter(image, name), stored, scale)

    @property
    def sideways(self) -> bool:
        return self.orientation in SIDEWAYS

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        return self.stored[::-1] if self.sideways else self.stored

    @property
    def _decoded_size(self) -> tuple[int, int]:
        """Width and height in decoded pixels, upright."""
        return self.image.size[::-1] if self.sideways else self.image.size

    def bands(self) -> Iterator[Pixels]:
        """The RGB pixels of an image that was decoded at full scale in bands of rows."""
        width, height = self.size
        rows = rows_in_band(width)
        for top in range(0, height, rows):
            yield np.asarray(self._part((0, top, width, min(top + rows, height))))

    def resize(self, size: int, rule: ResizeRule) -> Pixels:
        """As `resize` of the whole image."""
        width, height = self.size
        return resize_by(self._resample, width, height, size, rule)

    def resample(self, width: int, height: int) -> Pixels:
        """The whole image at another size."""
        return np.ascontiguousarray(self._resample((0, 0, *self.size), width, height))

    def _resample(self, box: Box, width: int, height: int) -> Pixels:
        """As `pixels.resampled` of a part of the image."""
        if box == (0, 0, *self.size) and (width, height) == self._decoded_size and self.scale == 1:
            return np.asarray(self._part((0, 0, width, height)))
        left, top, right, bottom = self._decoded(box)
        covering = floor(left), floor(top), ceil(right), ceil(bottom)
        across, down = (
            int((right - left) / width / REDUCING_GAP) or 1,
            int((bottom - top) / height / REDUCING_GAP) or 1,
        )
        part = self._part(covering) if across == down == 1 else self._reduce(covering, (across, down))
        x, y = covering[:2]
        inner = ((left - x) / across, (top - y) / down, (right - x) / across, (bottom - y) / down)
        return np.asarray(part.resize((width, height), Image.Resampling.BICUBIC, box=inner))

    def _decoded(self, box: Box) -> tuple[float, float, float, float]:
        """The place of a box in decoded pixels, of which the last row and column may lie partly beyond the image."""
        (width, height), (wide, high) = self.size, self._decoded_size
        x = wide - width / self.scale if self.orientation in FLIPPED_ACROSS else 0.0
        y = high - height / self.scale if self.orientation in FLIPPED_DOWN else 0.0
        left, top, right, bottom = (edge / self.scale for edge in box)
        return left + x, top + y, right + x, bottom + y

    def _reduce(self, box: Box, factors: tuple[int, int]) -> Image.Image:
        """Average blocks of a part of the decoded image, of few pixels at a time."""
        if self.convert is None and self.orientation == 1:
            return Image.Image.reduce(self.image, factors, box)
        left, top, right, bottom = box
        (across, down), width, height = factors, right - left, bottom - top
        reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
        rows = rows_in_band(width * down) * down
        columns = rows_in_band(rows * across) * across
        for y, x in product(range(0, height, rows), range(0, width, columns)):
            part = self._part((left + x, top + y, min(left + x + columns, right), min(top + y + rows, bottom)))
            reduced.paste(part.reduce(factors), (x // across, y // down))
        return reduced

    def _part(self, box: Box) -> Image.Image:
        """A part of the decoded image, upright, as RGB."""
        (width, height), (left, top, right, bottom) = self._decoded_size, box
        if self.orientation in FLIPPED_DOWN:
            top, bottom = height - bottom, height - top
        if self.orientation in FLIPPED_ACROSS:
            left, right = width - right, width - left
        own = (top, left, bottom, right) if self.sideways else (left, top, right, bottom)
        part = self.image if own == (0, 0, *self.image.size) else self.image.crop(own)
        if self.convert is None and self.orientation == 1:
            return part
        pixels = apply_orientation(np.asarray(part) if self.convert is None else self.convert(part), self.orientation)
        return Image.fromarray(np.ascontiguousarray(pixels))
