"""Choose which images to label next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import Ints

Floats = npt.NDArray[np.floating]


def choose_to_label(features: Floats, probabilities: Floats, count: int) -> Ints:
    """The images that teach most if they are labeled next, most useful first: uncertain ones that differ.

    The first is the one whose two most probable classes are closest (margin sampling, Scheffer et al. 2001). Each
    further one has the largest product of its uncertainty, 1 less the margin, and its distance to the nearest one
    chosen before, 1 less the cosine of their features, so that several images of one scene are not all chosen.

    Args:
        features: `(N, D)`, of any length.
        probabilities: `(N, C)` with C of 2 or more.
        count: number of images to choose.

    Returns:
        Positions, int64 `(min(count, N),)`.
    """
    total = len(features)
    top = np.sort(probabilities.astype(np.float64), axis=1)[:, ::-1]
    uncertainty = 1.0 - (top[:, 0] - top[:, 1])  # (N,)
    directions = features.astype(np.float64)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    distance = np.ones(total)  # to the nearest chosen image
    chosen: list[int] = []
    for _ in range(min(count, total)):
        usefulness = uncertainty * distance
        usefulness[chosen] = -1.0
        best = int(usefulness.argmax())
        chosen.append(best)
        distance = np.minimum(distance, np.clip(1.0 - directions @ directions[best], 0.0, 2.0))
    return np.array(chosen, dtype=np.int64)
