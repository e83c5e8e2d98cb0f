"""Thumbnails of many images for one self-contained page, as large as its budget of characters permits."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from thirtytwo.images.pixels import Pixels
from thirtytwo.images.render import as_uri, is_pixelated

SAMPLE = 64
HEADROOM = 1.05  # the sample only estimates the total size


@dataclass(frozen=True)
class Storage:
    """How thumbnails are stored: longest side in pixels, and WebP or JPEG quality (None: lossless)."""

    side: int
    quality: int | None


PHOTOGRAPHS = tuple(
    Storage(side, quality)
    for side, quality in ((320, 88), (256, 85), (192, 82), (128, 80), (96, 75), (64, 70), (48, 60), (32, 50))
)
TINY = tuple(Storage(side, quality) for side, quality in ((64, None), (64, 90), (64, 80), (48, 70), (32, 60), (32, 40)))
"""From best to smallest: the first that fits the budget is used. Tiny images, shown pixelated, show losses most."""


@dataclass(frozen=True)
class Thumbnail:
    """An encoded image.

    Attributes:
        source: data URI, for the `src` of an `img`.
        width: stored width in pixels.
        height: stored height in pixels.
        pixelated: whether to enlarge it without smoothing, by the class `pixel` of the style sheet of pages.
    """

    source: str
    width: int
    height: int
    pixelated: bool


def thumbnails(
    images: Sequence[Pixels] | npt.NDArray[np.uint8], budget: int, storages: Sequence[Storage] | None = None
) -> list[Thumbnail]:
    """Encode images so that their data URIs take at most `budget` characters together.

    The larger the budget, the larger and better the thumbnails. Equal arguments give equal results.

    Args:
        images: images, uint8 `(H, W, 3)` each; their sizes may differ. Memory-mapped ones are read one by one.
        budget: largest total length of the data URIs in characters, which are bytes of the page.
        storages: how they may be stored, from best to smallest; None: by the size of the images.

    Returns:
        Thumbnails of the images in their order; only of the first ones where not all fit even at the smallest size.
    """
    if not len(images):
        return []
    encoded: list[Thumbnail] = []
    for storage in _candidates(images, budget, storages):
        encoded = []
        room = budget
        for image in images:
            thumbnail = encode_thumbnail(image, storage)
            room -= len(thumbnail.source)
            if room < 0:
                break
            encoded.append(thumbnail)
        if len(encoded) == len(images):
            break
    return encoded


def _candidates(
    images: Sequence[Pixels] | npt.NDArray[np.uint8], budget: int, given: Sequence[Storage] | None
) -> Iterator[Storage]:
    """Storages from best to smallest, without those at which a sample shows that the images do not fit."""
    places = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64)
    sample = [images[place] for place in places.tolist()]
    storages = given or (TINY if all(map(is_pixelated, sample)) else PHOTOGRAPHS)

    def too_large(storage: Storage) -> bool:
        mean = sum(len(encode_thumbnail(image, storage).source) for image in sample) / len(sample)
        return storage != storages[-1] and HEADROOM * mean * len(images) > budget

    return dropwhile(too_large, storages)


def encode_thumbnail(pixels: Pixels, storage: Storage) -> Thumbnail:
    """Encode an image, uint8 `(H, W, 3)`, reduced to the side of `storage` where it is larger."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > storage.side:
        image.thumbnail((storage.side, storage.side), Image.Resampling.LANCZOS)
    return Thumbnail(_uri(image, storage.quality), image.width, image.height, is_pixelated(pixels))


def _uri(image: Image.Image, quality: int | None) -> str:
    buffer = io.BytesIO()
    if features.check("webp"):
        lossless = quality is None
        image.save(buffer, kind := "WEBP", lossless=lossless, quality=50 if quality is None else quality, method=2)
    elif quality is None:
        image.save(buffer, kind := "PNG", optimize=True)
    else:
        image.save(buffer, kind := "JPEG", quality=quality, optimize=True)
    return as_uri(buffer.getvalue(), kind.lower())
