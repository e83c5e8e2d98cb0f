"""Images are encoded without loss unless a quality is given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.images import fonts
from thirtytwo.images.render import PIXELATED_SIDE, Entry, contact_sheet, data_uri, is_pixelated, labeled_rows, png

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


LONG = [f"{'a class of mushrooms, as botanists name them, the ' * 2}{end} kind" for end in ("first", "other")]


def test_long_names_stay_distinguishable_on_sheets() -> None:
    tile = np.zeros((8, 8, 3), dtype=np.uint8)
    rows = np.asarray(labeled_rows(LONG, [[tile]] * 2, 40, 1))
    assert (rows[4:44, :140] != rows[48:88, :140]).any()
    page = contact_sheet([Entry(tile, tile, (name,)) for name in LONG])
    half = (page.shape[1] - 12) // 2
    assert (page[-30:, 12:half] != page[-30:, 12 + half : 2 * half]).any()


@pytest.mark.parametrize("names", [["кошка", "собак"], ["größe", "größa"], ["قطة", "كلب"]])
def test_sheets_use_a_font_that_has_the_letters(names: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A font without the letters draws the same box for each of them."""
    tile = np.zeros((8, 8, 3), dtype=np.uint8)
    rows = np.asarray(labeled_rows(names, [[tile]] * 2, 40, 1))
    assert (rows[4:44, :140] != rows[48:88, :140]).any()
    assert not caplog.text


def test_sheets_name_missing_letters_and_a_package(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_installed", list)
    tile = np.zeros((8, 8, 3), dtype=np.uint8)
    labeled_rows(["猫"], [[tile]], 40, 1)
    assert "fonts-noto-cjk" in caplog.text
    caplog.clear()
    contact_sheet([Entry(tile, tile, ("猫",))])
    assert "fonts-noto-cjk" in caplog.text
