from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.decode import decode, load_image, load_preview, load_small
from thirtytwo.images.formats import heif_is_readable
from thirtytwo.images.jpeg import draft_scale
from thirtytwo.images.pixels import ResizeRule, resize

SHAPE = (6, 9, 3)


def noise_image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG with a given size in its header and no pixel data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
    ],
)
def test_lossless_formats_keep_every_pixel(kind, options, tmp_path):
    expected = noise_image()
    data = encoded(expected, kind, **options)
    file = tmp_path / "image"
    file.write_bytes(data)
    for source in (data, file, str(file)):
        found = decode(source)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_close(kind):
    smooth = np.asarray(Image.linear_gradient("L").resize((40, 30)).convert("RGB"))
    found = decode(encoded(smooth, kind)).astype(int)
    assert found.shape == (30, 40, 3)
    assert np.abs(found - smooth).mean() < 3


HASHED = "from thirtytwo.images.content import load_hashed as load"


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of memory")
@pytest.mark.parametrize("load", ["from thirtytwo.images.decode import load_image as load", HASHED])
@pytest.mark.parametrize(("mode", "most"), [("RGBA", 300), ("P", 150), ("I;16", 200), ("CMYK", 300)])
def test_the_largest_images_need_little_more_memory_than_their_size(mode, most, load, tmp_path):
    """49 megapixels are 196 MB in Pillow; converted at once they took 1,450 MB."""
    Image.new(mode, (7000, 7000)).save(tmp_path / "large.tif", compression="tiff_lzw")
    code = (
        f"import sys; {load}\n"
        "load(sys.argv[1], 32)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "large.tif"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) / 1e3 < most


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert tuple(decode(data)[0, 0]) == (255, 0, 0)


PNG = encoded(noise_image(shape=(40, 40, 3)))
JPEG = encoded(noise_image(shape=(40, 40, 3)), "JPEG")
WEBP = encoded(noise_image(shape=(40, 40, 3)), "WEBP", lossless=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not an image"),
        (b"\x00" * 100, "not an image"),
        (b"%PDF-1.7 " + b"x" * 50, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 50, "damaged" if heif_is_readable() else "HEIC"),
        (PNG[: len(PNG) // 2], "damaged or truncated"),
        (JPEG[: len(JPEG) // 2], "damaged or truncated"),
        (WEBP[: len(WEBP) // 2], "damaged or truncated"),
        (PNG[:20], "damaged or truncated"),
        (PNG[:60] + b"\xff" * 40 + PNG[100:], "damaged or truncated"),
        (JPEG[:3], "damaged or truncated"),
        (encoded(noise_image(shape=(1, 1, 3))), "1×1"),
        (encoded(noise_image(shape=(1, 50, 3))), "50×1"),
        (huge_png(20_000, 20_000), "20000×20000"),
        (huge_png(10_000, 10_000), "10000×10000"),
        (huge_png(50_001, 1_000), "50001×1000"),
        (encoded(Image.new("F", (4, 4), 300.0), "TIFF"), "300"),
    ],
)
def test_bad_files_are_named_with_the_reason(data, message, tmp_path):
    file = tmp_path / "holiday.jpg"
    file.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        decode(file)
    assert "holiday.jpg" in caught.value.message
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=message) as caught:
        decode(data, name="upload 3")
    assert "upload 3" in caught.value.message


def test_damaged_bytes_end_in_an_image_error_or_an_image():
    rng = random.Random(0)
    for data in (
        PNG,
        JPEG,
        WEBP,
        encoded(noise_image(), "GIF"),
        encoded(noise_image(), "TIFF"),
        encoded(noise_image(), "BMP"),
    ):
        for _ in range(40):
            broken = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            with contextlib.suppress(ImageError):
                assert decode(bytes(broken[: rng.randint(1, len(broken))])).shape[-1] == 3


def test_load_image_is_decode_then_resize():
    data = encoded(noise_image(shape=(50, 70, 3)))
    loaded = load_image(data, 16, "pad")
    np.testing.assert_array_equal(loaded.pixels, resize(decode(data), 16, "pad"))


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_of_the_right_size_keeps_its_pixels(mode: str, rule: ResizeRule, orientation: int) -> None:
    image = Image.fromarray(noise_image(shape=(24, 24, 3))).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif.tobytes())
    np.testing.assert_array_equal(load_image(data, 24, rule).pixels, decode(data))


def test_small_images_are_loaded_as_others_are() -> None:
    image = noise_image(shape=(20, 28, 3))
    for kind in ("PNG", "JPEG"):
        data = encoded(image, kind)
        found, expected = load_small(data, 16, "crop", "a", 20 * 28), load_image(data, 16, "crop", "a")
        assert found is not None
        assert (found.width, found.height) == (expected.width, expected.height) == (28, 20)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert load_small(data, 16, "crop", "a", 20 * 28 - 1) is None
    for kind in ("TIFF", "GIF", "WEBP", "BMP"):
        assert load_small(encoded(image, kind), 16, "crop", "a", 10_000) is None, kind
    with pytest.raises(ImageError, match=r"^a\.png is damaged or truncated"):
        load_small(encoded(image)[:-40], 16, "crop", "a.png", 10_000)


@pytest.mark.parametrize(
    ("shape", "orientation", "expected"),
    [
        ((600, 1200, 3), 1, (50, 100)),
        ((600, 1200, 3), 6, (100, 50)),
        ((40, 30, 3), 1, (40, 30)),
        ((3, 900, 3), 1, (1, 100)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_previews_are_whole_upright_and_never_enlarged(kind, shape, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.asarray(Image.fromarray(noise_image(shape=(2, 4, 3))).resize(shape[1::-1], Image.Resampling.BICUBIC))
    data = encoded(smooth, kind, exif=exif)
    preview, whole = load_preview(data, 100), decode(data)
    assert preview.dtype == np.uint8
    assert preview.shape == (*expected, 3)
    wanted = np.asarray(Image.fromarray(whole).resize(expected[::-1], Image.Resampling.BICUBIC))
    assert np.abs(preview.astype(int) - wanted.astype(int)).mean() < 3


def test_previews_of_damaged_files_are_errors():
    with pytest.raises(ImageError, match=r"cat\.jpg"):
        load_preview(encoded(noise_image(shape=(90, 90, 3)), "JPEG")[:900], 50, "cat.jpg")


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize(("shape", "orientation"), [((1200, 1600, 3), 1), ((900, 1400, 3), 6), ((257, 300, 3), 1)])
def test_large_jpegs_are_read_at_a_smaller_scale(shape, orientation, rule):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.asarray(Image.fromarray(noise_image(shape=(12, 16, 3))).resize(shape[1::-1], Image.Resampling.BICUBIC))
    data = encoded(smooth, "JPEG", quality=95, exif=exif)
    whole = decode(data)
    loaded = load_image(data, 32, rule)
    assert (loaded.height, loaded.width) == whole.shape[:2]
    difference = np.abs(loaded.pixels.astype(int) - resize(whole, 32, rule).astype(int))
    assert difference.mean() < 1.5


@pytest.mark.parametrize(("shape", "scale"), [((97, 131, 3), 2), ((283, 259, 3), 4), ((523, 601, 3), 8)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rule", ["crop", "squash"])
def test_a_smaller_scale_moves_nothing_where_sides_are_no_multiples(shape, scale, orientation, rule):
    height, width = shape[:2]
    assert draft_scale(width, height, 32) == scale
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.zeros(shape, dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None]
    ramp[..., 1] = np.linspace(255, 0, height)[:, None]
    data = encoded(ramp, "JPEG", quality=95, subsampling=0, exif=exif)
    difference = load_image(data, 32, rule).pixels.astype(int) - resize(decode(data), 32, rule).astype(int)
    assert np.abs(difference[4:-4, 4:-4, :2].mean(axis=(0, 1))).max() < 0.6


def test_a_larger_copy_is_the_image_loaded_at_that_size():
    data = encoded(noise_image(shape=(200, 320, 3)), "JPEG")
    assert (draft_scale(320, 200, 32), draft_scale(320, 200, 60)) == (2, 2)
    assert draft_scale(320, 200, 90) == 1
    for large in (60, 90):
        loaded = load_image(data, 32, large=large)
        np.testing.assert_array_equal(loaded.pixels, load_image(data, 32).pixels)
        np.testing.assert_array_equal(loaded.large, load_image(data, large).pixels)
        assert (loaded.width, loaded.height) == (320, 200)


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(60, 90), (61, 33), (24, 24)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_resized_as_its_pixels_are(rule: ResizeRule, shape: tuple[int, int], orientation: int) -> None:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", exif=exif)
    loaded = load_image(stream.getvalue(), 24, rule)
    pixels = decode(stream.getvalue())
    np.testing.assert_array_equal(loaded.pixels, resize(pixels, 24, rule))
    assert (loaded.height, loaded.width) == pixels.shape[:2]
