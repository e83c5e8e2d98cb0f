from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageOps

from thirtytwo.config.recipe import DataSettings
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.decode import (
    RESIZE_RULES,
    ResizeRule,
    decode,
    heif_is_readable,
    load_image,
    load_preview,
    read_header,
    read_size,
    resize,
)
from thirtytwo.inference.model_file import ModelInfo

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
        monkeypatch.setattr("thirtytwo.images.decode.BAND_PIXELS", band)
        np.testing.assert_array_equal(decode(data), whole)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_as_pillow_does(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(noise_image(), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data), expected)


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


def test_missing_files_and_folders_are_errors(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        decode(tmp_path)


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


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
def test_resize_returns_images_of_the_right_size_unchanged(rule):
    image = noise_image(shape=(32, 32, 3))
    assert resize(image, 32, rule) is image


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(32, 32), (100, 40), (40, 100), (8, 8), (3, 500), (33, 32), (2000, 1500)])
def test_resize_always_gives_a_square(rule, shape):
    for value in (0, 200):
        image = np.full((*shape, 3), value, dtype=np.uint8)
        found = resize(image, 32, rule)
        assert found.shape == (32, 32, 3)
        assert found.dtype == np.uint8
        assert found[15:17].max() == value


def test_crop_takes_the_centre_and_pad_keeps_everything():
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    image[:, 16:48] = 100
    image[:, :16] = 255
    np.testing.assert_array_equal(resize(image, 32, "crop"), np.full((32, 32, 3), 100, dtype=np.uint8))
    padded = resize(image, 32, "pad")
    assert (padded[:8] == 0).all()
    assert (padded[24:] == 0).all()
    assert (padded[8:24, 0] > 240).all()


def test_shrinking_averages_rather_than_picks():
    checks = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    found = resize(np.repeat(checks[:, :, None], 3, 2), 32, "squash")
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_read_size_needs_the_header_only():
    assert read_size(PNG[:60]) == (40, 40)
    assert read_size(encoded(noise_image())) == (9, 6)
    with pytest.raises(ImageError, match="20000"):
        read_size(huge_png(20_000, 20_000))


def test_recipes_and_model_files_know_the_same_rules():
    assert get_args(DataSettings.model_fields["resize"].annotation) == RESIZE_RULES
    assert get_args(ModelInfo.model_fields["resize"].annotation) == RESIZE_RULES


def test_unknown_rule_is_an_error():
    with pytest.raises(DataError, match="stretch"):
        resize(noise_image(), 32, "stretch")


def test_load_image_is_decode_then_resize():
    data = encoded(noise_image(shape=(50, 70, 3)))
    loaded = load_image(data, 16, "pad")
    np.testing.assert_array_equal(loaded.pixels, resize(decode(data), 16, "pad"))


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


