from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from thirtytwo.config.resolve import read_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import covering_sample, divide, hold_out, limit, split_of, split_off, uneven_share
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError


def image_set(*counts: int) -> ImageSet:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    images = np.arange(len(labels) * 12, dtype=np.int64)[:, None].view(np.uint8)[:, :4].reshape(len(labels), 4, 4, 3)
    return ImageSet(images, labels, tuple("abcdefghij"[: len(counts)]), np.arange(len(labels)) + 100)


def noise(*counts: int, first: int = 0) -> ImageSet:
    """Distinct images, ordered by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = [np.random.default_rng([first, n]).integers(0, 256, (4, 4, 3), dtype=np.uint8) for n in range(len(labels))]
    return ImageSet(np.stack(images), labels, tuple("abcdefghij"[: len(counts)]), np.arange(len(labels)))


def contents(images: ImageSet) -> set[int]:
    return set(images.hashes.tolist())


@pytest.mark.parametrize(
    ("counts", "fraction"),
    [((400, 400), 0.1), ((400, 30), 0.1), ((100, 2), 0.1), ((3, 3), 0.5), ((2, 2), 0.9), ((5, 0, 5), 0.2)],
)
@pytest.mark.parametrize("seed", range(5))
def test_hold_out_takes_about_the_fraction_of_every_class(counts, fraction, seed):
    images = image_set(*counts)
    train, val = hold_out(images, fraction, seed)
    for count, kept, held in zip(counts, train.counts, val.counts, strict=True):
        assert kept + held == count
        assert min(kept, held) >= min(count, 1)
        assert held == pytest.approx(fraction * count, abs=max(1.0, 4 * (fraction * (1 - fraction) * count) ** 0.5))
    assert sorted([*train.rows, *val.rows]) == list(images.rows)
    for part in (train, val):
        assert (np.diff(part.rows) > 0).all()
        for row, label, image in zip(part.rows, part.labels, part.images, strict=True):
            assert label == images.labels[row - 100]
            np.testing.assert_array_equal(image, images.images[row - 100])


def test_a_fraction_of_nothing_holds_nothing_out():
    train, val = hold_out(image_set(5, 1), 0.0, 3)
    assert (len(train), len(val)) == (6, 0)


@pytest.mark.parametrize("count", [3, 4, 5, 10, 40])
@pytest.mark.parametrize("seed", range(8))
def test_one_image_more_or_less_moves_at_most_one_other(count, seed):
    """No image moves where a class has images on both sides."""
    images, added = noise(count, count), noise(count, count + 1)
    before, after = (contents(hold_out(one, 0.2, seed)[1]) for one in (images, added))
    new = contents(added) - contents(images)
    assert len(new) == 1
    moved = (before ^ after) - new
    assert len(moved) <= (1 if count < 20 else 0)
    fewer = contents(hold_out(added.take(np.arange(1, len(added))), 0.2, seed)[1])
    assert len((after ^ fewer) - {int(added.hashes[0])}) <= 1


@pytest.mark.parametrize("seed", range(8))
def test_what_was_trained_on_is_not_held_out_once_there_is_more(seed):
    everything = noise(60, 60)
    few = everything.take(np.concatenate([np.arange(8), np.arange(60, 68)]))
    trained = contents(hold_out(few, 0.2, seed)[0])
    assert not trained & contents(hold_out(everything, 0.2, seed)[1])


def test_order_and_names_mean_nothing():
    images = noise(30, 30)
    order = np.random.default_rng(1).permutation(60)
    assert contents(hold_out(images, 0.2, 1)[1]) == contents(hold_out(images.take(order), 0.2, 1)[1])


def test_validation_and_test_are_drawn_apart():
    kept, aside = split_off(noise(200, 200), 0.2, 0, "testing")
    val = hold_out(noise(200, 200).take(kept), 0.2, 0)[1]
    assert len(aside) == pytest.approx(80, abs=32)
    assert len(val) == pytest.approx(64, abs=30)


def test_copies_stay_together_also_across_classes():
    images = noise(30, 30)
    twice = images.take(np.concatenate([np.arange(60), np.arange(0, 60, 2)]))
    labels = twice.labels.copy()
    labels[60:70] = 1
    train, val = hold_out(replace(twice, labels=labels), 0.3, 2)
    assert not contents(train) & contents(val)
    assert contents(train) | contents(val) == contents(images)


def test_groups_stay_together_and_classes_are_on_both_sides():
    images = noise(20, 20)
    groups = np.arange(40, dtype=np.uint64) // 4
    groups[[0, 39]] = 77  # one that spans both classes
    grouped = replace(images, groups=groups)
    for seed in range(6):
        train, val = hold_out(grouped, 0.2, seed)
        assert not set(train.groups.tolist()) & set(val.groups.tolist())
        assert min(train.counts.min(), val.counts.min()) >= 1


def test_groups_that_share_an_image_are_one():
    images = noise(12, 12)
    joined = images.take(np.concatenate([np.arange(24), [0]]))
    groups = np.append(np.arange(24, dtype=np.uint64) // 3, np.uint64(7))  # image 0 is in the groups 0 and 7
    for seed in range(6):
        train, val = hold_out(replace(joined, groups=groups), 0.3, seed)
        sides = [{0, 7} & set(part.groups.tolist()) for part in (train, val)]
        assert sorted(map(len, sides)) == [0, 2]
        assert not contents(train) & contents(val)


def test_a_class_of_one_group_cannot_be_divided():
    images = replace(noise(6, 6), groups=np.repeat(np.arange(4, dtype=np.uint64), [6, 2, 2, 2]))
    with pytest.raises(DataError, match=r"'a' has 1 group"):
        hold_out(images, 0.2, 0)


def test_a_class_of_copies_cannot_be_divided():
    with pytest.raises(DataError, match=r"'a' has 1 distinct image"):
        hold_out(noise(1, 6).take(np.array([0, 0, 0, 1, 2, 3, 4])), 0.2, 0)


def test_hold_out_follows_the_seed():
    images = image_set(50, 50)
    first, again, other = (hold_out(images, 0.2, seed)[1].rows.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_hold_out_names_classes_with_one_image():
    with pytest.raises(DataError, match=r"'b', 'c' have 1 image each"):
        hold_out(image_set(5, 1, 1), 0.1, 0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_hold_out_rejects_invalid_fractions(fraction):
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


def test_limit_keeps_small_sets_and_rejects_too_few():
    images = image_set(3, 3)
    assert limit(images, 6, 0) is images
    with pytest.raises(DataError, match="1 image .*2 classes") as caught:
        limit(images, 1, 0, "--own")
    assert "--own" in str(caught.value.fix)


@pytest.mark.parametrize(("count", "left"), [(1, (1, 0, 1)), (4, (2, 0, 2)), (9, (3, 0, 3))])
def test_a_sample_covers_every_class_where_there_are_more_than_it_has_room_for(count, left):
    assert tuple(covering_sample(image_set(3, 0, 3), count, 0).counts) == left


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


def test_an_uneven_share_by_large_groups_is_remarked_on():
    images = noise(50, 50)
    large = replace(images, groups=np.where(np.arange(100) < 38, 7, np.arange(100) + 100).astype(np.uint64))
    (remark,) = uneven_share(large, np.array([38, 0]), 0.2, "test")
    assert "test has 38" in remark
    assert "up to 38" in remark
    assert uneven_share(large, np.array([12, 13]), 0.2, "test") == ()
    assert uneven_share(large, np.array([0, 0]), 0.0, "val") == ()


def test_an_uneven_share_is_not_blamed_on_pairs():
    """Which images are drawn depends on their content; a few pairs hardly change how many."""
    images = noise(30, 30)
    paired = replace(images, near=np.array([*range(50), *range(10)], dtype=np.uint64))
    for given in (images, paired):
        (remark,) = uneven_share(given, np.array([4, 4]), 0.2, "test")
        assert "test has 13" in remark
        assert "content" in remark
        assert "belong together" not in remark


@pytest.mark.parametrize(
    ("held", "remarked"),
    [((12, 12), False), ((9, 15), False), ((16, 15), True), ((9, 9), True), ((3, 21), True), ((26, 0), True)],
)
def test_shares_far_from_the_wanted_ones_are_remarked_on(held, remarked):
    """12 of 60 images of each class are wanted."""
    found = uneven_share(noise(60, 60), np.array(held), 0.2, "test", 3)
    assert bool(found) == remarked
    if remarked:
        assert f"{sum(held)} of 120" in found[0]
        assert "data.split_seed=4" in found[0]
        assert ("of 60 images of 'a'" in found[0]) == (min(held) < 9)


def test_the_remark_is_made_where_a_test_set_is_split_off_and_where_validation_is(make, tmp_path):
    """Of 16 images, the share of some seed is far from a fifth or a tenth."""
    root = make.tree(tmp_path / "set", {"a": 8, "b": 8})
    found = [load_dataset(str(root), seed=seed) for seed in range(6)]
    shares = [len(data.test) / 16 for data in found]
    for data, share in zip(found, shares, strict=True):
        remarked = any("are wanted" in warning for warning in data.warnings)
        assert remarked == (not 0.16 <= share <= 0.25)
    assert len({0.16 <= share <= 0.25 for share in shares}) == 2
    notes = divide(found[0], read_recipe("fast")).notes  # 2 of at most 14
    assert any(note.startswith("val has") and "are wanted" in note for note in notes)
