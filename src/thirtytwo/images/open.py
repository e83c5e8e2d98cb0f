"""Open image files and bytes: the format is recognized and the size checked; nothing is decoded."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.damage import damaged, named_warnings
from thirtytwo.images.formats import FORMATS, HEAD_BYTES, HEIF, HEIF_INSTALL, format_and_plugin
from thirtytwo.images.jpeg import coefficient_bytes, draft_scale
from thirtytwo.images.png import without_long_text
from thirtytwo.inputs import archive_error, is_address
from thirtytwo.io import expand_home
from thirtytwo.text import shorten

T = TypeVar("T")
MAX_PIXELS = 50_000_000
"""Largest number of pixels to decode, unless the variable `THIRTYTWO_MAX_PIXELS` sets another."""
MAX_PIXELS_VARIABLE = "THIRTYTWO_MAX_PIXELS"
TOO_LARGE = "Downscale the image first, or raise the limit: "
"""Advice on a larger image, before the variable and a value for it."""
MAX_REDUCED = 16
"""A JPEG that is decoded at a smaller scale may have this many times more pixels."""
UNNAMED = "The image"
"""What messages call the bytes of an image without a name."""
MIN_SIDE = 2
_LONG_NAME = 100
_SPECIAL_FILES = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))


class _UnknownFormatError(ImageError):
    """The first bytes of a file match no known format."""


def with_stream(work: Callable[[IO[bytes], str], T], source: str | Path | bytes, name: str | None) -> T:
    """Apply `work` to the opened file and its name; file system errors become ImageErrors."""
    if isinstance(source, bytes):
        label = name or UNNAMED
        with named_warnings(label):
            return work(io.BytesIO(source), label)
    path = expand_home(source)
    name = name or str(path)
    try:
        _check_regular(path, name)
        with path.open("rb") as stream, named_warnings(name):
            return work(stream, name)
    except _UnknownFormatError:
        if (archive := archive_error(path, "an image")) is not None:
            raise ImageError(archive.message, archive.fix) from None
        raise
    except FileNotFoundError:
        if is_address(name):
            fix = "Download it first: thirtytwo reads local files, bytes and arrays."
            raise ImageError(f"{source} is an address, not a file.", fix) from None
        if path.is_symlink():
            found = f"{name} is a link to {path.readlink()}, which does not exist."
            raise ImageError(found, "Correct or remove the link.") from None
        raise ImageError(f"{name} does not exist.", "Check the path.") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ImageError(f"{shorten(name, _LONG_NAME)} is too long for a path.", "Check the path.") from None
        if os.path.isdir(path):  # noqa: PTH112, False without permission
            raise ImageError(f"{name} is a folder, not an image file.", "Give a file.") from None
        raise ImageError(
            f"{name} cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from None


def _check_regular(path: Path, name: str) -> None:
    """Check that a path is that of a file or folder: opening a named pipe would wait for a writer.

    Raises:
        ImageError: it is something else.
    """
    if "\0" in str(path):
        raise ImageError(f"{name} is not a path: it contains a NUL character.", "Check the path.")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((words for test, words in _SPECIAL_FILES if test(mode)), "a device")
        raise ImageError(f"{name} is {kind}, not an image file.", "Give a file.")


def open_image(stream: IO[bytes], name: str, size: int | None = None) -> Image.Image:
    """Open an image and validate its header; nothing is decoded.

    `size` is the side that is needed, so that a larger JPEG can be decoded at a smaller scale.
    """
    image = _identify(stream, name)
    check_size(image, name, size is not None and _is_reducible(image, stream, size))
    return image


def _identify(stream: IO[bytes], name: str) -> Image.Image:
    """Open an image with the Pillow plugin that matches its first bytes."""
    head = stream.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{name} is empty (0 bytes).", "Copy it again or leave it out.")
    stream.seek(0)
    kind, plugin = format_and_plugin(head) or ("", "")
    if not kind:
        found = f"{name} is not an image: its first bytes match no known format."
        raise _UnknownFormatError(
            "The bytes are not an image: they match no known format." if name == UNNAMED else found,
            f"Leave it out, or save it as an image ({FORMATS}).",
        )
    with contextlib.suppress(ImportError):
        importlib.import_module(plugin)
    if kind not in Image.OPEN:
        fix = HEIF_INSTALL if kind == HEIF else f"Save it as JPEG or PNG, or install a Pillow that reads {kind}."
        raise ImageError(f"{name} is a {'HEIC' if kind == HEIF else kind} image, which cannot be read here.", fix)
    try:
        # Not Image.open, whose own pixel limit warns or raises without naming the size.
        return Image.OPEN[kind][0](without_long_text(stream) if kind == "PNG" else stream, "")
    except Exception as error:  # Pillow's parsers raise arbitrary exceptions for damaged files
        raise damaged(name, error, stream, kind) from None


def max_pixels() -> int:
    """Largest number of pixels to decode: `THIRTYTWO_MAX_PIXELS`, else `MAX_PIXELS`.

    Raises:
        ImageError: the variable is not a positive integer.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "").replace("_", "").replace(",", "")
    if not text:
        return MAX_PIXELS
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ImageError(f"{MAX_PIXELS_VARIABLE} is {text!r}; expected a number of pixels, such as {2 * MAX_PIXELS}.")
    return int(text)


def check_size(image: Image.Image, name: str, reducible: bool = False) -> None:
    """Check the size of an opened image, which may be above the limit if it is `reducible`.

    Raises:
        ImageError: it is too small or too large.
    """
    width, height = image.size
    limit = max_pixels()
    if width * height > limit and not reducible:
        raise ImageError(
            f"{name} has {width}×{height} pixels, more than the limit of {limit:,}.",
            f"{TOO_LARGE}{MAX_PIXELS_VARIABLE}={width * height}",
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name} has {width}×{height} pixels, which is too small.",
            f"Expected at least {MIN_SIDE}×{MIN_SIDE}.",
        )


def _is_reducible(image: Image.Image, stream: IO[bytes], size: int) -> bool:
    """Whether an image above the limit is a JPEG whose decoder needs no more memory than for one below the limit."""
    (width, height), limit = image.size, max_pixels()
    if width * height <= limit or image.format not in ("JPEG", "MPO") or width * height > MAX_REDUCED * limit:
        return False
    at = stream.tell()
    stream.seek(0)
    coefficients = coefficient_bytes(stream.read())
    stream.seek(at)
    return not coefficients and width * height <= limit * draft_scale(width, height, size) ** 2
