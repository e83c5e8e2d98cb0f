"""Deletion and insertion scores: hand-computed areas, random maps, and maps that are right or wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from thirtytwo.explain.faithfulness import Score, blurred, score_maps

SIDE = 16
SPOT = (slice(4, 8), slice(4, 8))  # one of the 16 places of a 4×4 grid
FIRST = np.zeros(1, dtype=np.int64)


def spotted(seed: int = 0) -> npt.NDArray[np.uint8]:
    """Black, with chequers in `SPOT`: a pattern that blurring takes away."""
    image = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    image[0, SPOT[0], SPOT[1]] = 255 * (np.indices((4, 4)).sum(axis=0) % 2)[..., None]
    return image


def chequers(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A model whose probability is the contrast of the pattern in `SPOT`, `(M, 2)`."""
    spot = pixels[:, SPOT[0], SPOT[1], 0].astype(np.float64)
    light, dark = spot[:, np.indices((4, 4)).sum(axis=0) % 2 == 1], spot[:, np.indices((4, 4)).sum(axis=0) % 2 == 0]
    sure = np.clip((light.mean(axis=1) - dark.mean(axis=1)) / 255, 0, 1)
    return np.stack([sure, 1 - sure], axis=1).astype(np.float32)


def on_spot() -> npt.NDArray[np.float32]:
    heat = np.zeros((1, SIDE, SIDE), dtype=np.float32)
    heat[0, SPOT[0], SPOT[1]] = 1.0
    return heat


def test_areas_by_hand() -> None:
    """Of 16 steps the first takes the whole spot: 1, 0, 0, … and 0, 1, 1, … and the blurred image holds nothing."""
    image = spotted()
    assert chequers(np.stack([blurred(image[0])]))[0, 0] == pytest.approx(0, abs=0.03)
    (score,) = score_maps(chequers, image, on_spot(), FIRST, steps=16)
    assert score.deletion == pytest.approx(0.5 / 16, abs=0.03)
    assert score.insertion == pytest.approx(1 - 0.5 / 16, abs=0.03)
    assert score.gain == pytest.approx(15 / 16, abs=0.05)
    assert score.beaten == 1.0


def test_a_wrong_map_is_worse_than_chance() -> None:
    (score,) = score_maps(chequers, spotted(), -on_spot(), FIRST, grain=4)
    assert score.gain < -0.8
    assert score.beaten == 0.0


def test_scale_and_sign_of_a_map_do_not_matter() -> None:
    one, other = (score_maps(chequers, spotted(), heat, FIRST)[0] for heat in (on_spot(), 1e-6 * on_spot() - 3.0))
    assert one == other


def test_the_requested_class_is_scored() -> None:
    (right,) = score_maps(chequers, spotted(), on_spot(), FIRST)
    (other,) = score_maps(chequers, spotted(), on_spot(), FIRST + 1)
    assert other.deletion == pytest.approx(1 - right.deletion, abs=1e-6)
    assert other.gain == pytest.approx(-right.gain, abs=1e-6)


def test_random_maps_gain_nothing_on_average() -> None:
    count = 60
    images = np.repeat(spotted(), count, axis=0)
    maps = np.random.default_rng(3).random((count, 4, 4), dtype=np.float32)
    scores = score_maps(chequers, images, maps, np.zeros(count, dtype=np.int64), random_maps=2)
    assert np.mean([score.gain for score in scores]) == pytest.approx(0, abs=0.15)
    assert np.mean([score.random for score in scores]) == pytest.approx(0.5, abs=0.1)
    assert 0.3 < np.mean([score.beaten for score in scores]) < 0.7


def test_a_map_that_is_the_same_everywhere_is_chance() -> None:
    flat = np.ones((1, SIDE, SIDE), dtype=np.float32)
    (score,) = score_maps(chequers, spotted(), flat, FIRST)
    assert abs(score.gain) < 0.25
    assert score.beaten < 1.0


def test_coarse_maps_are_compared_with_coarse_random_maps() -> None:
    seen: list[npt.NDArray[np.uint8]] = []

    def spy(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(pixels)
        return chequers(pixels)

    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)

    def edges(grain: int) -> float:
        """How often neighbours of the half-deleted images of random maps differ in being deleted."""
        seen.clear()
        score_maps(spy, image, on_spot(), FIRST, grain=grain, steps=2)
        (pixels,) = seen
        gone = (pixels[4::2] != image).any(axis=-1)  # after whole, stand-in and the map's own two
        return float((gone[:, 1:] != gone[:, :-1]).mean())

    assert edges(2) < edges(4) < edges(SIDE)


def test_the_same_seed_gives_the_same_score() -> None:
    first, again, other = (score_maps(chequers, spotted(), on_spot(), FIRST, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert (first.deletion, first.random) != (other.deletion, other.random)


def test_scores_by_name() -> None:
    assert Score(0.25, 0.75, 0.5, 0.875).as_dict() == {
        "deletion": 0.25,
        "insertion": 0.75,
        "random": 0.5,
        "better_than_random_by": 0.5,
        "random_maps_beaten": 0.875,
    }
