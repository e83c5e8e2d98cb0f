"""Sound PNG files that Pillow refuses for their long texts or profiles."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from thirtytwo.images.content import load_hashed
from thirtytwo.images.decode import decode

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
LONG = 2_000_000


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(*chunks: tuple[bytes, bytes], last: bool = False) -> bytes:
    """`NOISE` as PNG with these chunks, before the pixels or after them."""
    image = encoded(NOISE, "PNG")
    at = image.index(b"IEND" if last else b"IDAT") - 4
    added = b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    return image[:at] + added + image[at:]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"Comment\0" + b"a" * LONG)],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * LONG))],
        [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * LONG))],
        [(b"iTXt", b"Comment\0\0\0\0\0" + b"a" * LONG)],
        [(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * LONG))],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 1_000_000))] * 70,
    ],
    ids=["text", "packed text", "packed international text", "international text", "profile", "many"],
)
def test_long_texts_and_profiles_of_a_png_do_not_matter(chunks, last):
    np.testing.assert_array_equal(decode(png_with(*chunks, last=last)), NOISE)
    assert load_hashed(png_with(*chunks, last=last), 32)[1] == load_hashed(encoded(NOISE, "PNG"), 32)[1]


def test_short_texts_are_kept_since_they_may_hold_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n" + f"{len(exif.tobytes()):8}\n" + exif.tobytes().hex(), zip=True)
    tall = NOISE[:, :20]
    assert decode(encoded(tall, "PNG", pnginfo=info)).shape == (20, 32, 3)
