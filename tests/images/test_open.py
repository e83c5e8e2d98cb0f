"""Files and bytes are opened: what is not an image, or is too large, is named."""

from __future__ import annotations

import io
import os
import socket

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.content import load_hashed
from thirtytwo.images.decode import decode, load_image
from thirtytwo.images.header import read_header, read_size

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def test_missing_files_and_folders_are_errors(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        decode(tmp_path)


def test_a_broken_link_is_named_with_its_target(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to("moved.png")
    with pytest.raises(ImageError, match=r"link\.png is a link to moved\.png, which does not exist"):
        load_image(link, 8)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_not_a_file_is_refused_instead_of_waited_for(kind, tmp_path, monkeypatch):
    place = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # its path must be short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("x.png")
    else:
        place.symlink_to("/dev/zero")
    for read in (decode, read_size, lambda one: load_hashed(one, 32)):
        with pytest.raises(ImageError, match=kind):
            read(place)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.png").write_bytes(encoded(NOISE, "PNG"))
    np.testing.assert_array_equal(decode("~/x.png"), NOISE)


def test_a_large_jpeg_is_decoded_at_a_smaller_scale(monkeypatch):
    monkeypatch.setattr("thirtytwo.images.open.MAX_PIXELS", 20_000)
    plain, progressive = (
        encoded(Image.new("RGB", (300, 220), "red"), "JPEG", progressive=one) for one in (False, True)
    )
    assert tuple(load_image(plain, 8).pixels[4, 4]) == (254, 0, 0)
    assert (load_image(plain, 8).width, read_size(plain), read_header(plain).width) == (300, (300, 220), 300)
    for refused in (progressive, encoded(Image.new("RGB", (300, 220)), "PNG")):
        with pytest.raises(ImageError) as caught:
            load_image(refused, 8)
        assert "THIRTYTWO_MAX_PIXELS=66000" in (caught.value.fix or "")
    with pytest.raises(ImageError):
        decode(plain)


def test_the_limit_on_pixels_can_be_raised(monkeypatch):
    monkeypatch.setattr("thirtytwo.images.open.MAX_PIXELS", 100)
    with pytest.raises(ImageError):
        decode(encoded(NOISE, "PNG"))
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "1024")
    np.testing.assert_array_equal(decode(encoded(NOISE, "PNG")), NOISE)
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "many")
    with pytest.raises(ImageError, match="THIRTYTWO_MAX_PIXELS"):
        decode(encoded(NOISE, "PNG"))


def test_bytes_that_are_no_image_are_called_bytes():
    with pytest.raises(ImageError, match="^The bytes are not an image") as caught:
        load_image(b"abc", 32)
    assert "The image" not in caught.value.message
    with pytest.raises(ImageError, match="^row 3 is not an image"):
        load_image(b"abc", 32, name="row 3")
