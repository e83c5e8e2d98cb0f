"""Occlusion: hand-made models of which the answer is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from thirtytwo.explain.methods import log_odds, occlusion_maps

FIRST = np.zeros(1, dtype=np.int64)


@pytest.mark.parametrize("side", [8, 32, 45])
@pytest.mark.parametrize("place", [(0.1, 0.1), (0.5, 0.8), (0.95, 0.3)])
def test_the_place_that_decides_is_the_hottest(side: int, place: tuple[float, float]) -> None:
    row, column = (int(share * side) for share in place)
    image = np.zeros((1, side, side, 3), dtype=np.uint8)
    image[0, row, column] = 255

    def light(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        sure = pixels[:, row, column, 0].astype(np.float32) / 255
        return np.stack([sure, np.zeros_like(sure)], axis=1)

    (heat,) = occlusion_maps(light, image, FIRST)
    assert (heat.dtype, heat.shape) == (np.dtype(np.float32), (side, side))
    assert heat[row, column] == pytest.approx(heat.max(), rel=1e-5)
    far = np.abs(np.arange(side) - row) > side / 2
    assert not far.any() or heat[far].max() == 0
    (against,) = occlusion_maps(light, image, FIRST + 1)
    np.testing.assert_allclose(against, -heat, atol=1e-6)


def test_each_picture_is_explained_by_itself() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)

    def sums(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return pixels[:, :4, :, :].mean(axis=(1, 2)).astype(np.float32)

    labels = np.array([0, 1, 2])
    together = occlusion_maps(sums, images, labels)
    for at in range(3):
        alone = occlusion_maps(sums, images[at : at + 1], labels[at : at + 1])
        np.testing.assert_array_equal(together[at], alone[0])


def test_log_odds_by_hand() -> None:
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.98, 0.01, 0.01]], dtype=np.float32))
    np.testing.assert_allclose(log_odds(logits, 0), np.log([0.25, 49.0]), rtol=1e-5)
    shifted = np.array([[500.0, 0.0], [1000.0, 0.0]], dtype=np.float32)
    assert log_odds(shifted, 0).tolist() == [500.0, 1000.0], "where the probability is 1 to the last bit"
    assert log_odds(np.ones((2, 1), dtype=np.float32), 0).tolist() == [1.0, 1.0], "a model of one class"
