"""Choice of the base by the size of the images, views, and cross-validation."""

from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.errors import DataError, UnknownNameError
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.fewshot import choose_base
from thirtytwo.fewshot.cross_validation import assign_folds, cross_validate
from thirtytwo.fewshot.head import DEFAULT_PENALTY, fit_head, fit_heads
from thirtytwo.fewshot.linear_probe import expected_accuracy
from thirtytwo.fewshot.views import MOST_VIEWS, check_views, make_views


@pytest.mark.parametrize(
    ("sides", "name"),
    [([32] * 5, "cifar100"), ([64, 64, 400], "cifar100"), ([65, 65, 32], "imagenet"), ([768], "imagenet")],
)
def test_the_base_suits_the_median_side(sides: list[int], name: str) -> None:
    path, reason = choose_base(None, sides)
    assert path.stem == name
    assert f"{sorted(sides)[len(sides) // 2]}" in reason


def test_a_given_base_is_used() -> None:
    assert choose_base("cifar10", [768])[0].stem == "cifar10"
    with pytest.raises(UnknownNameError, match="'cifar10'"):
        choose_base("cifar01", [768])


def test_views_start_with_the_image_and_its_mirror_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 10, 3), dtype=np.uint8)
    views = list(make_views(images, MOST_VIEWS))
    assert [view.shape for view in views] == [images.shape] * MOST_VIEWS
    np.testing.assert_array_equal(views[0], images)
    np.testing.assert_array_equal(views[1], images[:, :, ::-1])
    assert len({view.tobytes() for view in views}) == MOST_VIEWS


@pytest.mark.parametrize("count", [0, -1, MOST_VIEWS + 1])
def test_other_numbers_of_views_raise(count: int) -> None:
    with pytest.raises(DataError, match=str(count)):
        check_views(count)


def clusters(each: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), each)
    return np.eye(3, 20)[labels] + spread * random.normal(size=(len(labels), 20)), labels


def test_folds_are_stratified() -> None:
    labels = np.repeat([0, 1], [7, 12])
    folds = assign_folds(labels, 5, seed=1)
    for label in (0, 1):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(("each", "chosen"), [(2, False), (7, False), (8, True), (10, True)])
def test_the_penalty_is_chosen_from_enough_images(each: int, chosen: bool) -> None:
    features, labels = clusters(each, 0.1)
    found = cross_validate(features, features, labels, 3)
    assert found.chosen is chosen
    assert found.folds == each
    assert found.logits.shape == (3 * each, 3)
    assert chosen or found.penalty == DEFAULT_PENALTY


def test_noise_is_predicted_at_chance_and_penalized_more() -> None:
    features, labels = clusters(20, 50.0)
    found = cross_validate(features, features, labels, 3)
    assert found.penalty > DEFAULT_PENALTY
    assert 0.1 < (found.logits.argmax(axis=1) == labels).mean() < 0.6


def test_penalties_together_equal_each_alone() -> None:
    features, labels = clusters(6, 0.3)
    for penalty, head in zip((0.1, 0.001), fit_heads(features, labels, 3, (0.1, 0.001)), strict=True):
        alone = fit_head(features, labels, 3, penalty)
        np.testing.assert_allclose(head.logits(features), alone.logits(features), rtol=1e-6)


@pytest.mark.parametrize("hits", [0, 15, 30])
def test_the_interval_contains_that_of_independent_images(hits: int) -> None:
    found = expected_accuracy(np.arange(30) < hits)
    low, high = wilson(hits, 30)
    assert found["value"] == hits / 30
    assert found["ci95"][0] <= low <= high <= found["ci95"][1]
