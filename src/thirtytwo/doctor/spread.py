"""How brightness, contrast and sharpness vary over the images of a data set, and which images are the extremes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.statistics import Floats, PixelStatistics

FEWEST_BINS, BINS = 8, 48
"""Fewest and most bars of a histogram: with few images, narrow ones would have gaps."""
EXTREMES = 8
"""Images at each end that are named."""
_FLAT = 1e-3
"""Contrast up to which an image has a single color, and so no sharpness."""
_TAIL = 0.1
"""Percentage of the images at each end that a histogram leaves out where they would stretch it."""
_STRETCH = 0.5
"""Part of the width of a histogram without them that they may add at each end before they are left out."""


@dataclass(frozen=True, eq=False)
class Spread:
    """The values of a statistic over images.

    Attributes:
        name: the statistic, `brightness`, `contrast` or `sharpness`.
        counts: histogram, int64 `(B,)`, of `FEWEST_BINS` to `BINS` bins.
        low: left edge of the histogram.
        high: right edge of the histogram.
        below: number of images left of the histogram, whose lowest value is that of `lowest`.
        above: number of images right of it.
        median: the median value.
        lowest: positions of the images with the lowest values, lowest first, int64.
        lowest_values: their values, float32.
        highest: positions of the images with the highest values, highest first, int64.
        highest_values: their values, float32.
    """

    name: str
    counts: npt.NDArray[np.int64]
    low: float
    high: float
    below: int
    above: int
    median: float
    lowest: npt.NDArray[np.int64]
    lowest_values: Floats
    highest: npt.NDArray[np.int64]
    highest_values: Floats


def spreads(statistics: PixelStatistics, extremes: int = EXTREMES) -> tuple[Spread, ...]:
    """Brightness, contrast and sharpness; images of a single color have no sharpness and are left out of it."""
    every = np.arange(len(statistics.contrast))
    textured = np.flatnonzero(statistics.contrast > _FLAT)
    given = (("brightness", every), ("contrast", every), ("sharpness", textured))
    return tuple(
        _spread(name, getattr(statistics, name)[positions], positions, extremes)
        for name, positions in given
        if len(positions)
    )


def _spread(name: str, values: Floats, positions: npt.NDArray[np.int64], extremes: int) -> Spread:
    low, high = _edges(values)
    order = np.argsort(values, kind="stable")
    lowest, highest = order[:extremes], order[::-1][:extremes]
    bins = max(FEWEST_BINS, min(BINS, round(2 * len(values) ** 0.5)))
    exact = values.astype(np.float64)
    counts, _ = np.histogram(exact, bins, (low, high))
    return Spread(
        name,
        counts.astype(np.int64),
        low,
        high,
        int((exact < low).sum()),
        int((exact > high).sum()),
        float(np.median(values)),
        positions[lowest],
        values[lowest],
        positions[highest],
        values[highest],
    )


def _edges(values: Floats) -> tuple[float, float]:
    """Left and right edge of a histogram: of all values, but for a few that lie far beyond the others."""
    low, high = np.percentile(values, (_TAIL, 100 - _TAIL)).tolist()
    room = _STRETCH * (high - low)
    near = values[(values >= low - room) & (values <= high + room)]
    low, high = float(near.min()), float(near.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def extreme_positions(found: tuple[Spread, ...]) -> Iterator[int]:
    """Positions of all images that are an extreme of a statistic, each once."""
    yield from dict.fromkeys(
        position for spread in found for ends in (spread.lowest, spread.highest) for position in ends.tolist()
    )
