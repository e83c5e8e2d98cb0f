"""PNG files without the texts and color profiles for which Pillow refuses them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import IO

# Chunks of a PNG with text or a color profile; Pillow refuses the whole file where one unpacks to more than this.
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_TEXT_BYTES = 2**20
_TOTAL_BYTES = 32 * 2**20


def without_long_text(stream: IO[bytes]) -> IO[bytes]:
    """A PNG without its texts and color profiles that Pillow would refuse for their size; pixels do not need them.

    Limits on the unpacked size protect from decompression bombs, so such chunks are left out rather than unpacked.
    """
    left_out: list[tuple[int, int]] = []
    at, total = 8, 0
    while len(start := _read_at(stream, at, 8)) == 8:
        length, end = struct.unpack(">I", start[:4])[0], at + 12 + struct.unpack(">I", start[:4])[0]
        if start[4:] in _TEXT:
            size = _unpacked_size(start[4:], _read_at(stream, at + 8, length))
            total += min(size, _TEXT_BYTES)
            if size > _TEXT_BYTES or total > _TOTAL_BYTES:
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
        return len(zlib.decompressobj().decompress(packed, _TEXT_BYTES + 1)) + len(keyword)
    except zlib.error:
        return len(body)
