"""Content hashes identify images independently of file names.

The hash does not depend on the requested size or the version of a decoder, and stays the same when a file is renamed,
moved or its metadata is edited. Lossless formats are hashed by their decoded pixels, so that a PNG and a BMP with the
same pixels are equal. JPEG, WebP, AVIF and HEIC, whose decoded pixels may differ slightly between decoder versions, are
hashed by their compressed data, JPEG without its metadata. Images that were re-encoded, cropped or resized have other
hashes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.images.decode import Loaded, load_image
from thirtytwo.images.pixels import Pixels, ResizeRule

Hashes: TypeAlias = npt.NDArray[np.uint64]
"""One 64-bit hash per image, uint64 `(N,)`."""

_JPEG = b"\xff\xd8\xff"
_LOSSY = re.compile(rb"\xff\xd8\xff|RIFF....WEBP|....ftyp", re.DOTALL)
_HEAD = 12
_ADOBE, _COMMENT, _SCAN = 0xEE, 0xFE, 0xDA


def load_hashed(
    source: str | Path | bytes, size: int, rule: ResizeRule = "crop", name: str | None = None, large: int = 0
) -> tuple[Loaded, int]:
    """Load an image as `decode.load_image` does, and return it with its content hash; raises as `load_image` does.

    Pixels of a lossless format are hashed in bands, so that the image is never in memory as RGB as a whole.
    """
    data = _encoded(source) if _LOSSY.match(_encoded(source, _HEAD)) else None
    if data is not None:
        return load_image(source, size, rule, name, large), hash_bytes(_without_metadata(data))
    found: list[int] = []

    def inspect(width: int, height: int, bands: Iterator[Pixels]) -> None:
        found.append(_hash_rows(width, height, bands))

    loaded = load_image(source, size, rule, name, large, inspect)
    return loaded, found[0]


def hash_pixels(pixels: Pixels) -> int:
    """Hash of an image by its pixels, uint8 `(H, W, 3)`."""
    return _hash_rows(pixels.shape[1], pixels.shape[0], [pixels])


def _hash_rows(width: int, height: int, bands: Iterable[Pixels]) -> int:
    """`hash_pixels` of an image of this width and height in bands of rows."""
    return _hash(chain([f"{height}x{width} ".encode()], (np.ascontiguousarray(band).data for band in bands)))


def hash_bytes(*pieces: bytes | memoryview) -> int:
    """64-bit BLAKE2b hash of the concatenated pieces."""
    return _hash(pieces)


def _hash(pieces: Iterable[bytes | memoryview]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        digest.update(piece)
    return int.from_bytes(digest.digest(), "big")


def as_text(hashes: Hashes) -> list[str]:
    """Hashes as 16 hexadecimal digits each."""
    return [f"{one:016x}" for one in hashes.tolist()]


def from_text(texts: Iterable[str]) -> Hashes:
    """Parse what `as_text` returned; a ValueError for anything else."""
    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


def _encoded(source: str | Path | bytes, most: int = -1) -> bytes:
    """The first `most` bytes of a file, or all of them; empty where it cannot be read, which decoding reports."""
    if isinstance(source, bytes):
        return source if most < 0 else source[:most]
    try:
        if not Path(source).is_file():  # opening a named pipe would wait for a writer
            return b""
        with Path(source).open("rb") as stream:
            return stream.read(most)
    except OSError:
        return b""


def _without_metadata(data: bytes) -> bytes:
    """A JPEG without comments and application segments, except Adobe's (the color transform); other data unchanged."""
    if not data.startswith(_JPEG):
        return data
    kept, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != _SCAN:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker != _COMMENT and not (0xE0 <= marker <= 0xEF and marker != _ADOBE):
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
