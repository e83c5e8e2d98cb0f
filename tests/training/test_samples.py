"""Samples of augmented training images."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data.explore import augmented_sheet
from thirtytwo.training.batches import augment_samples


def test_without_augmentation_images_are_unchanged(tiny: SimpleNamespace) -> None:
    found = augment_samples(tiny.recipe(augment__flip="none"), tiny.images(48), passes=3)
    assert found.originals.shape == (3, 16, 16, 3)
    assert found.augmented.shape == (3, 3, 16, 16, 3)
    for number in range(3):
        np.testing.assert_array_equal(found.augmented[:, number], found.originals)
    np.testing.assert_array_equal(found.targets.argmax(axis=2), found.labels[:, None].repeat(3, axis=1))
    assert found.labels.tolist() == [0, 1, 2]


def test_alternating_mirrors_every_other_pass(tiny: SimpleNamespace) -> None:
    found = augment_samples(tiny.recipe(augment__flip="alternating"), tiny.images(48), passes=4)
    np.testing.assert_array_equal(found.augmented[:, 0], found.augmented[:, 2])
    np.testing.assert_array_equal(found.augmented[:, 0], found.augmented[:, 1, :, ::-1])


def test_samples_have_full_size(tiny: SimpleNamespace) -> None:
    stages = [{"size": 8, "until": 0.9}]
    found = augment_samples(tiny.recipe(schedule__resolution=stages, augment__policy="augmix"), tiny.images(48))
    assert found.augmented.shape == (3, 8, 16, 16, 3)
    again = augment_samples(tiny.recipe(schedule__resolution=stages, augment__policy="augmix"), tiny.images(48))
    np.testing.assert_array_equal(found.augmented, again.augmented)


def test_classes_with_settings_come_first_and_targets_sum_to_one(tiny: SimpleNamespace) -> None:
    data = tiny.images(48)
    recipe = tiny.recipe(augment__mixup=1.0, augment__classes={data.classes[2]: {"rotate": 90}})
    found = augment_samples(recipe, data, rows=2)
    assert found.labels.tolist() == [2, 0]
    np.testing.assert_allclose(found.targets.sum(axis=2), 1, rtol=1e-6)
    assert (found.targets[:, :, 1] == 0).all()


@pytest.mark.parametrize(("lines", "high"), [(0, 100), (2, 128)])
def test_sheet(lines: int, high: int) -> None:
    """Cells of 96 pixels, 4 between them, and 14 per line of text."""
    originals = np.full((2, 32, 32, 3), 10, dtype=np.uint8)
    augmented = np.full((2, 5, 32, 32, 3), 200, dtype=np.uint8)
    captions = (
        [[["60\u00a0% cat", "a class of a very long name indeed"][:lines] for _ in range(5)]] * 2 if lines else None
    )
    sheet = np.asarray(augmented_sheet(originals, augmented, ["cat", "dog"], captions))
    assert sheet.shape[0] == 2 * high + 4
    assert int((sheet == 10).all(axis=2).sum()) >= 2 * 96**2
    assert int((sheet == 200).all(axis=2).sum()) >= 10 * 96**2
