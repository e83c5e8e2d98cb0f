"""What the header of an image file states: size, memory that decoding needs, and metadata; nothing is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from thirtytwo.images.convert import BAND_PIXELS
from thirtytwo.images.formats import HEIF
from thirtytwo.images.jpeg import coefficient_bytes, draft_scale
from thirtytwo.images.open import open_image, with_stream
from thirtytwo.images.orientation import SIDEWAYS, orientation_of
from thirtytwo.images.pixels import REDUCING_GAP
from thirtytwo.images.tiff import strip_bytes

# Bytes per pixel, measured as peak memory of a process: Pillow's image by mode, the decoder's buffers by format.
_CORE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_CORE_DEFAULT = 4
_EXTRA = {"WEBP": 12.25, "AVIF": 11.0, HEIF: 11.0, "GIF": 2.0, "BMP": 2.0, "PPM": 4.0}
_RGB, _BAND_BYTES = 3, 32


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
        its decoder does not keep the coefficients of all pixels (see `coefficient_bytes`).
        """
        pixels = self.width * self.height
        scale = draft_scale(self.width, self.height, size) if size and self.format == "JPEG" else 1
        shown = pixels / scale**2
        decoding = self.extra * pixels + self.core * shown
        after = (self.core if size else self.core + _RGB) * shown
        band = max(BAND_PIXELS, (REDUCING_GAP * (size or 0)) ** 2)
        return round(max(decoding, after) + _BAND_BYTES * min(shown, band))


def read_size(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """Read width and height from the file header, before EXIF orientation; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return with_stream(lambda stream, label: open_image(stream, label, 1).size, source, name)


def read_header(source: str | Path | bytes, name: str | None = None) -> Header:
    """Read format, size and memory needs from the file header; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return with_stream(_header, source, name)


def _header(stream: IO[bytes], name: str) -> Header:
    image = open_image(stream, name, 1)
    kind = image.format or ""
    width, height = image.size
    if kind in ("JPEG", "MPO"):
        stream.seek(0)
        extra = coefficient_bytes(stream.read())
    elif kind in ("BMP", "PPM", "TIFF") and {tile[0] for tile in getattr(image, "tile", ())} == {"raw"}:
        extra = 0.0  # read row by row
    elif kind == "TIFF":
        extra = strip_bytes(image)
    else:
        extra = _EXTRA.get(kind, 0.0)
    core = _CORE.get(image.mode, _CORE_DEFAULT)
    return Header("JPEG" if kind == "MPO" else kind, width, height, core, extra)


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
        return (self.height, self.width) if self.orientation in SIDEWAYS else (self.width, self.height)


def read_facts(source: str | Path | bytes, name: str | None = None) -> FileFacts:
    """Read what a file states about its image; nothing is decoded.

    Raises:
        ImageError: as `decode`, for problems visible in the header.
    """
    return with_stream(_facts, source, name)


def _facts(stream: IO[bytes], name: str) -> FileFacts:
    image = open_image(stream, name, 1)
    kind, info = image.format or "", image.info
    has_exif = bool(info.get("exif"))
    tables = getattr(image, "quantization", None) or {}
    return FileFacts(
        format="JPEG" if kind == "MPO" else kind,
        mode=image.mode,
        transparent="A" in image.getbands() or "a" in image.getbands() or "transparency" in info,
        # Pillow decodes a PNG to look for EXIF behind its pixels
        orientation=orientation_of(image) if has_exif or kind != "PNG" else 1,
        width=image.width,
        height=image.height,
        bytes=stream.seek(0, io.SEEK_END),
        exif=has_exif,
        profile="icc_profile" in info,
        progressive=bool(info.get("progressive")),
        quantization=float(np.mean(next(iter(tables.values())))) if tables else 0.0,
    )
