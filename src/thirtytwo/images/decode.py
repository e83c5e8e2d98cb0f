"""Decode image files and bytes to uint8 RGB pixels, and resize them, identically in training and serving.

Every image becomes RGB: EXIF orientation is applied, palettes are expanded, grayscale is repeated, CMYK is converted,
transparency is composited over white, 16 bits per channel are scaled to 8, and of animations the first frame is used.
More than 8 bits per channel are scaled by the bits that the file declares or, where its values need fewer, uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.errors import DataError, ImageError
from thirtytwo.inputs import archive_error, is_address
from thirtytwo.io import expand_home
from thirtytwo.process import changed
from thirtytwo.text import as_printable

T = TypeVar("T")
Pixels: TypeAlias = npt.NDArray[np.uint8]
ResizeRule: TypeAlias = Literal["crop", "pad", "squash"]

RESIZE_RULES: tuple[ResizeRule, ...] = get_args(ResizeRule)
MAX_PIXELS = 50_000_000
"""Largest number of pixels to decode, unless the variable `THIRTYTWO_MAX_PIXELS` sets another."""
MAX_PIXELS_VARIABLE = "THIRTYTWO_MAX_PIXELS"
TOO_LARGE = "Downscale the image first, or raise the limit: "
"""Advice on a larger image, before the variable and a value for it."""
MAX_REDUCED = 16
"""A JPEG that is decoded at a smaller scale may have this many times more pixels."""
HEAD_BYTES = 256
"""Number of first bytes by which a format is recognized."""
MIN_SIDE = 2
DRAFT_FACTOR = 8
BAND_PIXELS = 2**19
FORMATS = "JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP, TIFF or PPM"
"""Every format that is read, for messages; HEIC needs a library that not every installation has."""

# Pillow's plugin for each format, by the first bytes; untrusted files reach no other parser.
_MAGIC: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), name, plugin)
    for pattern, name, plugin in (
        (rb"\xff\xd8\xff", "JPEG", "PIL.JpegImagePlugin"),
        (rb"\x89PNG\r\n\x1a\n", "PNG", "PIL.PngImagePlugin"),
        (rb"RIFF....WEBP", "WEBP", "PIL.WebPImagePlugin"),
        (rb"GIF8[79]a", "GIF", "PIL.GifImagePlugin"),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF", "PIL.TiffImagePlugin"),
        (rb"P[1-6]\s", "PPM", "PIL.PpmImagePlugin"),
        (rb"BM", "BMP", "PIL.BmpImagePlugin"),
    )
)
# Formats in the ISO base media container, by the brands that the file lists (ISO/IEC 23008-12, AVIF specification).
HEIF = "HEIF"
_BRANDED: tuple[tuple[frozenset[bytes], str, str], ...] = (
    (frozenset({b"avif", b"avis"}), "AVIF", "PIL.AvifImagePlugin"),
    (
        frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}),
        HEIF,
        "pillow_heif.HeifImagePlugin",
    ),
)
HEIF_LIBRARY = "pillow_heif"
HEIF_INSTALL = "Install the library that reads it: pip install pillow-heif. Or save it as JPEG or PNG."
_UNSUPPORTED = re.compile(
    r"unknown pixel mode|unknown data organization|not supported|unsupported|cannot (handle|read this)|not available",
    re.I,
)
# Chunks of a PNG with text or a color profile; Pillow refuses the whole file where one unpacks to more than this.
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_PNG_TEXT_BYTES = 2**20
_PNG_TEXT_TOTAL = 32 * 2**20
_SPECIAL_FILES = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
# Bytes per pixel, measured as peak memory of a process: Pillow's image by mode, the decoder's buffers by format.
_CORE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_CORE_DEFAULT = 4
_EXTRA = {"WEBP": 12.25, "AVIF": 11.0, HEIF: 11.0, "GIF": 2.0, "BMP": 2.0, "PPM": 4.0}
_RGB, _BAND_BYTES = 3, 32
_ANY_JPEG = 8.0
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
_FLIPPED_ACROSS, _FLIPPED_DOWN = (2, 3, 6, 7), (3, 4, 7, 8)
_REDUCING_GAP = 3.0
"""Images are first averaged to this many times the size that is needed, then resampled."""
_Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
_loading = threading.Lock()
"""Held while a caller's Pillow image is loaded: it may be decoded in several threads at once."""
_DEPTHS = (255, 4095)
"""Values of white that an image of more than 8 bits is assumed to have where none of its values is larger."""
_reported_depths: set[int] = set()
_reading = threading.local()
"""`name`: the image that a thread decodes."""
_reporting = threading.Lock()
_reported_warnings: set[str] = set()

