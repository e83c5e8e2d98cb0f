"""Modes of images become RGB; values of more than 8 bits are scaled by what a file holds."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images import convert
from thirtytwo.images.decode import decode


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def _grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 4), value, dtype=np.uint16))


def _palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (Image.new("L", (4, 4), 77), "PNG", {}, (77, 77, 77)),
        (Image.new("1", (4, 4), 1), "PNG", {}, (255, 255, 255)),
        (_palette(), "PNG", {}, (10, 200, 30)),
        (_palette(), "GIF", {}, (10, 200, 30)),
        (_palette(), "PNG", {"transparency": 1}, (255, 255, 255)),
        (_palette(), "PNG", {"transparency": bytes([0, 0])}, (255, 255, 255)),
        (Image.new("L", (4, 4), 7), "PNG", {"transparency": 7}, (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG", {}, (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), "PNG", {}, (255, 0, 0)),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 51)), "PNG", {}, (204, 204, 204)),
        (Image.new("LA", (4, 4), (0, 51)), "PNG", {}, (204, 204, 204)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", {}, (255, 0, 0)),
        (_grey16(65535), "PNG", {}, (255, 255, 255)),
        (_grey16(32896), "PNG", {}, (128, 128, 128)),
        (_grey16(5140), "TIFF", {}, (20, 20, 20)),
        (_grey16(0), "TIFF", {}, (0, 0, 0)),
        (Image.new("F", (4, 4), 0.5), "TIFF", {}, (128, 128, 128)),
        (Image.new("I", (4, 4), 65535), "TIFF", {}, (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(image, kind, options, expected):
    found = decode(encoded(image, kind, **options))
    assert found.shape == (4, 4, 3)
    assert tuple(found[2, 1]) == expected


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16"])
def test_converting_in_bands_changes_nothing(mode, monkeypatch):
    values = np.random.default_rng(1).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    data = encoded(image, "TIFF" if mode in ("CMYK", "LA") else "PNG", **({"transparency": 3} if mode == "P" else {}))
    whole = decode(data)
    for band in (1, 10, 17):  # one row, two, three
        monkeypatch.setattr("thirtytwo.images.convert.BAND_PIXELS", band)
        np.testing.assert_array_equal(decode(data), whole)


RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def twelve_bit_tiff() -> bytes:
    """A TIFF of 12 bits per sample, two samples in three bytes."""
    values = np.rint(RAMP * 4095).astype(np.uint16).reshape(-1, 2)
    first, second = values[:, 0], values[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
    entries = [
        (256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 32), (279, 4, 1, len(packed)),
    ]  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    return b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + directory + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (encoded(Image.fromarray(np.rint(RAMP * 255).astype(np.int32)), "TIFF"), "8 bits"),
        (encoded(Image.fromarray(np.rint(RAMP * 4095).astype(np.int32)), "TIFF"), "12 bits"),
        (encoded(Image.fromarray(np.rint(RAMP * 65535).astype(np.int32)), "TIFF"), ""),
        (encoded(np.rint(RAMP * 4095).astype(np.uint16), "PNG"), "12 bits"),
        (encoded(np.rint(RAMP * 255).astype(np.uint16), "PNG"), "8 bits"),
        (encoded(np.rint(RAMP * 65535).astype(np.uint16), "PNG"), ""),
        (encoded(RAMP.astype(np.float32), "TIFF"), ""),
        (twelve_bit_tiff(), ""),
    ],
    ids=["int32 8", "int32 12", "int32 16", "png 12", "png 8", "png 16", "float", "tiff 12"],
)
def test_more_than_8_bits_are_scaled_by_what_the_file_holds_and_it_is_reported_once(data, reported, caplog):
    convert._reported_depths.clear()
    for _ in range(2):
        found = decode(data, "x.tif")
        assert np.abs(found[..., 0].astype(int) - np.rint(RAMP * 255)).max() <= 1
    assert [reported in message for message in caplog.messages] == ([True] if reported else [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_values_that_are_not_in_range_are_named(bad):
    values = RAMP.astype(np.float32)
    values[3, 4] = bad
    with pytest.raises(ImageError) as caught:
        decode(encoded(values, "TIFF"), "x.tif")
    assert "nan to" not in str(caught.value)
    assert ("NaN" in str(caught.value)) == bool(np.isnan(bad))
