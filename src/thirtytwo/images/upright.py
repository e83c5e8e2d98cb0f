"""Decoded images as upright RGB, converted part by part so that the whole of a large one is never in memory as RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from thirtytwo.images.convert import converter, rows_in_band
from thirtytwo.images.orientation import FLIPPED_ACROSS, FLIPPED_DOWN, SIDEWAYS, apply_orientation, orientation_of
from thirtytwo.images.pixels import REDUCING_GAP, Box, Pixels, ResizeRule, resampled, resize_by


@dataclass(frozen=True, slots=True)
class Upright:
    """A decoded image whose parts are converted to upright RGB where they are needed."""

    image: Image.Image
    orientation: int
    convert: Callable[[Image.Image], Pixels] | None
    """None where the image is RGB already."""

    @classmethod
    def of(cls, image: Image.Image, name: str) -> Upright:
        is_rgb = image.mode == "RGB" and not image.has_transparency_data
        return cls(image, orientation_of(image), None if is_rgb else converter(image, name))

    @property
    def sideways(self) -> bool:
        return self.orientation in SIDEWAYS

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size[::-1] if self.sideways else self.image.size

    def bands(self) -> Iterator[Pixels]:
        """The RGB pixels of the whole image in bands of rows."""
        width, height = self.size
        rows = rows_in_band(width)
        for top in range(0, height, rows):
            yield np.asarray(self._part((0, top, width, min(top + rows, height))))

    def resize(self, size: int, rule: ResizeRule) -> Pixels:
        """As `resize` of the whole image."""
        width, height = self.size
        if width == height == size:
            return np.asarray(self._part((0, 0, width, height)))
        return resize_by(self._resample, width, height, size, rule)

    def resample(self, width: int, height: int) -> Pixels:
        """The whole image at another size."""
        return np.ascontiguousarray(self._resample((0, 0, *self.size), width, height))

    def _resample(self, box: Box, width: int, height: int) -> Pixels:
        """As `resampled` of a part of the image."""
        across, down = max(box[2] - box[0], 1), max(box[3] - box[1], 1)
        factors = int(across / width / REDUCING_GAP) or 1, int(down / height / REDUCING_GAP) or 1
        if factors == (1, 1):
            return resampled(self._part(box), width, height)
        inner = (0, 0, across / factors[0], down / factors[1])
        return np.asarray(self._reduce(box, factors).resize((width, height), Image.Resampling.BICUBIC, box=inner))

    def _reduce(self, box: Box, factors: tuple[int, int]) -> Image.Image:
        """Average blocks of a part of the image, of few pixels at a time."""
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
        """A part of the upright image as RGB."""
        (width, height), (left, top, right, bottom) = self.size, box
        if self.orientation in FLIPPED_DOWN:
            top, bottom = height - bottom, height - top
        if self.orientation in FLIPPED_ACROSS:
            left, right = width - right, width - left
        part = self.image.crop((top, left, bottom, right) if self.sideways else (left, top, right, bottom))
        if self.convert is None and self.orientation == 1:
            return part
        pixels = apply_orientation(np.asarray(part) if self.convert is None else self.convert(part), self.orientation)
        return Image.fromarray(np.ascontiguousarray(pixels))
