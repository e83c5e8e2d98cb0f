"""Sizes and the memory that decoding needs are known from the header."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import ImageError
from thirtytwo.images.header import read_header, read_size


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def test_read_size_needs_the_header_only():
    assert read_size(encoded(Image.effect_noise((40, 40), 50))[:60]) == (40, 40)
    assert read_size(encoded(Image.new("RGB", (9, 6)))) == (9, 6)
    with pytest.raises(ImageError, match="20000"):
        read_size(b"P6 20000 20000 255\n")


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
