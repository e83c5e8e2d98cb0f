"""Draw heatmaps over images, with NumPy and Pillow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.images.pixels import Pixels, ResizeRule

Heat = npt.NDArray[np.float32]

UNSEEN_OPACITY = 0.3
"""Opacity of the parts of an image that the model does not see, 0 to 1."""
DESATURATION = 0.75
"""Share of its color that an image loses under a heatmap, so that the colors are those of the heatmap."""

_INFERNO = (
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754"
    " d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4"
)


def overlay(image: Pixels, heat: Heat, strength: float = 0.6) -> Pixels:
    """Blend a heatmap over an image; returns uint8 `(H, W, 3)`.

    The image is desaturated and blended with the colormap inferno of matplotlib, which is uniform in lightness. Where
    heat is NaN (the model does not see that part), the image is lightened instead.

    Args:
        image: uint8 `(H, W, 3)`.
        heat: float `(h, w)`, 0 to 1 or NaN; resized to the image by bicubic interpolation.
        strength: weight of the colormap, 0 to 1.
    """
    enlarged = enlarged_heat(heat, *image.shape[:2])  # (H, W)
    seen = np.isfinite(enlarged)
    base = image.astype(np.float32)
    lightened = UNSEEN_OPACITY * base + (1 - UNSEEN_OPACITY) * 255
    gray = (base @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    desaturated = (1 - DESATURATION) * base + DESATURATION * gray
    blended = (1 - strength) * desaturated + strength * colormap(np.where(seen, enlarged, 0.0))
    return np.rint(np.where(seen[..., None], blended, lightened)).astype(np.uint8)


def colormap(heat: Heat) -> npt.NDArray[np.float32]:
    """Apply matplotlib's colormap inferno (CC0): `(h, w)` in 0 to 1 → `(h, w, 3)` in 0 to 255."""
    points = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _INFERNO.split()])
    stops = np.linspace(0, 1, len(points))
    return np.stack([np.interp(heat, stops, points[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def heat_layer(heat: Heat, width: int, height: int, rule: ResizeRule) -> Pixels:
    """The colors of a heatmap of the model's input, `(S, S)`, to lay over an image of this width and height.

    Returns:
        RGBA, uint8 `(h, w, 4)`, of the image's aspect ratio and about the heatmap's size; transparent where the model
        does not see the image.
    """
    scale = len(heat) / min(width, height) if rule == "crop" else len(heat) / max(width, height)
    placed = map_to_original(heat, max(1, round(scale * height)), max(1, round(scale * width)), rule)
    seen = np.isfinite(placed)
    colors = np.rint(colormap(np.where(seen, placed, 0.0))).astype(np.uint8)
    return np.concatenate([colors, np.where(seen, 255, 0).astype(np.uint8)[..., None]], axis=-1)


def legend_colors(count: int = 9) -> list[str]:
    """Colors of evenly spaced heat from 0 to 1, as `#rrggbb`."""
    colors = np.rint(colormap(np.linspace(0, 1, count, dtype=np.float32)[None]))[0].astype(int)
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colors.tolist()]


def enlarged_heat(heat: Heat, height: int, width: int) -> Heat:
    """Resize a heatmap `(h, w)` to `(height, width)` by bicubic interpolation, clipped to 0..1; NaN stays NaN."""
    if heat.shape == (height, width):
        return heat.astype(np.float32)
    unseen = np.isnan(heat)
    scaled = np.clip(resized_map(np.where(unseen, 0.0, heat).astype(np.float32), height, width), 0.0, 1.0)
    if unseen.any():
        mask = Image.fromarray(unseen.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        scaled[np.asarray(mask, dtype=bool)] = np.nan
    return scaled


def resized_map(values: Heat, height: int, width: int) -> Heat:
    """Resize a map `(h, w)` by bicubic interpolation; values may slightly exceed the original range."""
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def map_to_original(heat: Heat, height: int, width: int, rule: ResizeRule) -> Heat:
    """Map heat of the model's input, `(S, S)`, to the original image, `(height, width)`.

    Parts that `crop` removed become NaN; borders that `pad` added are removed.
    """
    if rule == "squash" or height == width:
        return enlarged_heat(heat, height, width)
    if rule == "crop":
        side = min(height, width)
        placed = np.full((height, width), np.nan, dtype=np.float32)
        top, left = (height - side) // 2, (width - side) // 2
        placed[top : top + side, left : left + side] = enlarged_heat(heat, side, side)
        return placed
    size = len(heat)
    scale = size / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    return enlarged_heat(heat[top : top + inner_height, left : left + inner_width], height, width)
