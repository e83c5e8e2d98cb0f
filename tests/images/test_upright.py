from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.images.decode import decode, load_image
from thirtytwo.images.pixels import ResizeRule, resize


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


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
        monkeypatch.setattr("thirtytwo.images.convert.BAND_PIXELS", int(random.choice([500, 5000])))
        loaded, pixels = load_image(data, 16, rule, large=33), decode(data)
        assert loaded.large is not None
        np.testing.assert_array_equal(loaded.pixels, resize(pixels, 16, rule))
        np.testing.assert_array_equal(loaded.large, resize(pixels, 33, rule))
        assert (loaded.height, loaded.width) == pixels.shape[:2]
