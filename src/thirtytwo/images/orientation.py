"""The orientation that EXIF states (EXIF 2.32, tag 0x0112), 1 to 8; 1 is upright."""

from __future__ import annotations

from PIL import Image

from thirtytwo.images.pixels import Pixels

_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)
FLIPPED_ACROSS, FLIPPED_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)


def orientation_of(image: Image.Image) -> int:
    """The orientation of an opened image; 1 where it states none, or one that does not exist, such as 0."""
    try:
        stated = int(image.getexif().get(_TAG, 1))
    except Exception:  # an image with a damaged EXIF block is used as stored
        return 1
    return stated if 1 <= stated <= 8 else 1


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an orientation."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in FLIPPED_ACROSS:
        pixels = pixels[:, ::-1]
    if orientation in FLIPPED_DOWN:
        pixels = pixels[::-1]
    return pixels
