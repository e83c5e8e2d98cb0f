"""Levels of the color channels of images: their histogram, mean and standard deviation, which normalize inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVELS = 256
"""Number of values of a channel."""
_CHUNK_PIXELS = 2**22
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, eq=False)
class ChannelLevels:
    """How often each level occurs in the channels of images.

    Attributes:
        counts: int64 `(3, 256)`: red, green and blue; rows sum to the number of pixels.
    """

    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> ChannelLevels:
        """The levels of images uint8 `(N, H, W, 3)`."""
        counts = np.zeros((3, LEVELS), dtype=np.int64)
        size = max(1, _CHUNK_PIXELS // max(1, math.prod(images.shape[1:3])))
        for start in range(0, len(images), size):
            pixels = images[start : start + size].reshape(-1, 3)
            counts += np.stack([np.bincount(pixels[:, channel], minlength=LEVELS) for channel in range(3)])
        return cls(counts)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, on a scale from 0 to 1."""
        return tuple(float(value) for value in self._moment(1).round(6))

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, on a scale from 0 to 1; at least 0.001, so that it can divide."""
        variance = np.maximum(self._moment(2) - self._moment(1) ** 2, _LEAST_VARIANCE)
        return tuple(float(value) for value in np.sqrt(variance).round(6))

    def _moment(self, power: int) -> npt.NDArray[np.float64]:
        values = (np.arange(LEVELS) / (LEVELS - 1)) ** power
        pixels = max(1, int(self.counts[0].sum()))
        return np.asarray(self.counts @ values / pixels, dtype=np.float64)


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images uint8 `(N, H, W, 3)`, on a scale from 0 to 1."""
    levels = ChannelLevels.of(images)
    return levels.mean, levels.std
