from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from thirtytwo.config.recipe import DataSettings
from thirtytwo.errors import DataError
from thirtytwo.images.pixels import RESIZE_RULES, resize
from thirtytwo.inference.model_file import ModelInfo


def noise_image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
def test_resize_returns_images_of_the_right_size_unchanged(rule):
    image = noise_image((32, 32, 3))
    assert resize(image, 32, rule) is image


@pytest.mark.parametrize("rule", ["crop", "pad", "squash"])
@pytest.mark.parametrize("shape", [(32, 32), (100, 40), (40, 100), (8, 8), (3, 500), (33, 32), (2000, 1500)])
def test_resize_always_gives_a_square(rule, shape):
    for value in (0, 200):
        image = np.full((*shape, 3), value, dtype=np.uint8)
        found = resize(image, 32, rule)
        assert found.shape == (32, 32, 3)
        assert found.dtype == np.uint8
        assert found[15:17].max() == value


def test_crop_takes_the_centre_and_pad_keeps_everything():
    image = np.zeros((32, 64, 3), dtype=np.uint8)
    image[:, 16:48] = 100
    image[:, :16] = 255
    np.testing.assert_array_equal(resize(image, 32, "crop"), np.full((32, 32, 3), 100, dtype=np.uint8))
    padded = resize(image, 32, "pad")
    assert (padded[:8] == 0).all()
    assert (padded[24:] == 0).all()
    assert (padded[8:24, 0] > 240).all()


def test_shrinking_averages_rather_than_picks():
    checks = (np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)
    found = resize(np.repeat(checks[:, :, None], 3, 2), 32, "squash")
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_unknown_rule_is_an_error():
    with pytest.raises(DataError, match="stretch"):
        resize(noise_image((6, 9, 3)), 32, "stretch")


def test_recipes_and_model_files_know_the_same_rules():
    assert get_args(DataSettings.model_fields["resize"].annotation) == RESIZE_RULES
    assert get_args(ModelInfo.model_fields["resize"].annotation) == RESIZE_RULES
