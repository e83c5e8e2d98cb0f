"""Bootstrap resamples of images, and counts by group in each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 2_000_000


def resampled_rows(count: int, resamples: int, seed: int) -> Iterator[Ints]:
    """Random rows with replacement, `(R, N)`, in chunks that fit in memory."""
    random = np.random.default_rng(seed)
    for start in range(0, resamples, step := max(1, _CHUNK // count)):
        yield random.integers(0, count, size=(min(step, resamples - start), count))


def tally(groups: Ints, rows: Ints, size: int, weights: Floats | None = None) -> Floats:
    """Count, or sum of `weights`, per group and per resample `rows` `(R, N)`: `(R, size)`."""
    draws = len(rows)
    cells = (groups[rows] + size * np.arange(draws)[:, None]).ravel()
    resampled = None if weights is None else weights[rows].ravel()
    return np.bincount(cells, weights=resampled, minlength=size * draws).reshape(draws, size).astype(np.float64)
