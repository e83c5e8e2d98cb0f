"""TIFF files: their channels, the memory that libtiff needs besides the pixels, and its messages."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import IO, Any, cast

from PIL import Image

from thirtytwo.images.jpeg import ANY_JPEG
from thirtytwo.process import changed


def channel_count(stream: IO[bytes]) -> int:
    """Number of channels that a TIFF file declares; 0 where it cannot be read."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        stream.seek(0)
        head = stream.read(16)
        directory = ImageFileDirectory_v2(head if head[2:3] == b"+" or head[3:4] == b"+" else head[:8])
        stream.seek(directory.next)
        directory.load(stream)
        return int(directory.get(277, 1))
    except Exception:  # Pillow's parsers raise arbitrary exceptions for damaged files
        return 0


def strip_bytes(image: Image.Image) -> float:
    """Bytes per pixel of the strip or tile that libtiff keeps unpacked, which may hold the whole image."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (8,))
    strip = (sum(bits) if isinstance(bits, tuple) else int(bits)) / 8
    strip += ANY_JPEG if "jpeg" in str(image.info.get("compression")) else 0.0
    if 322 in tags and 323 in tags:
        share = int(tags[322]) * int(tags[323]) / (image.width * image.height)
    else:
        share = int(tags.get(278, image.height)) / image.height
    return strip * min(max(share, 0.0), 1.0)


@contextmanager
def quiet_libtiff(image: Image.Image) -> Iterator[None]:
    """Keep libtiff from writing to stderr while it decodes an image; errors still arrive as exceptions."""
    handler = _error_handler() if image.format == "TIFF" else None
    if handler is None:
        yield
        return
    with changed("libtiff", partial(handler, None), handler):  # setting a handler returns the one before
        yield


@cache
def _error_handler() -> Callable[[Any], Any] | None:
    """The function TIFFSetErrorHandler of the libtiff that Pillow uses; None where it is not exported."""
    try:
        handler = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return None
    handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    return cast("Callable[[Any], Any]", handler)
