"""Formats are recognized by their first bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.content import load_hashed
from thirtytwo.images.decode import decode
from thirtytwo.images.formats import HEAD_BYTES, HEIF, format_of

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def mif1(data: bytes) -> bytes:
    """An AVIF whose major brand is `mif1`, with `avif` among the compatible brands."""
    size = int.from_bytes(data[:4], "big")
    assert b"avif" in data[16:size]
    return data[:8] + b"mif1" + data[12:]


def test_an_avif_is_recognized_by_its_compatible_brands():
    data = encoded(NOISE, "AVIF", quality=100)
    np.testing.assert_array_equal(decode(mif1(data)), decode(data))
    assert load_hashed(mif1(data), 32)[0].pixels.shape == (32, 32, 3)


def heic_head(*brands: bytes) -> bytes:
    major, *others = brands
    box = b"ftyp" + major + b"\0\0\0\0" + b"".join(others)
    return (len(box) + 4).to_bytes(4, "big") + box + b"\0" * 300


@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"msf1", b"hevc"), (b"heix",)])
def test_heic_is_named_with_the_install_line(brands, monkeypatch):
    monkeypatch.setitem(Image.OPEN, HEIF, None)
    del Image.OPEN[HEIF]
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif.HeifImagePlugin", None)
    with pytest.raises(ImageError) as caught:
        decode(heic_head(*brands))
    assert "HEIC" in caught.value.message
    assert "pip install pillow-heif" in (caught.value.fix or "")


def test_heic_is_read_where_the_library_is_installed():
    library = pytest.importorskip("pillow_heif")
    library.register_heif_opener()
    assert decode(encoded(NOISE, "HEIF")).shape == NOISE.shape


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(NOISE, "JPEG"), "JPEG"),
        (encoded(NOISE, "AVIF"), "AVIF"),
        (heic_head(b"heic", b"mif1"), "HEIF"),
        (heic_head(b"isom", b"mp42"), None),
        (b"not an image", None),
        (b"", None),
    ],
)
def test_format_of(data, expected):
    assert format_of(data[:HEAD_BYTES]) == expected