logger = logging.getLogger(__name__)


def decode(source: str | Path | bytes, name: str | None = None) -> Pixels:
    """Decode an image to RGB pixels, uint8 `(H, W, 3)`.

    Args:
        source: path of the file, or its content.
        name: name of the image in error messages; the path by default.

    Raises:
        ImageError: missing, a folder, empty, not an image, damaged, truncated, too small or too large.
    """
    return _with_stream(_decode, source, name)


@dataclass(frozen=True, slots=True)
class Header:
    """Properties of an image from its file header; width and height in pixels, before EXIF orientation."""

    format: str
    width: int
    height: int
    core: float
    """Bytes per pixel of Pillow's decoded image."""
    extra: float
    """Additional bytes per pixel that the decoder of the format needs, at full scale."""

    def memory(self, size: int | None = None) -> int:
        """Estimate the peak memory, in bytes, of `load_image` for a square of `size`, or of `decode` if it is None.

        An upper bound, without the file's own bytes. A JPEG that is decoded at a smaller scale needs less only where
        its decoder does not keep the coefficients of all pixels (see `_jpeg_coefficients`).
        """
        pixels = self.width * self.height
        scale = _draft_scale(self.width, self.height, DRAFT_FACTOR * size) if size and self.format == "JPEG" else 1
        shown = pixels / scale**2
        decoding = self.extra * pixels + self.core * shown
        after = (self.core if size else self.core + _RGB) * shown
        band = max(BAND_PIXELS, (_REDUCING_GAP * (size or 0)) ** 2)
        return round(max(decoding, after) + _BAND_BYTES * min(shown, band))


