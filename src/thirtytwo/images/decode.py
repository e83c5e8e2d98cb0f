"""Decode image files and bytes to uint8 RGB pixels, and resize them, identically in training and serving.

Every image becomes RGB: EXIF orientation is applied, palettes are expanded, grayscale is repeated, CMYK is converted,
transparency is composited over white, 16 bits per channel are scaled to 8, and of animations the first frame is used.
More than 8 bits per channel are scaled by the bits that the file declares or, where its values need fewer, uses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from PIL import Image

from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.convert import as_rgb
from thirtytwo.images.damage import damaged, named_warnings
from thirtytwo.images.jpeg import draft_scale
from thirtytwo.images.open import UNNAMED, check_size, open_image, with_stream
from thirtytwo.images.orientation import apply_orientation, orientation_of
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.images.tiff import quiet_libtiff
from thirtytwo.images.upright import Upright

_loading = threading.Lock()
"""Held while a caller's Pillow image is loaded: it may be decoded in several threads at once."""


def decode(source: str | Path | bytes, name: str | None = None) -> Pixels:
    """Decode an image to RGB pixels, uint8 `(H, W, 3)`.

    Args:
        source: path of the file, or its content.
        name: name of the image in error messages; the path by default.

    Raises:
        ImageError: missing, a folder, empty, not an image, damaged, truncated, too small or too large.
    """
    return with_stream(_decode, source, name)


def _decode(stream: IO[bytes], name: str) -> Pixels:
    image = open_image(stream, name)
    _load(image, name, None)
    try:
        pixels = as_rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # as in `_load`
        raise damaged(name, error) from None
    orientation = orientation_of(image)
    del image  # applying the orientation makes a copy; this avoids holding three copies of a large image
    return np.ascontiguousarray(apply_orientation(pixels, orientation))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A square image, uint8 `(size, size, 3)`, and the width and height of the upright original in pixels.

    `large` is a larger copy for random crops, if one was requested.
    """

    pixels: Pixels
    width: int
    height: int
    large: Pixels | None = None


Inspect: TypeAlias = Callable[[int, int, Iterator[Pixels]], None]
"""Takes width, height and RGB pixels of an image in bands of rows from top to bottom, each uint8 `(rows, W, 3)`."""


def load_image(
    source: str | Path | bytes | Image.Image,
    size: int,
    rule: ResizeRule = "crop",
    name: str | None = None,
    large: int = 0,
    inspect: Inspect | None = None,
) -> Loaded:
    """Decode and resize an image, identically in training and serving; raises as `decode` does.

    A JPEG that is larger than needed is decoded at 1/2, 1/4 or 1/8 scale (`jpeg.SCALES`), which saves most of the time
    and memory for photographs. A Pillow image is used at full scale. A copy of side `large`, if not 0, is what this
    function returns for that size. `inspect`, if given, sees the pixels of the upright image, which is then decoded at
    full scale.
    """
    if isinstance(source, Image.Image):
        label = name or UNNAMED
        return _fitted(_loaded(source, label), source.size, 1, label, size, rule, large, inspect)

    def decoded(stream: IO[bytes], label: str) -> Loaded:
        image = open_image(stream, label, None if large or inspect else size)
        apart = large and not inspect and _scale(image, large) != _scale(image, size)
        stored = image.size
        scale = _load(image, label, None if inspect else size)
        loaded = _fitted(image, stored, scale, label, size, rule, 0 if apart else large, inspect)
        return replace(loaded, large=load_image(source, large, rule, label).pixels) if apart else loaded

    return with_stream(decoded, source, name)


_SMALL_FORMATS = ("PNG", "JPEG")
"""Formats whose decoders need memory in proportion to the pixels, beside texts and profiles, which are limited."""


def load_small(source: bytes, size: int, rule: ResizeRule, name: str, most_pixels: int) -> Loaded | None:
    """As `load_image`, of a PNG or JPEG of at most `most_pixels`; None, without decoding, for any other image.

    Raises:
        ImageError: it cannot be read.
    """

    def decoded(stream: IO[bytes], label: str) -> Loaded | None:
        image = open_image(stream, label, 1)  # as for headers
        if image.width * image.height > most_pixels or image.format not in _SMALL_FORMATS:
            return None
        stored = image.size
        return _fitted(image, stored, _load(image, label, size), label, size, rule, 0)

    return with_stream(decoded, source, name)


def _fitted(
    image: Image.Image,
    stored: tuple[int, int],
    scale: int,
    name: str,
    size: int,
    rule: ResizeRule,
    large: int,
    inspect: Inspect | None = None,
) -> Loaded:
    """Resize an image of this width and height that was decoded at 1/`scale`; at 1, as `resize` of its RGB pixels.

    The RGB pixels of the whole image are never in memory at once.
    """
    try:
        upright = Upright.of(image, name, stored, scale)
        if inspect is not None:
            inspect(*upright.size, upright.bands())
        copy = upright.resize(large, rule) if large else None
        pixels = upright.resize(size, rule)
    except (ImageError, DataError):
        raise
    except Exception as error:  # as in `_load`
        raise damaged(name, error) from None
    return Loaded(pixels, *upright.size, copy)


def load_preview(source: str | Path | bytes, side: int, name: str | None = None) -> Pixels:
    """Decode an image, reduced to a longer side of at most `side` pixels, for people to look at; uint8 `(H, W, 3)`.

    Its aspect ratio is kept, and it is never enlarged. A JPEG that is much larger is decoded at a smaller scale. Raises
    as `decode` does.
    """

    def decoded(stream: IO[bytes], label: str) -> Pixels:
        image = open_image(stream, label, side)
        stored = image.size
        reduced = _load(image, label, side)
        try:
            upright = Upright.of(image, label, stored, reduced)
            width, height = upright.size
            scale = min(1.0, side / max(width, height))
            return upright.resample(max(1, round(scale * width)), max(1, round(scale * height)))
        except ImageError:
            raise
        except Exception as error:  # as in `_load`
            raise damaged(label, error) from None

    return with_stream(decoded, source, name)


def _scale(image: Image.Image, size: int | None) -> int:
    """Factor by which the sides of an opened image are divided when it is decoded for a square of `size`."""
    return draft_scale(*image.size, size) if size and image.format in ("JPEG", "MPO") else 1


def _load(image: Image.Image, name: str, size: int | None) -> int:
    """Decode an opened image, a JPEG at the scale for `size`; returns the factor by which its sides were divided."""
    scale, (width, height) = _scale(image, size), image.size
    try:
        if scale > 1 and image.draft(None, (width // scale, height // scale)) is None:
            scale = 1
        with quiet_libtiff(image):
            image.load()
    except Exception as error:  # Pillow's parsers raise arbitrary exceptions for damaged files
        raise damaged(name, error) from None
    return scale


def _loaded(image: Image.Image, name: str) -> Image.Image:
    """Check and load a caller's image, which may still be a file that is not read."""
    check_size(image, name)
    try:
        with _loading, quiet_libtiff(image), named_warnings(name):
            image.load()
    except Exception as error:  # as in `_load`
        raise damaged(name, error) from None
    return image
