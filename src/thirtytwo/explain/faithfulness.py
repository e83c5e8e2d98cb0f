"""Faithfulness of heatmaps: deletion and insertion scores, compared with random maps.

After V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC
2018, arXiv 1806.07421). Pixels are deleted or inserted in descending order of heat; the score is the area under the
probability of the class.

Differences: the baseline for deleted pixels is the blurred image in both directions, because a constant color adds
edges that alone change the prediction for small images. Random maps have the resolution of the heatmap, because
deleting scattered single pixels degrades a small image much faster than deleting patches, which would bias the
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from thirtytwo.explain.overlay import Heat, resized_map
from thirtytwo.images.pixels import Pixels

Probabilities = Callable[[Pixels], npt.NDArray[np.float32]]
"""Maps pixels uint8 `(M, S, S, 3)` to class probabilities `(M, C)`."""

STEPS = 16
RANDOM_MAPS = 4
BLUR = 1 / 8
"""Standard deviation of the blur as a share of the image's side."""


@dataclass(frozen=True, slots=True)
class Score:
    """Faithfulness of a heatmap; areas are between 0 and 1.

    `deletion` is small and `insertion` large for a faithful map; `random` is the mean of both for random maps of
    the same resolution. `beaten` is the share of random maps with a smaller `gain`, 0 to 1.
    """

    deletion: float
    insertion: float
    random: float
    beaten: float

    @property
    def gain(self) -> float:
        """Insertion minus deletion, −1 to 1; 0 on average for random maps."""
        return self.insertion - self.deletion

    def as_dict(self) -> dict[str, float]:
        """All scores by name, rounded to the precision of float32 probabilities."""
        values = {
            "deletion": self.deletion,
            "insertion": self.insertion,
            "random": self.random,
            "better_than_random_by": self.gain,
            "random_maps_beaten": self.beaten,
        }
        return {name: round(value, 6) for name, value in values.items()}


def score_maps(
    probabilities: Probabilities,
    images: Pixels,
    maps: Sequence[Heat] | Heat,
    classes: npt.NDArray[np.int64],
    *,
    grain: int | None = None,
    steps: int = STEPS,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
) -> list[Score]:
    """Compute deletion and insertion scores, one `Score` per image.

    Args:
        probabilities: the model, from pixels to class probabilities.
        images: uint8 `(N, S, S, 3)`.
        maps: float `(N, h, w)` of any scale and sign, larger for stronger evidence.
        classes: int64 `(N,)`, the class of each map.
        grain: effective resolution of the maps in cells per side; by default their size.
        steps: number of steps of deletion and insertion.
        random_maps: number of random maps; each is used in both directions.
        seed: seed of the random maps and of the order of equal values.
    """
    results = []
    for number, (image, values, label) in enumerate(zip(images, maps, classes, strict=True)):
        random = np.random.default_rng((seed, number))
        side, cells = len(image), grain or max(values.shape)
        order = _order(values, side, random)
        random_orders = [
            _order(random.random((cells, cells), dtype=np.float32), side, random) for _ in range(max(1, random_maps))
        ]
        areas = _curve_areas(probabilities, image, [order, *random_orders], int(label), steps)
        deletion, insertion = areas[0]
        # A reversed random map is also random: its deletion is this one's insertion, and its gain is negated.
        random_gains = [sign * (inserted - deleted) for deleted, inserted in areas[1:] for sign in (1, -1)]
        results.append(
            Score(
                deletion=deletion,
                insertion=insertion,
                random=float(np.mean(areas[1:])),
                beaten=float(np.mean(np.asarray(random_gains) < insertion - deletion)),
            )
        )
    return results


def blurred(image: Pixels) -> Pixels:
    """The blurred image, uint8 `(S, S, 3)`: the baseline for deleted pixels."""
    radius = BLUR * min(image.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).filter(ImageFilter.GaussianBlur(radius)))


def _order(values: Heat, side: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """The rank of each pixel, hottest first, int64 `(side, side)`; equal pixels in random order."""
    heat = resized_map(values, side, side).ravel() if values.shape != (side, side) else values.ravel()
    ranks = np.empty(side * side, dtype=np.int64)
    ranks[np.lexsort((random.random(heat.size), -heat))] = np.arange(heat.size)
    return ranks.reshape(side, side)


def _curve_areas(
    probabilities: Probabilities, image: Pixels, orders: list[npt.NDArray[np.int64]], label: int, steps: int
) -> list[tuple[float, float]]:
    """Areas under the deletion and insertion curves for each order, computed in one run of the model."""
    counts = np.round(np.linspace(0, image.shape[0] * image.shape[1], steps + 1)).astype(np.int64)
    baseline = blurred(image)
    inputs: list[Any] = [image[None], baseline[None]]
    for order in orders:
        deleted = (order < counts[1:-1, None, None])[..., None]  # (steps - 1, S, S, 1)
        inputs += [np.where(deleted, baseline, image), np.where(deleted, image, baseline)]
    found = probabilities(np.concatenate(inputs))[:, label].astype(np.float64)
    original, blank = found[:1], found[1:2]
    curves = found[2:].reshape(len(orders), 2, steps - 1)
    return [
        (_area([*original, *deletion_curve, *blank]), _area([*blank, *insertion_curve, *original]))
        for deletion_curve, insertion_curve in curves
    ]


def _area(curve: list[float]) -> float:
    """Area under a curve with equal steps from 0 to 1."""
    return float(np.trapezoid(curve) / (len(curve) - 1))
