"""Formats of image files that are read, recognized by their first bytes."""

from __future__ import annotations

import importlib.util
import re

FORMATS = "JPEG, PNG, WebP, HEIC, AVIF, GIF, BMP, TIFF or PPM"
"""Every format that is read, for messages; HEIC needs a library that not every installation has."""
HEAD_BYTES = 256
"""Number of first bytes by which a format is recognized."""
HEIF = "HEIF"
HEIF_LIBRARY = "pillow_heif"
HEIF_INSTALL = "Install the library that reads it: pip install pillow-heif. Or save it as JPEG or PNG."
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
_BRANDED: tuple[tuple[frozenset[bytes], str, str], ...] = (
    (frozenset({b"avif", b"avis"}), "AVIF", "PIL.AvifImagePlugin"),
    (
        frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}),
        HEIF,
        "pillow_heif.HeifImagePlugin",
    ),
)


def format_of(head: bytes) -> str | None:
    """Format of an image by its first `HEAD_BYTES`, as Pillow calls it; None for anything else."""
    found = format_and_plugin(head)
    return found and found[0]


def heif_is_readable() -> bool:
    """Whether the library for HEIC images is installed, which is not among the dependencies."""
    return importlib.util.find_spec(HEIF_LIBRARY) is not None


def format_and_plugin(head: bytes) -> tuple[str, str] | None:
    """Format of an image by its first bytes, and the module that reads it; None for anything else."""
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        return next(((kind, plugin) for names, kind, plugin in _BRANDED if names & brands), None)
    return next(((kind, plugin) for magic, kind, plugin in _MAGIC if magic.match(head)), None)
