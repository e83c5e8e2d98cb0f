"""Images are encoded without loss unless a quality is given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.images.render import PIXELATED_SIDE, data_uri, is_pixelated, png

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def decoded(uri: str) -> tuple[str, Image.Image]:
    """Media type and image of a data URI."""
    head, _, data = uri.partition(";base64,")
    return head.removeprefix("data:"), Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("optimize", [False, True])
def test_png_is_lossless(optimize: bool) -> None:
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(NOISE[:, ::-1], optimize=optimize)))), NOISE[:, ::-1])


@pytest.mark.parametrize(
    ("side", "quality", "kind", "size"),
    [
        (30, None, "image/png", (30, 20)),
        (128, None, "image/png", (60, 40)),
        (None, None, "image/png", (60, 40)),
        (30, 80, "image/jpeg", (30, 20)),
    ],
)
def test_data_uri(side: int | None, quality: int | None, kind: str, size: tuple[int, int]) -> None:
    found, image = decoded(data_uri(NOISE, side, quality))
    assert (found, image.size) == (kind, size)
    if kind == "image/png" and image.size == (60, 40):
        assert np.array_equal(np.asarray(image), NOISE)


def test_small_images_are_pixelated() -> None:
    assert is_pixelated(np.zeros((1, PIXELATED_SIDE, 3), np.uint8))
    assert not is_pixelated(np.zeros((PIXELATED_SIDE + 1, 1, 3), np.uint8))
