"""Folds of a cross-validation, and splits that keep near-duplicates together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thirtytwo.data.folds import assign_folds, divide_or_fold
from thirtytwo.data.split import hold_out, split_off
from thirtytwo.data.types import DataSet, ImageSet, Together
from thirtytwo.errors import DataError


def noise(*counts: int) -> ImageSet:
    """Distinct images, ordered by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = [np.random.default_rng(n).integers(0, 256, (4, 4, 3), dtype=np.uint8) for n in range(len(labels))]
    return ImageSet(np.stack(images), labels, tuple("abcdefghij"[: len(counts)]), np.arange(len(labels)))


def grouped(images: ImageSet, *groups: list[int]) -> ImageSet:
    """The images with near-duplicates at these positions."""
    ids = images.hashes.copy()
    for group in groups:
        ids[group] = images.hashes[group].min()
    return replace(images, near=ids)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("counts", [(40, 40), (10, 95), (11, 12, 13)])
def test_folds_have_equal_shares_of_every_class(counts: tuple[int, ...], folds: int) -> None:
    images = noise(*counts)
    fold_of = assign_folds(images, folds, 0)
    for label, count in enumerate(counts):
        own = np.bincount(fold_of[images.labels == label], minlength=folds)
        assert own.min() >= count // folds
        assert own.max() <= count // folds + 1
    sizes = np.bincount(fold_of, minlength=folds)
    assert sizes.max() - sizes.min() <= 1


def test_folds_depend_on_seed_and_content_alone() -> None:
    images = noise(30, 30)
    order = np.random.default_rng(0).permutation(60)
    first = assign_folds(images, 5, 0)
    assert np.array_equal(assign_folds(images.take(order), 5, 0), first[order])
    assert not np.array_equal(assign_folds(images, 5, 1), first)


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_near_duplicates_are_in_one_fold(seed: int) -> None:
    images = noise(60, 60)
    patients = np.repeat(np.arange(24), 5).astype(np.uint64)
    near = grouped(replace(images, groups=patients), [0, 7, 100])
    for one, members in ((replace(images, groups=patients), [[0, 1, 2, 3, 4]]), (near, [[0, 5, 7, 100, 104]])):
        fold_of = assign_folds(one, 4, seed)
        for group in members:
            assert len({*fold_of[group]}) == 1
        shares = [np.bincount(fold_of[one.labels == label], minlength=4) for label in (0, 1)]
        assert min(map(min, shares)) >= 10
        assert max(map(max, shares)) <= 20


@pytest.mark.parametrize(("counts", "folds"), [((40, 4), 5), ((40, 3), 2), ((1, 40), 3)])
def test_too_few_images_of_a_class(counts: tuple[int, int], folds: int) -> None:
    with pytest.raises(DataError, match="has"):
        assign_folds(noise(*counts), folds, 0)


def test_a_fold_becomes_the_test_set_and_stored_test_images_are_left_out(tiny) -> None:
    data = DataSet("noise", noise(20, 20), None, noise(3, 3), "0")
    tested = []
    for fold in (1, 2, 3, 4):
        found = divide_or_fold(data, tiny.recipe(data__folds=4, data__fold=fold))
        assert found.val is not None
        assert len(found.train) + len(found.val) + len(found.test) == 40
        assert not np.isin(found.train.hashes, found.test.hashes).any()
        tested += found.test.rows.tolist()
        assert "6 test images of the data are left out" in found.notes[0]
    assert sorted(tested) == list(range(40))


def test_together_names_the_group_of_each_image() -> None:
    together = Together(np.array([3, 5, 9], dtype=np.uint64), np.array([3, 3, 9], dtype=np.uint64))
    assert together.of(np.array([5, 4, 9, 12, 3], dtype=np.uint64)).tolist() == [3, 4, 9, 12, 3]
    assert together.sizes.tolist() == [2]


@pytest.mark.parametrize("seed", range(20))
def test_near_duplicates_are_split_off_together_and_move_no_others(seed: int) -> None:
    images = noise(100, 100)
    groups = [[0, 1], [2, 3, 102], [50, 51, 52]]
    _, before = split_off(images, 0.2, seed, "testing")
    _, after = split_off(grouped(images, *groups), 0.2, seed, "testing")
    for group in groups:
        assert np.isin(group, after).sum() in (0, len(group))
    alone = np.setdiff1d(np.arange(200), np.concatenate(groups))
    assert np.array_equal(np.intersect1d(before, alone), np.intersect1d(after, alone))


@pytest.mark.parametrize("seed", range(20))
def test_a_large_group_is_not_held_out(seed: int) -> None:
    images = grouped(noise(100, 100), list(range(60)))
    train, val = hold_out(images, 0.1, seed)
    assert train.counts[0] >= 80
    assert (val.counts > 0).all()


def test_class_of_near_duplicates_alone_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="near-duplicates") as caught:
        hold_out(grouped(noise(10, 4), [10, 11, 12, 13]), 0.1, 0)
    assert "keep_together" in (caught.value.fix or "")
