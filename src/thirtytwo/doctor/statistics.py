"""Simple statistics of the pixels of images: brightness, contrast, sharpness and mean color."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_ROWS = 2**22
"""Pixels of a block, to bound memory."""
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""
_MAD = 1.4826
"""Ratio of the standard deviation to the median absolute deviation of normally distributed values."""


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """Statistics of images, each float32 `(N,)`; pixel values are 0 to 255.

    Attributes:
        brightness: mean luma.
        contrast: standard deviation of the luma.
        sharpness: standard deviation of the Laplacian of the luma, as a multiple of the contrast.
        saturation: mean difference of the largest and the smallest channel.
        red: mean of the channel.
        green: mean of the channel.
        blue: mean of the channel.
    """

    brightness: Floats
    contrast: Floats
    sharpness: Floats
    saturation: Floats
    red: Floats
    green: Floats
    blue: Floats

    def table(self) -> Floats:
        """All statistics in the order of the attributes, `(N, 7)`."""
        return np.stack([getattr(self, one.name) for one in fields(self)], axis=1)


def pixel_statistics(images: npt.NDArray[np.uint8]) -> PixelStatistics:
    """Statistics of images uint8 `(N, S, S, 3)`."""
    block = max(1, _ROWS // max(1, images.shape[1] * images.shape[2]))
    parts = [_statistics(images[start : start + block]) for start in range(0, len(images), block)]
    table = np.concatenate(parts) if parts else np.zeros((0, 7), dtype=np.float32)
    return PixelStatistics(*np.ascontiguousarray(table.T))


def _statistics(images: npt.NDArray[np.uint8]) -> Floats:
    """The table of `PixelStatistics` for images that fit in memory as floats."""
    luma = images @ _LUMA  # (N, S, S)
    brightness = luma.mean(axis=(1, 2))
    contrast = luma.std(axis=(1, 2))
    inner = luma[:, 1:-1, 1:-1]
    laplacian = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] - 4 * inner
    edges = laplacian.std(axis=(1, 2)) if inner.size else np.zeros(len(luma), dtype=np.float32)
    spread = images.max(axis=3).mean(axis=(1, 2)) - images.min(axis=3).mean(axis=(1, 2))
    channels = images.mean(axis=(1, 2), dtype=np.float32)
    columns = [brightness, contrast, edges / np.maximum(contrast, 1.0), spread, *channels.T]
    return np.stack(columns, axis=1).astype(np.float32)


def deviations(values: npt.ArrayLike) -> Floats:
    """Distance of each value from the median, in robust standard deviations, float32 `(N,)`."""
    given = np.asarray(values, dtype=np.float32)
    if not len(given):
        return given
    center = np.median(given)
    scale = _MAD * np.median(np.abs(given - center))
    return np.asarray((given - center) / max(float(scale), 1e-6), dtype=np.float32)
