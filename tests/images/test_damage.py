"""Warnings of decoders on images that are damaged beside their pixels."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from thirtytwo.images import damage
from thirtytwo.images.decode import decode, load_image

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_with_exif(tags: bytes) -> bytes:
    """`NOISE` as JPEG with the bytes of an EXIF block that announces more than it holds."""
    return encoded(NOISE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tags)


def tiff_with_two_planes() -> bytes:
    """`NOISE` as TIFF whose tag 284, a single number, announces two."""
    data = bytearray(encoded(NOISE, "TIFF"))
    at = data.index(b"\x1c\x01\x03\x00\x01\x00\x00\x00")
    data[at + 4] = 2
    return bytes(data)


def malformed_mpo() -> bytes:
    image, block = encoded(NOISE, "JPEG"), b"MPF\0II*\0\x08\0\0\0\x01\0\0\0"
    return image[:2] + b"\xff\xe2" + (len(block) + 2).to_bytes(2, "big") + block + image[2:]


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with_exif(b"\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
        jpeg_with_exif(b"\x02\0\x0f\x01\x02\0\xff\xff\0\0\xf0\xff\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        tiff_with_two_planes(),
        malformed_mpo(),
    ],
    ids=["EXIF cut short", "EXIF text too long", "TIFF tag", "MPO"],
)
def test_warnings_of_the_decoder_name_the_file_once(content, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(damage, "_reported_warnings", set())
    for name in ("first.img", "second.img"):
        (tmp_path / name).write_bytes(content)
    before = warnings.showwarning
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("always")
        for _ in range(2):
            for name in ("first.img", "second.img"):
                assert load_image(tmp_path / name, 32).pixels.shape == (32, 32, 3)
                assert decode(content).shape == (32, 32, 3)
    assert not raw
    assert warnings.showwarning is before
    assert caplog.messages
    assert all(message.startswith(str(tmp_path / "first.img")) and "\n" not in message for message in caplog.messages)
    assert len(caplog.messages) <= 2
    assert not any(words in message for message in caplog.messages for words in ("Skipping tag", "Expecting to read"))


def test_large_images_and_palettes_give_no_warning(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    palette = encoded(Image.fromarray(NOISE).quantize(4), "PNG", transparency=bytes([0, 128, 255, 255]))
    for content in (palette, encoded(Image.fromarray(NOISE).quantize(4), "GIF", transparency=1)):
        assert decode(content).shape == (32, 32, 3)
    assert not recwarn.list


def test_warnings_of_other_threads_are_left_alone():
    """While one thread decodes, another one's warnings are shown as usual."""
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        with damage.named_warnings("one.png"):
            other = threading.Thread(target=lambda: warnings.warn("of another thread", stacklevel=1))
            other.start()
            other.join()
    assert shown == ["of another thread"]
