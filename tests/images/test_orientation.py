from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from thirtytwo.images.decode import decode
from thirtytwo.images.orientation import orientation_of

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_as_pillow_does(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(NOISE, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize(("stated", "expected"), [(0, 1), (1, 1), (6, 6), (8, 8), (9, 1)])
def test_an_orientation_that_does_not_exist_is_upright(stated: int, expected: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = stated
    with Image.open(io.BytesIO(encoded(NOISE, "PNG", exif=exif))) as image:
        assert orientation_of(image) == expected
