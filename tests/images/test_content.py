"""Content hashes do not depend on the name, the metadata or the requested size of an image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.content import as_text, from_text, hash_pixels, load_hashed
from thirtytwo.images.decode import decode, load_image
from thirtytwo.images.pixels import resize

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
LARGE = np.random.default_rng(1).integers(0, 256, (900, 700, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def content(source: bytes | Path, size: int = 16) -> int:
    return load_hashed(source, size)[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF", "TIFF"])
def test_size_rule_and_name_do_not_count(kind: str, tmp_path: Path) -> None:
    data = encoded(LARGE, kind)
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(data)
    found = {content(data), content(data, 200), content(tmp_path / "one"), content(tmp_path / "other", 9)}
    assert len(found) == 1
    assert load_hashed(data, 16, "pad")[1] in found
    assert content(encoded(LARGE[:, ::-1], kind)) not in found
    loaded, plain = load_hashed(data, 16)[0], load_image(data, 16)
    np.testing.assert_array_equal(loaded.pixels, plain.pixels)
    assert (loaded.width, loaded.height) == (plain.width, plain.height) == (700, 900)


def test_lossless_formats_of_the_same_pixels_are_one_image() -> None:
    found = {content(encoded(PIXELS, kind)) for kind in ("PNG", "BMP", "PPM", "TIFF")}
    found |= {content(encoded(PIXELS, "PNG", compress_level=0)), hash_pixels(PIXELS)}
    assert len(found) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_hashing_in_bands_changes_nothing(mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).integers(0, 256, (7, 5, 4), dtype=np.uint8)
    image = Image.fromarray(values[..., 0] / np.float32(255)) if mode == "F" else Image.fromarray(values).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode in ("CMYK", "F") else "PNG", exif=exif)
    data = buffer.getvalue()
    pixels = decode(data)
    for band in (2**19, 1, 10, 17):
        monkeypatch.setattr("thirtytwo.images.convert.BAND_PIXELS", band)
        loaded, found = load_hashed(data, 3, large=5)
        assert found == hash_pixels(pixels)
        np.testing.assert_array_equal(loaded.pixels, resize(pixels, 3))
        np.testing.assert_array_equal(loaded.large, resize(pixels, 5))
        assert (loaded.height, loaded.width) == pixels.shape[:2]


def test_hashes_are_those_of_earlier_versions() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert as_text(np.array([content(encoded(pixels, "PNG"), 4)], dtype=np.uint64)) == ["cf341dc6379f5ff6"]


def test_metadata_does_not_count() -> None:
    exif = Image.Exif()
    exif[0x010E] = "holidays"
    plain = encoded(PIXELS, "JPEG", quality=90)
    assert content(plain) == content(encoded(PIXELS, "JPEG", quality=90, exif=exif, comment=b"a note", dpi=(300, 300)))
    assert content(plain) != content(encoded(PIXELS, "JPEG", quality=80))
    assert content(encoded(PIXELS, "PNG")) == content(encoded(PIXELS, "PNG", exif=exif))
    assert content(plain) == content(encoded(PIXELS, "JPEG", quality=90, exif=exif, progressive=False))


def test_shapes_of_the_same_bytes_differ() -> None:
    assert hash_pixels(PIXELS) != hash_pixels(PIXELS.reshape(20, 24, 3))


@pytest.mark.parametrize("broken", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\x00", b"\x89PNG\r\n\x1a\n"])
def test_what_cannot_be_read_is_an_error_as_before(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(broken)
    for source in (broken, tmp_path / "broken.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(ImageError):
            load_hashed(source, 16)


def test_texts() -> None:
    hashes = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    assert as_text(hashes) == ["0" * 16, "0" * 15 + "1", "f" * 16]
    assert from_text(as_text(hashes)).tolist() == hashes.tolist()
    with pytest.raises(ValueError, match="invalid literal"):
        from_text(["no hash"])
