"""TIFF files of unsupported kinds, and messages of libtiff."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.decode import decode, load_image

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def many_band_tiff(bands: int) -> bytes:
    """A TIFF with this many channels of 8 bits."""
    body = b"\x07" * (4 * 4 * bands)
    bits = np.full(bands, 8, dtype="<u2").tobytes()
    data_at, bits_at = 8, 8 + len(body)
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, bands, bits_at), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, data_at), (277, 3, 1, bands), (278, 3, 1, 4), (279, 4, 1, len(body)),
    ]  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    start = bits_at + len(bits)
    return b"II*\0" + start.to_bytes(4, "little") + body + bits + directory + b"\0\0\0\0"


@pytest.mark.parametrize("bands", [6, 13])
def test_too_many_channels_are_named_without_advice_to_delete(bands):
    with pytest.raises(ImageError) as caught:
        decode(many_band_tiff(bands))
    assert f"{bands} channels" in caught.value.message
    assert "elete" not in str(caught.value)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_libtiff_does_not_write_to_stderr(compression, capfd, tmp_path):
    data = bytearray(encoded(NOISE, "TIFF", compression=compression))
    data[200:260] = b"\xff" * 60
    (tmp_path / "x.tif").write_bytes(data)
    for read in (decode, lambda file: load_image(Image.open(file), 8)):
        with pytest.raises(ImageError):
            read(tmp_path / "x.tif")
    assert capfd.readouterr().err == ""
