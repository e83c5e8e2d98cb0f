"""Convert the modes of decoded images to RGB: palettes, grayscale, CMYK, transparency, more than 8 bits per channel.

Large images are converted in bands of rows. More than 8 bits per channel are scaled by the bits that the file declares
or, where its values need fewer, uses.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.pixels import Pixels

BAND_PIXELS = 2**19
"""About as many pixels are converted at once."""
_DEPTHS = (255, 4095)
"""Values of white that an image of more than 8 bits is assumed to have where none of its values is larger."""
_reporting = threading.Lock()
_reported_depths: set[int] = set()

logger = logging.getLogger(__name__)


def rows_in_band(width: int) -> int:
    """Number of rows of this width that are converted at once, at least 1."""
    return max(1, BAND_PIXELS // width)


def as_rgb(image: Image.Image, name: str) -> Pixels:
    """Convert a decoded image to RGB in bands of rows, so that a large image is in memory little more than once."""
    convert = converter(image, name)
    width, height = image.size
    rows = rows_in_band(width)
    if rows >= height:
        return convert(image)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        pixels[top:below] = convert(image.crop((0, top, width, below)))
    return pixels


def converter(image: Image.Image, name: str) -> Callable[[Image.Image], Pixels]:
    """The function that converts a part of a decoded image to RGB.

    Raises:
        ImageError: as `_white_level`.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return partial(_from_deep, white=_white_level(image, name))
    return _from_shallow


def _from_shallow(image: Image.Image) -> Pixels:
    """Convert any mode with up to 8 bits per channel to RGB, transparency over white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def _from_deep(image: Image.Image, white: float) -> Pixels:
    """Convert a single channel of more than 8 bits, whose white is `white`, to RGB."""
    values = np.asarray(image).astype(np.float64)
    values *= 255.0 / white  # in place: copies of a band would add to the peak memory
    gray = np.rint(values, out=values).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _white_level(image: Image.Image, name: str) -> float:
    """Value of white in an image of more than 8 bits; 1 for floating-point values.

    For integers, it is that of the bits that the file declares, or 255 or 4095 where no value is larger: files of 8 and
    12 bits are often stored in 16 or 32.

    Raises:
        ImageError: values outside of the range, or not numbers.
    """
    low, high = _range(image)
    top = 1.0 if image.mode == "F" else 65535.0
    if np.isnan(low):
        raise ImageError(f"{name} contains values that are not numbers (NaN).", "Replace them, for example by 0.")
    if not (low >= 0 and high <= top):
        raise ImageError(
            f"{name} contains values from {low:g} to {high:g}; expected 0 to {top:g}.",
            "Save it with 8 or 16 bits per channel.",
        )
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    declared = int(bits[0] if isinstance(bits, tuple) else bits)
    if image.mode == "F":
        return top
    if 8 < declared < 16 and high < 2**declared:
        return float(2**declared - 1)
    white = next((depth for depth in _DEPTHS if 0 < high <= depth), None)
    if white is None:
        return top
    _report_depth(name, int(high), white)
    return float(white)


def _range(image: Image.Image) -> tuple[float, float]:
    """The smallest and the largest value of a single-channel image; both NaN where a value is."""
    (width, height), rows = image.size, rows_in_band(image.width)
    low, high = np.inf, -np.inf
    for at in range(0, height, rows):
        values = np.asarray(image.crop((0, at, width, min(at + rows, height))))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if np.isnan(values.min()):
            return np.nan, np.nan
    return low, high


def _report_depth(name: str, high: int, white: int) -> None:
    """Log, once for each value of white, that an image uses fewer bits than its format has."""
    with _reporting:
        if white in _reported_depths:
            return
        _reported_depths.add(white)
    bits = (white + 1).bit_length() - 1
    logger.warning(
        "%s has values up to %d in more than 8 bits, so it is read as %d bits (white is %d); so are others like it.",
        name, high, bits, white,
    )  # fmt: skip