def read_size(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Read width and height from the file header, before EXIF orientation; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return _with_stream(lambda stream, label: _open(stream, label, 1).size, source, name)


def read_header(source: str | Path | bytes, name: str | None = None) -> Header:
    """Read format, size and memory needs from the file header; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return _with_stream(_header, source, name)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file states about its image; nothing of it is decoded.

    Attributes:
        format: as Pillow calls it; MPO, several JPEGs in a file, is JPEG.
        mode: Pillow's mode of the stored pixels: `RGB`, `L`, `P`, `CMYK`, `I;16`, ….
        transparent: whether it has an alpha channel or a transparent color.
        orientation: of EXIF, 1 to 8; 1 is upright.
        width: in pixels, as stored: before the orientation is applied.
        height: likewise.
        bytes: size of the file.
        exif: whether it has EXIF metadata.
        profile: whether it has a color profile.
        progressive: whether it is a progressive JPEG.
        quantization: mean step of the first quantization table of a JPEG, which is larger for lower quality; else 0.
    """

    format: str
    mode: str
    transparent: bool
    orientation: int
    width: int
    height: int
    bytes: int
    exif: bool
    profile: bool
    progressive: bool
    quantization: float

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height in pixels after the orientation is applied."""
        return (self.height, self.width) if self.orientation in _SIDEWAYS else (self.width, self.height)


def read_facts(source: str | Path | bytes, name: str | None = None) -> FileFacts:
    """Read what a file states about its image; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return _with_stream(_facts, source, name)


def resize(image: Pixels, size: int, rule: ResizeRule = "crop") -> Pixels:
    """Resize an image to a square, uint8 `(size, size, 3)`; returned unchanged where it has that size.

    Args:
        image: uint8 `(H, W, 3)`.
        size: side of the square in pixels.
        rule: `crop` takes the central square, `pad` adds black borders, `squash` changes the aspect ratio.

    Raises:
        DataError: unknown `rule`.
    """
    height, width = image.shape[:2]
    if height == width == size:
        return image

    def resample(box: _Box, wide: int, high: int) -> Pixels:
        left, top, right, bottom = box
        return _resample(image[top:bottom, left:right], wide, high)

    return _resize_by(resample, width, height, size, rule)


def _resize_by(
    resample: Callable[[_Box, int, int], Pixels], width: int, height: int, size: int, rule: ResizeRule
) -> Pixels:
    """Resize an image of this width and height with a function that resamples a part of it to a width and height."""
    whole = (0, 0, width, height)
    if rule == "crop":
        return resample(_center(width, height), size, size)
    if rule == "squash":
        return resample(whole, size, size)
    if rule == "pad":
        scale = size / max(height, width)
        inner = resample(whole, max(1, round(width * scale)), max(1, round(height * scale)))
        square = np.zeros((size, size, 3), dtype=np.uint8)
        top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
        square[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return square
    raise DataError(f"Unknown resize rule {rule!r}.", "Expected one of: " + ", ".join(RESIZE_RULES) + ".")


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

    A JPEG that is much larger than needed is decoded at 1/2, 1/4 or 1/8 scale, but never below `DRAFT_FACTOR` times
    `size`, which saves most of the time and memory for photographs. A Pillow image is used at full scale. A copy of
    side `large`, if not 0, is made from the same decoded pixels. `inspect`, if given, sees the pixels of the upright
    image, which is then decoded at full scale.
    """
    if isinstance(source, Image.Image):
        label = name or "The image"
        return _fitted(_loaded(source, label), source.size, label, size, rule, large, inspect)

    def decoded(stream: IO[bytes], label: str) -> Loaded:
        image = _open(stream, label, None if large or inspect else DRAFT_FACTOR * size)
        shape = image.size
        _load(image, label, None if inspect else DRAFT_FACTOR * size)
        return _fitted(image, shape, label, size, rule, large, inspect)

    return _with_stream(decoded, source, name)


def load_preview(source: str | Path | bytes, side: int, name: str | None = None) -> Pixels:
    """Decode an image, reduced to a longer side of at most `side` pixels, for people to look at; uint8 `(H, W, 3)`.

    Its aspect ratio is kept, and it is never enlarged. A JPEG that is much larger is decoded at a smaller scale. Raises
    as `decode` does.
    """

    def decoded(stream: IO[bytes], label: str) -> Pixels:
        image = _open(stream, label, side)
        _load(image, label, side)
        try:
            upright = _Upright.of(image, label)
            width, height = upright.size
            scale = min(1.0, side / max(width, height))
            return upright.resample(max(1, round(scale * width)), max(1, round(scale * height)))
        except ImageError:
            raise
        except Exception as error:  # as in `_load`
            raise _damaged(label, error) from None

    return _with_stream(decoded, source, name)


class _UnknownFormatError(ImageError):
    """The first bytes of a file match no known format."""


def _with_stream(work: Callable[[IO[bytes], str], T], source: str | Path | bytes, name: str | None) -> T:
    """Apply `work` to the opened file and its name; file system errors become ImageErrors."""
    if isinstance(source, bytes):
        label = name or "The image"
        with _named_warnings(label):
            return work(io.BytesIO(source), label)
    path = expand_home(source)
    name = name or str(path)
    try:
        _check_regular(path, name)
        with path.open("rb") as stream, _named_warnings(name):
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
        if path.is_dir():
            raise ImageError(f"{name} is a folder, not an image file.", "Give a file.") from None
        raise ImageError(
            f"{name} cannot be read: {error.strerror or error}.", "Check the path and its permissions."
        ) from None


_DAMAGES = (
    (r"EXIF|Tag data|Skipping tag|tag \d+|File Read", "its tags (EXIF) are damaged."),
    (r"MPO", "its list of further images is damaged."),
)
"""Patterns of Pillow's warnings on data beside the pixels, and what they mean."""


class _WarningLog:
    """Logs the warnings of images that this thread decodes, with their names; `show` shows all others.

    A warning is logged once for each text apart from its numbers, not for each of thousands of images.
    """

    def __init__(self, show: Callable[..., object]) -> None:
        self._show = show

    def __call__(self, message: Warning | str, *details: Any, **more: Any) -> None:
        name = getattr(_reading, "name", None)
        if name is None:
            self._show(message, *details, **more)
            return
        text = " ".join(str(message).split()).rstrip(".")
        about = next((words for pattern, words in _DAMAGES if re.search(pattern, text)), f"{text}.")
        kind = re.sub(r"\d+", "0", about)
        with _reporting:
            if kind in _reported_warnings:
                return
            _reported_warnings.add(kind)
        logger.warning("%s: %s The image is used all the same; so are others like it.", as_printable(name), about)


@contextmanager
def _named_warnings(name: str) -> Iterator[None]:
    """Log Pillow's warnings in this thread in one sentence with the image's name, instead of a line of its code."""
    before, current = getattr(_reading, "name", None), warnings.showwarning
    hook = current if isinstance(current, _WarningLog) else _WarningLog(current)
    _reading.name = name
    try:
        with changed(
            "showwarning", partial(getattr, warnings, "showwarning"), partial(setattr, warnings, "showwarning"), hook
        ):
            yield
    finally:
        _reading.name = before


def _check_regular(path: Path, name: str) -> None:
    """Check that a path is a file or folder: opening a named pipe would wait for a writer.

    Raises:
        ImageError: it is something else.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((words for test, words in _SPECIAL_FILES if test(mode)), "a device")
        raise ImageError(f"{name} is {kind}, not an image file.", "Give a file.")


def _fitted(
    image: Image.Image,
    stored: tuple[int, int],
    name: str,
    size: int,
    rule: ResizeRule,
    large: int,
    inspect: Inspect | None = None,
) -> Loaded:
    """Resize a decoded image whose file has these width and height; equal to `resize` of its RGB pixels.

    The RGB pixels of the whole image are never in memory at once.
    """
    try:
        upright = _Upright.of(image, name)
        if inspect is not None:
            inspect(*upright.size, upright.bands())
        copy = upright.resize(large, rule) if large else None
        pixels = upright.resize(size, rule)
    except (ImageError, DataError):
        raise
    except Exception as error:  # as in `_load`
        raise _damaged(name, error) from None
    return Loaded(pixels, *(stored[::-1] if upright.sideways else stored), copy)


@dataclass(frozen=True, slots=True)
class _Upright:
    """A decoded image whose parts are converted to upright RGB where they are needed."""

    image: Image.Image
    orientation: int
    convert: Callable[[Image.Image], Pixels] | None
    """None where the image is RGB already."""

    @classmethod
    def of(cls, image: Image.Image, name: str) -> _Upright:
        is_rgb = image.mode == "RGB" and not image.has_transparency_data
        return cls(image, _orientation(image), None if is_rgb else _converter(image, name))

    @property
    def sideways(self) -> bool:
        return self.orientation in _SIDEWAYS

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size[::-1] if self.sideways else self.image.size

    def bands(self) -> Iterator[Pixels]:
        """The RGB pixels of the whole image in bands of rows."""
        width, height = self.size
        rows = max(1, BAND_PIXELS // width)
        for top in range(0, height, rows):
            yield np.asarray(self._part((0, top, width, min(top + rows, height))))

    def resize(self, size: int, rule: ResizeRule) -> Pixels:
        """As `resize` of the whole image."""
        width, height = self.size
        if width == height == size:
            return np.asarray(self._part((0, 0, width, height)))
        return _resize_by(self._resample, width, height, size, rule)

    def resample(self, width: int, height: int) -> Pixels:
        """The whole image at another size."""
        return np.ascontiguousarray(self._resample((0, 0, *self.size), width, height))

    def _resample(self, box: _Box, width: int, height: int) -> Pixels:
        """As `_resample` of a part of the image."""
        across, down = max(box[2] - box[0], 1), max(box[3] - box[1], 1)
        factors = int(across / width / _REDUCING_GAP) or 1, int(down / height / _REDUCING_GAP) or 1
        if factors == (1, 1):
            return _resampled(self._part(box), width, height)
        inner = (0, 0, across / factors[0], down / factors[1])
        return np.asarray(self._reduce(box, factors).resize((width, height), Image.Resampling.BICUBIC, box=inner))

    def _reduce(self, box: _Box, factors: tuple[int, int]) -> Image.Image:
        """Average blocks of a part of the image, of few pixels at a time."""
        if self.convert is None and self.orientation == 1:
            return Image.Image.reduce(self.image, factors, box)
        left, top, right, bottom = box
        (across, down), width, height = factors, right - left, bottom - top
        reduced = Image.new("RGB", (-(-width // across), -(-height // down)))
        rows = max(1, BAND_PIXELS // width // down) * down
        columns = max(1, BAND_PIXELS // rows // across) * across
        for y, x in product(range(0, height, rows), range(0, width, columns)):
            part = self._part((left + x, top + y, min(left + x + columns, right), min(top + y + rows, bottom)))
            reduced.paste(part.reduce(factors), (x // across, y // down))
        return reduced

    def _part(self, box: _Box) -> Image.Image:
        """A part of the upright image as RGB."""
        (width, height), (left, top, right, bottom) = self.size, box
        if self.orientation in _FLIPPED_DOWN:
            top, bottom = height - bottom, height - top
        if self.orientation in _FLIPPED_ACROSS:
            left, right = width - right, width - left
        part = self.image.crop((top, left, bottom, right) if self.sideways else (left, top, right, bottom))
        if self.convert is None and self.orientation == 1:
            return part
        pixels = _apply_orientation(np.asarray(part) if self.convert is None else self.convert(part), self.orientation)
        return Image.fromarray(np.ascontiguousarray(pixels))


def seen_box(width: int, height: int, rule: ResizeRule) -> tuple[int, int, int, int]:
    """The part of an upright image that `resize` uses: left, top, right and bottom in pixels."""
    return _center(width, height) if rule == "crop" else (0, 0, width, height)


def _center(width: int, height: int) -> _Box:
    """The central square."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _load(image: Image.Image, name: str, enough: int | None) -> None:
    """Decode an opened image, a JPEG at a scale that leaves a shorter side of no less than `enough` pixels."""
    try:
        if enough:
            image.draft(None, (enough, enough))  # only has an effect for JPEG
        with _quiet(image):
            image.load()
    except Exception as error:  # Pillow's parsers raise arbitrary exceptions for damaged files
        raise _damaged(name, error) from None


def _loaded(image: Image.Image, name: str) -> Image.Image:
    """Check and load a caller's image, which may still be a file that is not read."""
    _check_size(image, name)
    try:
        with _loading, _quiet(image), _named_warnings(name):
            image.load()
    except Exception as error:  # as in `_load`
        raise _damaged(name, error) from None
    return image


@contextmanager
def _quiet(image: Image.Image) -> Iterator[None]:
    """Keep libtiff from writing to stderr while it decodes an image; errors still arrive as exceptions."""
    handler = _libtiff_error_handler() if image.format == "TIFF" else None
    if handler is None:
        yield
        return
    with changed("libtiff", partial(handler, None), handler):  # setting a handler returns the one before
        yield


@cache
def _libtiff_error_handler() -> Callable[[Any], Any] | None:
    """The function TIFFSetErrorHandler of the libtiff that Pillow uses; None where it is not exported."""
    try:
        handler = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__).TIFFSetErrorHandler
    except (OSError, AttributeError):
        return None
    handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
    return cast("Callable[[Any], Any]", handler)


def _decode(stream: IO[bytes], name: str) -> Pixels:
    image = _open(stream, name)
    _load(image, name, None)
    try:
        pixels = _rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # as in `_load`
        raise _damaged(name, error) from None
    orientation = _orientation(image)
    del image  # applying the orientation makes a copy; this avoids holding three copies of a large image
    return np.ascontiguousarray(_apply_orientation(pixels, orientation))


def _open(stream: IO[bytes], name: str, enough: int | None = None) -> Image.Image:
    """Open an image and validate its header; nothing is decoded.

    `enough` is the shorter side that is needed, so that a larger JPEG can be decoded at a smaller scale.
    """
    image = _identify(stream, name)
    _check_size(image, name, enough is not None and _is_reducible(image, stream, enough))
    return image


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


def _is_reducible(image: Image.Image, stream: IO[bytes], enough: int) -> bool:
    """Whether an image above the limit is a JPEG whose decoder needs no more memory than for one below the limit."""
    (width, height), limit = image.size, max_pixels()
    if width * height <= limit or image.format not in ("JPEG", "MPO") or width * height > MAX_REDUCED * limit:
        return False
    at = stream.tell()
    stream.seek(0)
    coefficients = _jpeg_coefficients(stream.read())
    stream.seek(at)
    return not coefficients and width * height <= limit * _draft_scale(width, height, enough) ** 2


def _check_size(image: Image.Image, name: str, reducible: bool = False) -> None:
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


def _header(stream: IO[bytes], name: str) -> Header:
    image = _open(stream, name, 1)
    kind = image.format or ""
    width, height = image.size
    if kind in ("JPEG", "MPO"):
        stream.seek(0)
        extra = _jpeg_coefficients(stream.read())
    elif kind in ("BMP", "PPM", "TIFF") and {tile[0] for tile in getattr(image, "tile", ())} == {"raw"}:
        extra = 0.0  # read row by row
    elif kind == "TIFF":
        extra = _tiff_strip(image)
    else:
        extra = _EXTRA.get(kind, 0.0)
    core = _CORE.get(image.mode, _CORE_DEFAULT)
    return Header("JPEG" if kind == "MPO" else kind, width, height, core, extra)


def _facts(stream: IO[bytes], name: str) -> FileFacts:
    image = _open(stream, name, 1)
    kind, info = image.format or "", image.info
    has_exif = bool(info.get("exif"))
    tables = getattr(image, "quantization", None) or {}
    return FileFacts(
        format="JPEG" if kind == "MPO" else kind,
        mode=image.mode,
        transparent="A" in image.getbands() or "a" in image.getbands() or "transparency" in info,
        # Pillow decodes a PNG to look for EXIF behind its pixels
        orientation=_orientation(image) if has_exif or kind != "PNG" else 1,
        width=image.width,
        height=image.height,
        bytes=stream.seek(0, io.SEEK_END),
        exif=has_exif,
        profile="icc_profile" in info,
        progressive=bool(info.get("progressive")),
        quantization=float(np.mean(next(iter(tables.values())))) if tables else 0.0,
    )


def _jpeg_coefficients(data: bytes) -> float:
    """Bytes per pixel of the coefficients that libjpeg keeps for the whole image; 0 where it decodes row by row.

    It keeps them where no single scan contains all data of a pixel: in progressive files (ITU T.81, SOF2, 6, 10 and
    14), and in sequential ones whose first scan lacks a component. Files that cannot be parsed count as the worst case.
    """
    at, kept, components, progressive = 2, _ANY_JPEG, 0, True
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1  # padding or stray bytes: decoders also search for the next marker
            continue
        marker = data[at + 1]
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
                return _ANY_JPEG
            components, progressive = body[5], marker in (0xC2, 0xC6, 0xCA, 0xCE)
            sampling = [(factors >> 4, factors & 15) for factors in body[7 : 6 + 3 * components : 3]]
            most = max(across for across, _ in sampling) * max(down for _, down in sampling)
            kept = 2 * sum(across * down for across, down in sampling) / most if most else _ANY_JPEG
        elif marker == 0xDA:
            return kept if progressive or not body or body[0] < components else 0.0
        at += 2 + max(length, 2)
    return _ANY_JPEG


def _tiff_strip(image: Image.Image) -> float:
    """Bytes per pixel of the strip or tile that libtiff keeps unpacked, which may hold the whole image."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (8,))
    strip = (sum(bits) if isinstance(bits, tuple) else int(bits)) / 8
    strip += _ANY_JPEG if "jpeg" in str(image.info.get("compression")) else 0.0
    if 322 in tags and 323 in tags:
        share = int(tags[322]) * int(tags[323]) / (image.width * image.height)
    else:
        share = int(tags.get(278, image.height)) / image.height
    return strip * min(max(share, 0.0), 1.0)


def _draft_scale(width: int, height: int, enough: int) -> int:
    """Factor by which Pillow's `draft` divides the sides of a JPEG so that at least `enough` pixels per side remain."""
    return next(scale for scale in (8, 4, 2, 1) if scale == 1 or min(width // enough, height // enough) >= scale)


def format_of(head: bytes) -> str | None:
    """Format of an image by its first `HEAD_BYTES`, as Pillow calls it; None for anything else."""
    found = _format_and_plugin(head)
    return found and found[0]


def heif_is_readable() -> bool:
    """Whether the library for HEIC images is installed, which is not among the dependencies."""
    return importlib.util.find_spec(HEIF_LIBRARY) is not None


def _format_and_plugin(head: bytes) -> tuple[str, str] | None:
    """Format of an image by its first bytes, and the module that reads it; None for anything else."""
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        return next(((kind, plugin) for names, kind, plugin in _BRANDED if names & brands), None)
    return next(((kind, plugin) for magic, kind, plugin in _MAGIC if magic.match(head)), None)


def _identify(stream: IO[bytes], name: str) -> Image.Image:
    """Open an image with the Pillow plugin that matches its first bytes."""
    head = stream.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{name} is empty (0 bytes).", "Copy it again or leave it out.")
    stream.seek(0)
    kind, plugin = _format_and_plugin(head) or ("", "")
    if not kind:
        raise _UnknownFormatError(
            f"{name} is not an image: its first bytes match no known format.", f"Expected {FORMATS}."
        )
    with contextlib.suppress(ImportError):
        importlib.import_module(plugin)
    if kind not in Image.OPEN:
        fix = HEIF_INSTALL if kind == HEIF else f"Save it as JPEG or PNG, or install a Pillow that reads {kind}."
        raise ImageError(f"{name} is a {'HEIC' if kind == HEIF else kind} image, which cannot be read here.", fix)
    try:
        # Not Image.open, whose own pixel limit warns or raises without naming the size.
        return Image.OPEN[kind][0](_without_long_text(stream) if kind == "PNG" else stream, "")
    except Exception as error:  # as above
        raise _damaged(name, error, stream, kind) from None


def _without_long_text(stream: IO[bytes]) -> IO[bytes]:
    """A PNG without its texts and color profiles that Pillow would refuse for their size; pixels do not need them.

    Limits on the unpacked size protect from decompression bombs, so such chunks are left out rather than unpacked.
    """
    left_out: list[tuple[int, int]] = []
    at, total = 8, 0
    while len(start := _read_at(stream, at, 8)) == 8:
        length, end = struct.unpack(">I", start[:4])[0], at + 12 + struct.unpack(">I", start[:4])[0]
        if start[4:] in _PNG_TEXT:
            size = _unpacked_size(start[4:], _read_at(stream, at + 8, length))
            total += min(size, _PNG_TEXT_BYTES)
            if size > _PNG_TEXT_BYTES or total > _PNG_TEXT_TOTAL:
                left_out.append((at, end))
        at = end
    stream.seek(0)
    if not left_out:
        return stream
    pieces, place = [], 0
    for begin, end in left_out:
        pieces.append(stream.read(begin - place))
        stream.seek(end)
        place = end
    return io.BytesIO(b"".join([*pieces, stream.read()]))


def _read_at(stream: IO[bytes], at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)


def _unpacked_size(kind: bytes, body: bytes) -> int:
    """Size of a PNG chunk of text or a profile in bytes, unpacked only as far as the limit."""
    keyword, _, rest = body.partition(b"\0")
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return len(body)
    packed = rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else rest[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, _PNG_TEXT_BYTES + 1)) + len(keyword)
    except zlib.error:
        return len(body)


def _damaged(name: str, error: Exception, stream: IO[bytes] | None = None, kind: str = "") -> ImageError:
    """The error for an image that cannot be decoded: of an unsupported kind, else damaged."""
    reason = (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
    channels = _tiff_channels(stream) if stream is not None and kind == "TIFF" else 0
    if channels > 4 or _UNSUPPORTED.search(reason):
        found = f"has {channels} channels" if channels > 4 else f"is of an unsupported kind ({reason})"
        return ImageError(f"{name} {found}.", "Save it as an RGB or grayscale image with 8 bits per channel.")
    logger.debug("%s: %s", name, reason)
    return ImageError(f"{name} is damaged or truncated, and cannot be decoded.", "Copy it again or leave it out.")


def _tiff_channels(stream: IO[bytes]) -> int:
    """Number of channels that a TIFF file declares; 0 where it cannot be read."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        stream.seek(0)
        head = stream.read(16)
        directory = ImageFileDirectory_v2(head if head[2:3] == b"+" or head[3:4] == b"+" else head[:8])
        stream.seek(directory.next)
        directory.load(stream)
        return int(directory.get(277, 1))
    except Exception:  # as in `_load`
        return 0


def _rgb(image: Image.Image, name: str) -> Pixels:
    """Convert a decoded image to RGB in bands of rows, so that a large image is in memory little more than once."""
    convert = _converter(image, name)
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    if rows >= height:
        return convert(image)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        below = min(top + rows, height)
        pixels[top:below] = convert(image.crop((0, top, width, below)))
    return pixels


def _converter(image: Image.Image, name: str) -> Callable[[Image.Image], Pixels]:
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
    (width, height), rows = image.size, max(1, BAND_PIXELS // image.width)
    low, high = np.inf, -np.inf
    for at in range(0, height, rows):
        values = np.asarray(image.crop((0, at, width, min(at + rows, height))))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
        if np.isnan(values.min()):
            return np.nan, np.nan
    return low, high


def _report_depth(name: str, high: int, white: int) -> None:
    """Log, once for each value of white, that an image uses fewer bits than its format has."""
    with _loading:
        if white in _reported_depths:
            return
        _reported_depths.add(white)
    bits = (white + 1).bit_length() - 1
    logger.warning(
        "%s has values up to %d in more than 8 bits, so it is read as %d bits (white is %d); so are others like it.",
        name, high, bits, white,
    )  # fmt: skip


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # an image with a damaged EXIF block is used as stored
        return 1


def _apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (EXIF 2.32, tag 0x0112)."""
    if orientation in _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _FLIPPED_ACROSS:
        pixels = pixels[:, ::-1]
    if orientation in _FLIPPED_DOWN:
        pixels = pixels[::-1]
    return pixels


def _resample(image: Pixels, width: int, height: int) -> Pixels:
    """Resample bicubically with antialiasing; larger images are first averaged to `_REDUCING_GAP` times the size."""
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return _resampled(Image.fromarray(np.ascontiguousarray(image)), width, height)


def _resampled(image: Image.Image, width: int, height: int) -> Pixels:
    """`_resample` of an RGB image of Pillow's."""
    if image.size == (width, height):
        return np.asarray(image)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP))
