"""Does a map mean anything? Deletion and insertion scores, beside those of chance.

After V. Petsiuk, A. Das and K. Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (BMVC
2018, arXiv 1806.07421). Where the map is hottest, pixels are taken away first (deletion) or given back first
(insertion), and the area under the probability of the class says how much they mattered.

What stands in for a pixel that was taken away is the blurred picture, in both directions: a constant colour would put
edges into small pictures that mislead a network by themselves. Chance is an order as coarse as the map: scattered
single pixels spoil a small picture much faster than patches do, and would flatter or shame every map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from thirtytwo.explain.overlay import Heat, Pixels, resized_map

Floats = npt.NDArray[np.float64]
Probabilities = Callable[[Pixels], npt.NDArray[np.float32]]
"""From pixels uint8 `(M, S, S, 3)` to class probabilities `(M, C)`."""

STEPS = 16
RANDOM_MAPS = 4
BLUR = 1 / 8
"""Deviation of the blur, as a share of the picture's side."""


@dataclass(frozen=True, slots=True)
class Score:
    """How the probability of a class follows a map; all areas are between 0 and 1.

    `deletion` is small and `insertion` large where the map found what matters; `random` is what both are on average for
    random maps that are as coarse. `beaten` is the share of those random maps that do worse.
    """

    deletion: float
    insertion: float
    random: float
    beaten: float

    @property
    def gain(self) -> float:
        """Insertion minus deletion, −1 to 1: how much better than a random map, for which it is 0 on average."""
        return self.insertion - self.deletion

    def as_dict(self) -> dict[str, float]:
        """Every figure by name, rounded to what 32-bit probabilities hold."""
        named = {
            "deletion": self.deletion,
            "insertion": self.insertion,
            "random": self.random,
            "better_than_random_by": self.gain,
            "random_maps_beaten": self.beaten,
        }
        return {name: round(value, 6) for name, value in named.items()}


def score_maps(
    probabilities: Probabilities,
    pictures: Pixels,
    maps: Sequence[Heat] | Heat,
    classes: npt.NDArray[np.int64],
    *,
    grain: int | None = None,
    steps: int = STEPS,
    random_maps: int = RANDOM_MAPS,
    seed: int = 0,
) -> list[Score]:
    """Deletion and insertion scores of maps, one for each picture.

    Args:
        probabilities: the model.
        pictures: uint8 `(N, S, S, 3)`.
        maps: float `(N, h, w)` of any scale and sign, larger where more speaks for the class.
        classes: int64 `(N,)`, the class whose probability is followed.
        grain: places a side that the maps tell apart; those of the map by default.
        steps: in how many steps all pixels are taken away or given back.
        random_maps: how many random maps, each used in both directions.
        seed: fixes the random maps, and the order among equal values.
    """
    results = []
    for number, (picture, values, label) in enumerate(zip(pictures, maps, classes, strict=True)):
        random = np.random.default_rng((seed, number))
        side, places = len(picture), grain or max(values.shape)
        own = _order(values, side, random)
        others = [
            _order(random.random((places, places), dtype=np.float32), side, random) for _ in range(max(1, random_maps))
        ]
        followed = _follow(probabilities, picture, [own, *others], int(label), steps)
        deletion, insertion = followed[0]
        # A random map read backwards is as random: its deletion is the insertion here, and the gain changes its sign.
        gains = [sign * (inserted - deleted) for deleted, inserted in followed[1:] for sign in (1, -1)]
        results.append(
            Score(
                deletion=deletion,
                insertion=insertion,
                random=float(np.mean(followed[1:])),
                beaten=float(np.mean(np.asarray(gains) < insertion - deletion)),
            )
        )
    return results


def blurred(picture: Pixels) -> Pixels:
    """The picture without its details, uint8 `(S, S, 3)`: what stands in for pixels that were taken away."""
    radius = BLUR * min(picture.shape[:2])
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).filter(ImageFilter.GaussianBlur(radius)))


def _order(values: Heat, side: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """The rank of each pixel, hottest first, int64 `(side, side)`; equal pixels in random order."""
    heat = resized_map(values, side, side).ravel() if values.shape != (side, side) else values.ravel()
    ranks = np.empty(side * side, dtype=np.int64)
    ranks[np.lexsort((random.random(heat.size), -heat))] = np.arange(heat.size)
    return ranks.reshape(side, side)


def _follow(
    probabilities: Probabilities, picture: Pixels, orders: list[npt.NDArray[np.int64]], label: int, steps: int
) -> list[tuple[float, float]]:
    """The areas of deletion and insertion for each order, all pictures in one run of the model."""
    counts = np.round(np.linspace(0, picture.shape[0] * picture.shape[1], steps + 1)).astype(np.int64)
    stand_in = blurred(picture)
    seen: list[Any] = [picture[None], stand_in[None]]
    for order in orders:
        gone = (order < counts[1:-1, None, None])[..., None]  # (steps - 1, S, S, 1)
        seen += [np.where(gone, stand_in, picture), np.where(gone, picture, stand_in)]
    found = probabilities(np.concatenate(seen))[:, label].astype(np.float64)
    whole, none = found[:1], found[1:2]
    curves = found[2:].reshape(len(orders), 2, steps - 1)
    return [(_area([*whole, *deleting, *none]), _area([*none, *inserting, *whole])) for deleting, inserting in curves]


def _area(curve: list[float]) -> float:
    """The area under a curve over even steps from 0 to 1."""
    return float(np.trapezoid(curve) / (len(curve) - 1))