def large(mode: str, format: str, side: int = 3000, **options) -> bytes:
    """A file of noise in blocks, which is written quickly and which no decoder can shortcut."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}
    if mode in channels:
        blocks = np.random.default_rng(0).integers(0, 256, (side // 50, side // 50, channels[mode]), dtype=np.uint8)
        pixels = blocks.repeat(50, axis=0).repeat(50, axis=1)
        image = Image.fromarray(pixels.squeeze(), mode)
    else:
        kind = np.uint16 if mode == "I;16" else np.float32
        image = Image.fromarray((np.arange(side * side).reshape(side, side) % 200 / 200).astype(kind))
    return encoded(image, format, **options)


def several_scans(data: bytes) -> bytes:
    """A baseline JPEG whose first scan lacks components of the frame, as with one scan per component."""
    at = data.index(b"\xff\xda")
    return data[: at + 4] + b"\1" + data[at + 5 :]


PEAK = """
import sys
from thirtytwo.images.decode import load_image
load_image(open(sys.argv[1], "rb").read(), 16)  # imports the plugin
def most(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
data = open(sys.argv[2], "rb").read()
before = most()
load_image(data, int(sys.argv[3]))
print((most() - before) * 1024)
"""
JPEGS = {
    "baseline JPEG": ("RGB", "JPEG", {}),
    "progressive JPEG": ("RGB", "JPEG", {"progressive": True}),
    "progressive JPEG, full colour": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "progressive CMYK JPEG": ("CMYK", "JPEG", {"progressive": True}),
}
OTHERS = {
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "transparent PNG": ("RGBA", "PNG", {"compress_level": 1}),
    "PNG of 16 bits": ("I;16", "PNG", {"compress_level": 1}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "lossless transparent WebP": ("RGBA", "WEBP", {"lossless": True, "method": 0, "quality": 0}),
    "TIFF": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "TIFF of one strip": ("RGB", "TIFF", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 3000}}),
    "TIFF of fractions": ("F", "TIFF", {}),
    "CMYK TIFF": ("CMYK", "TIFF", {"compression": "tiff_lzw"}),
    "GIF": ("L", "GIF", {}),
    "BMP": ("RGB", "BMP", {}),
}


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' account of memory")
@pytest.mark.parametrize(("case", "size"), [*((case, 16) for case in JPEGS | OTHERS), ("progressive JPEG", 200)])
def test_memory_is_known_before_decoding(case, size, tmp_path):
    mode, format, options = (JPEGS | OTHERS)[case]
    data = large(mode, format, **options)
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "small").write_bytes(encoded(Image.new("RGB", (8, 8)), format))
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large"), str(size)]
    measured = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    estimated = read_header(data).memory(size)
    slack = 8 << 20
    assert measured - slack < estimated < 2 * measured + 3 * slack, f"{measured:,} measured"


def test_only_a_jpeg_that_is_decoded_row_by_row_costs_less_for_a_smaller_scale():
    def cost(data: bytes) -> int:
        return read_header(data).memory(32)

    plain = large("RGB", "JPEG", 2000)
    whole = cost(large("RGB", "PNG", 2000))
    assert cost(plain) < whole / 3
    assert cost(large("RGB", "JPEG", 2000, progressive=True, subsampling=0)) > whole / 3
    assert cost(several_scans(plain)) > 2 * cost(plain), "decoders keep the coefficients of all pixels here too"
    assert read_header(plain).memory() >= 7 * 2000 * 2000, "without a size it is decoded whole"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "1", "F"])
def test_an_image_is_resized_in_parts_as_its_pixels_are(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(len(mode))
    for _ in range(6):
        height, width = (int(side) for side in random.integers(2, 400, 2))
        if mode in ("I;16", "F"):
            values = random.integers(0, 2, (height, width))
            image = Image.fromarray(values.astype(np.uint16) * 60_000 if mode == "I;16" else values.astype(np.float32))
        else:
            image = Image.fromarray(random.integers(0, 256, (height, width, 4), dtype=np.uint8)).convert(mode)
        exif = Image.Exif()
        exif[0x0112] = int(random.integers(1, 9))
        data = encoded(image, "TIFF" if mode in ("CMYK", "F") else "PNG", exif=exif)
        rule: ResizeRule = random.choice(["crop", "pad", "squash"])
        monkeypatch.setattr("thirtytwo.images.decode.BAND_PIXELS", int(random.choice([500, 5000])))
        loaded, pixels = load_image(data, 16, rule, large=33), decode(data)
        assert loaded.large is not None
        np.testing.assert_array_equal(loaded.pixels, resize(pixels, 16, rule))
        np.testing.assert_array_equal(loaded.large, resize(pixels, 33, rule))
        assert (loaded.height, loaded.width) == pixels.shape[:2]


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(120, 160), (61, 33), (24, 24)])
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


def test_a_broken_link_is_named_with_its_target(tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to("moved.png")
    with pytest.raises(ImageError, match=r"link\.png is a link to moved\.png, which does not exist"):
        load_image(link, 8)
