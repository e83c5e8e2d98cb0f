"""What an image is, whatever its file is called: a hash of its content, by which it is found again.

The hash does not depend on how large the image is wanted nor on the version of a decoder, and survives a new name, a
new place and edited metadata. Lossless formats are hashed by their decoded pixels, so that a PNG and a BMP of the same
pixels are one image. JPEG, WebP and AVIF, which other versions of a decoder may turn into slightly other pixels, are
hashed by their compressed data, JPEG without its metadata. Copies that were encoded anew, cropped or resized are other
images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.images.decode import Loaded, Pixels, ResizeRule, decode, load_image, resize

Hashes: TypeAlias = npt.NDArray[np.uint64]
"""One hash of 64 bits an image, `(N,)`."""

_JPEG = b"\xff\xd8\xff"
_LOSSY = re.compile(rb"\xff\xd8\xff|RIFF....WEBP|....ftypavi[fs]", re.DOTALL)
_HEAD = 12
_ADOBE, _COMMENT, _SCAN = 0xEE, 0xFE, 0xDA


def load_hashed(
    source: str | Path | bytes, size: int, rule: ResizeRule = "crop", name: str | None = None
) -> tuple[Loaded, int]:
    """What `decode.load_image` gives, and the hash of the content; raises as that does."""
    data = _encoded(source) if _LOSSY.match(_encoded(source, _HEAD)) else None
    if data is not None:
        return load_image(source, size, rule, name), hash_bytes(_without_metadata(data))
    pixels = decode(source, name)
    height, width = pixels.shape[:2]
    return Loaded(resize(pixels, size, rule), width, height), hash_pixels(pixels)


def hash_pixels(pixels: Pixels) -> int:
    """The hash of an image by its pixels uint8 `(H, W, 3)`."""
    return hash_bytes(f"{pixels.shape[0]}x{pixels.shape[1]} ".encode(), np.ascontiguousarray(pixels).data)


def hash_bytes(*pieces: bytes | memoryview) -> int:
    """A hash of 64 bits."""
    found = hashlib.blake2b(digest_size=8)
    for piece in pieces:
        found.update(piece)
    return int.from_bytes(found.digest(), "big")


def as_text(hashes: Hashes) -> list[str]:
    """Hashes as 16 hexadecimal digits each."""
    return [f"{one:016x}" for one in hashes.tolist()]


def from_text(texts: Iterable[str]) -> Hashes:
    """What `as_text` wrote; a ValueError for anything else."""
    return np.array([int(text, 16) for text in texts], dtype=np.uint64)


def _encoded(source: str | Path | bytes, most: int = -1) -> bytes:
    """The first bytes of a file, or all of them; none where it cannot be read, which decoding reports."""
    if isinstance(source, bytes):
        return source if most < 0 else source[:most]
    try:
        with Path(source).open("rb") as stream:
            return stream.read(most)
    except OSError:
        return b""


def _without_metadata(data: bytes) -> bytes:
    """A JPEG without comments and application segments but Adobe's, which says how colors are meant; else `data`."""
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
