"""Overlays: colormap, sizes, and the alignment of heatmaps with the original image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from thirtytwo.explain.overlay import colormap, enlarged_heat, map_to_original, overlay
from thirtytwo.images.pixels import RESIZE_RULES, ResizeRule, resize
from thirtytwo.images.render import CELL, Entry, contact_sheet, for_display

GRAY = np.full((6, 8, 3), 100, dtype=np.uint8)


def test_colormap_is_matplotlibs() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    heat = np.linspace(0, 1, 101, dtype=np.float32)
    expected = matplotlib.colormaps["inferno"](heat)[:, :3] * 255
    assert np.abs(colormap(heat) - expected).max() < 8, "of 255"
    lightness = colormap(heat) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all(), "hotter is lighter"


def test_overlay_blends_image_and_colormap() -> None:
    heat = np.zeros((6, 8), dtype=np.float32)
    heat[:, 4:] = 1.0
    drawn = overlay(GRAY, heat, strength=0.6)
    assert (drawn.dtype, drawn.shape) == (np.dtype(np.uint8), (6, 8, 3))
    assert drawn[0, 0].tolist() == [40, 40, 42], "0.4 of 100 and 0.6 of (0, 0, 4)"
    assert drawn[0, 7].tolist() == [191, 193, 138], "0.4 of 100 and 0.6 of (252, 255, 164)"
    assert np.array_equal(overlay(GRAY, heat, strength=0.0), GRAY)


def test_a_color_image_is_desaturated_under_heat() -> None:
    red = np.zeros((4, 4, 3), dtype=np.uint8)
    red[..., 0] = 200
    drawn = overlay(red, np.zeros((2, 2), dtype=np.float32), strength=0.0)
    assert drawn[0, 0].tolist() == [95, 45, 45], "a quarter of its red, and three quarters of its gray, 59.8"


def test_parts_the_model_does_not_see_are_lightened() -> None:
    heat = np.full((6, 8), np.nan, dtype=np.float32)
    heat[:, 2:6] = 1.0
    drawn = overlay(GRAY, heat)
    assert np.ptp(drawn[:, 0], axis=-1).max() == 0, "gray stays gray"
    assert drawn[0, 0, 0] > 200
    assert np.ptp(drawn[:, 3], axis=-1).min() > 20


@pytest.mark.parametrize(("shape", "size"), [((3, 3), (32, 32)), ((7, 7), (20, 40)), ((32, 32), (32, 32))])
def test_enlarged_heat_keeps_range_and_place(shape: tuple[int, int], size: tuple[int, int]) -> None:
    heat = np.zeros(shape, dtype=np.float32)
    heat[0, -1] = 1.0
    large = enlarged_heat(heat, *size)
    assert large.shape == size
    assert large.dtype == np.float32
    assert (large.min(), large.max()) == (0.0, pytest.approx(1.0, abs=0.05))
    row, column = np.unravel_index(large.argmax(), size)
    assert row < size[0] / 3
    assert column >= 2 * size[1] / 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((32, 32), (256, 256)),
        ((8, 10), (256, 320)),
        ((300, 200), (600, 400)),
        ((400, 600), (400, 600)),
        ((3000, 4000), (768, 1024)),
        ((300, 4000), (256, 3413)),
        ((2, 3000), (2, 3000)),
    ],
)
def test_display_size(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert for_display(np.zeros((*shape, 3), dtype=np.uint8)).shape == (*expected, 3)


def test_pixels_stay_squares() -> None:
    random = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(for_display(random), np.kron(random, np.ones((8, 8, 1), dtype=np.uint8)))


@pytest.mark.parametrize("rule", RESIZE_RULES)
@pytest.mark.parametrize("shape", [(60, 100), (100, 60), (64, 64)])
def test_heat_is_aligned_with_the_original_image(rule: ResizeRule, shape: tuple[int, int]) -> None:
    """A bright spot is its own heat: resized as for the model and laid back, it must be where it was."""
    height, width = shape
    image = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = height // 2 - 6, width // 2 + 4
    image[top : top + 10, left : left + 10] = 255
    seen = resize(image, 32, rule)[..., 0].astype(np.float32) / 255
    heat = map_to_original(seen, height, width, rule)
    assert heat.shape == shape
    spot = np.argwhere(np.nan_to_num(heat) > 0.5)
    assert spot.mean(axis=0) == pytest.approx([top + 4.5, left + 4.5], abs=1.0)
    unseen = np.isnan(heat)
    assert unseen.any() == (rule == "crop" and height != width)
    if unseen.any():
        side = min(shape)
        assert (~unseen).sum() == side * side


def test_a_contact_sheet_contains_every_image() -> None:
    tones = (40, 90, 140, 190)

    def plain(height: int, width: int, *color: int) -> npt.NDArray[np.uint8]:
        return np.full((height, width, 3), color, dtype=np.uint8)

    entries = [Entry(plain(20, 30, tone, 0, 0), plain(50, 40, 0, tone, 0), ("a", "b")) for tone in tones]
    page = contact_sheet(entries)
    assert page.dtype == np.uint8
    assert page.shape[1] > 3 * 2 * CELL
    for tone in tones:
        assert (page == (tone, 0, 0)).all(axis=-1).sum() == CELL * round(CELL * 20 / 30)
        assert (page == (0, tone, 0)).all(axis=-1).sum() == CELL * round(CELL * 40 / 50)


def test_a_long_caption_is_shortened() -> None:
    small = np.zeros((8, 8, 3), dtype=np.uint8)
    page = contact_sheet([Entry(small, small, ("a very long name " * 40 + "\nsecond line",))])
    assert (page[:, -8:] == 255).all()
