"""Heat drawn over a picture, with NumPy and Pillow alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.images.decode import ResizeRule

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]

LEAST = 256
MOST = 1024
SHARP = 128
UNSEEN = 0.3
"""How much of a picture is seen where the model does not see it."""
FADED = 0.75
"""How much of its colour a picture loses under heat, so that colours are those of the map."""

_INFERNO = (
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754"
    " d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4"
)


def overlay(picture: Pixels, heat: Heat, strength: float = 0.6) -> Pixels:
    """A picture with heat over it, uint8 `(H, W, 3)`.

    The picture turns grey and gives way to a colour map that rises evenly in lightness, from black over red to bright
    yellow (inferno of matplotlib). Where heat is NaN it is only paled: the model has not seen that part.

    Args:
        picture: uint8 `(H, W, 3)`.
        heat: float `(h, w)`, 0 to 1 or NaN; brought to the picture's size by bicubic interpolation.
        strength: how much of the picture gives way to the colours, 0 to 1.
    """
    warmth = enlarged_heat(heat, *picture.shape[:2])  # (H, W)
    seen = np.isfinite(warmth)
    below = picture.astype(np.float32)
    pale = UNSEEN * below + (1 - UNSEEN) * 255
    grey = (below @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    faded = (1 - FADED) * below + FADED * grey
    blended = (1 - strength) * faded + strength * colours(np.where(seen, warmth, 0.0))
    return np.rint(np.where(seen[..., None], blended, pale)).astype(np.uint8)


def colours(heat: Heat) -> npt.NDArray[np.float32]:
    """Colours of heat 0 to 1, `(h, w)` → `(h, w, 3)` from 0 to 255: matplotlib's inferno (CC0), dark to light."""
    points = np.array([[int(code[at : at + 2], 16) for at in (0, 2, 4)] for code in _INFERNO.split()])
    stops = np.linspace(0, 1, len(points))
    return np.stack([np.interp(heat, stops, points[:, channel]) for channel in range(3)], axis=-1).astype(np.float32)


def enlarged_heat(heat: Heat, height: int, width: int) -> Heat:
    """A map `(h, w)` at another size, `(height, width)`: bicubic, within 0 and 1; NaN stays NaN."""
    if heat.shape == (height, width):
        return heat.astype(np.float32)
    unseen = np.isnan(heat)
    scaled = np.clip(resized_map(np.where(unseen, 0.0, heat).astype(np.float32), height, width), 0.0, 1.0)
    if unseen.any():
        mask = Image.fromarray(unseen.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        scaled[np.asarray(mask, dtype=bool)] = np.nan
    return scaled


def resized_map(values: Heat, height: int, width: int) -> Heat:
    """Any map `(h, w)` at another size, bicubic; values may pass beyond the extremes a little."""
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC))


def to_look_at(picture: Pixels, least: int = LEAST, most: int = MOST) -> Pixels:
    """The picture at a size to look at: its shorter side at least `least`, its longer one at most `most` if it can.

    Pixel pictures are enlarged by a whole factor with every pixel a square; others are interpolated. A long strip keeps
    a shorter side below `least`.
    """
    height, width = picture.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    if shorter < least:
        factor = max(1, min(-(-least // shorter), 4 * most // longer))
        filter = Image.Resampling.NEAREST if shorter <= SHARP else Image.Resampling.BICUBIC
        size = (factor * width, factor * height)
    elif longer > most:
        scale = max(most / longer, least / shorter)
        filter = Image.Resampling.LANCZOS
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
    else:
        return picture
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, filter))


def on_picture(heat: Heat, height: int, width: int, rule: ResizeRule) -> Heat:
    """Heat of the square a model saw, `(S, S)`, laid onto the picture that was resized to it, `(height, width)`.

    What `crop` cut off becomes NaN; the borders that `pad` added are cut off.
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
