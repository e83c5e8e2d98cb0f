from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.data.imageset import ImageSet
from thirtytwo.data.splits import hold_out, limit, split_of
from thirtytwo.errors import DataError


def image_set(*counts: int) -> ImageSet:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels) * 12, dtype=np.int64).astype(np.uint8).reshape(len(labels), 2, 2, 3)
    return ImageSet(images, labels, tuple("abcdefghij"[: len(counts)]), np.arange(len(labels)) + 100)


@pytest.mark.parametrize(
    ("counts", "fraction", "held"),
    [
        ((100, 100), 0.1, (10, 10)),
        ((100, 30), 0.1, (10, 3)),
        ((100, 2), 0.1, (10, 1)),
        ((3, 3), 0.5, (2, 2)),
        ((2, 2), 0.9, (1, 1)),
        ((5, 0, 5), 0.2, (1, 0, 1)),
        ((5, 1), 0.0, (0, 0)),
    ],
)
def test_hold_out_takes_the_fraction_of_every_class(counts, fraction, held):
    images = image_set(*counts)
    train, val = hold_out(images, fraction, seed=3)
    assert tuple(val.counts) == held
    assert tuple(train.counts) == tuple(np.subtract(counts, held))
    assert sorted([*train.rows, *val.rows]) == list(images.rows)
    for part in (train, val):
        assert (np.diff(part.rows) > 0).all()
        for row, label, picture in zip(part.rows, part.labels, part.images, strict=True):
            assert label == images.labels[row - 100]
            np.testing.assert_array_equal(picture, images.images[row - 100])


def test_hold_out_follows_the_seed():
    images = image_set(50, 50)
    first, again, other = (hold_out(images, 0.2, seed)[1].rows.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_hold_out_names_classes_with_one_picture():
    with pytest.raises(DataError, match=r"'b', 'c' have 1 picture each"):
        hold_out(image_set(5, 1, 1), 0.1, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_hold_out_refuses_other_fractions(fraction):
    with pytest.raises(DataError, match="expected 0 or more"):
        hold_out(image_set(5, 5), fraction, 0)


@pytest.mark.parametrize(
    ("counts", "count", "left"),
    [((100, 100), 20, (10, 10)), ((90, 10), 10, (9, 1)), ((98, 1, 1), 10, (8, 1, 1)), ((5, 0, 5), 3, (2, 0, 1)),
     ((7, 5), 2, (1, 1))],
)  # fmt: skip
def test_limit_keeps_shares(counts, count, left):
    found = limit(image_set(*counts), count, seed=1)
    assert len(found) == count
    assert tuple(found.counts) == left
    assert (np.diff(found.rows) > 0).all()


def test_limit_leaves_small_sets_alone_and_refuses_too_few():
    images = image_set(3, 3)
    assert limit(images, 6, 0) is images
    with pytest.raises(DataError, match="1 pictures cannot cover 2 classes"):
        limit(images, 1, 0)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Train", "train"), ("training", "train"), ("train-00000-of-00003", "train"),
        ("validation", "val"), ("valid", "val"), ("val_0", "val"), ("dev", "val"), ("test", "test"),
        ("testing", "test"), ("test.0", "test"),
        ("trains", None), ("train cars", None), ("trainer", None), ("testudo", None), ("", None),
        ("cat", None), ("0", None), ("train_extra", None),
    ],
)  # fmt: skip
def test_split_names(name, split):
    assert split_of(name) == split
