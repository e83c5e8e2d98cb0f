from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.data.load import load_dataset, long_tailed, profile
from thirtytwo.data.split import hold_out
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, UnknownNameError


@pytest.mark.parametrize(
    ("counts", "ratio", "left"),
    [
        # as published for CIFAR-10-LT
        ([5000] * 10, 100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        ([5000] * 10, 10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
        ([100] * 3, 1, [100, 100, 100]),
        ([100] * 3, 100, [100, 10, 1]),
        ([100] * 3, 1e6, [100, 1, 1]),
        ([10, 100, 20], 4, [10, 50, 20]),
        ([8, 0, 8], 4, [8, 0, 2]),
        ([7], 100, [7]),
    ],
)
def test_profile(counts, ratio, left):
    assert profile(np.array(counts), ratio).tolist() == left


def image_set(counts, first=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(labels), 8, 8, 3), dtype=np.uint8)
    images[:] = (first + np.arange(len(labels)) % 200)[:, None, None, None]
    return ImageSet(images, labels, tuple("abcdefgh"[: len(counts)]), np.arange(len(labels), dtype=np.int64))


def test_only_train_is_thinned_and_by_the_seed():
    data = DataSet("colors", image_set([90, 90, 90]), image_set([9] * 3, 100), image_set([12] * 3, 50), "abc")
    one, again, other = (long_tailed(data, 9, seed) for seed in (0, 0, 1))
    assert one.train.counts.tolist() == [90, 30, 10]
    assert one.val is data.val
    assert one.test is data.test
    assert one.train.rows.tolist() == again.train.rows.tolist()
    assert one.train.rows.tolist() != other.train.rows.tolist()
    assert len(set(one.train.rows.tolist())) == 130
    assert (one.train.images[:, 0, 0, 0] == one.train.rows % 200).all(), "rows still name their images"
    assert one.fingerprint == again.fingerprint
    assert len({one.fingerprint, other.fingerprint, data.fingerprint, long_tailed(data, 3, 0).fingerprint}) == 4
    assert one.name == "colors?imbalance=9"
    (remark,) = one.skipped
    for number in ("140 of 270", "imbalance 9", "90", "10", "seed 0"):
        assert number in remark


def test_validation_held_out_of_train_has_its_tail():
    data = long_tailed(DataSet("colors", image_set([200] * 3), None, image_set([5] * 3), "abc"), 10, 0)
    train, val = hold_out(data.train, 0.1, 0)
    assert (train.counts + val.counts).tolist() == [200, 63, 20]
    assert val.counts[0] > val.counts[1] > val.counts[2] >= 1


def test_any_data_set_has_the_option(make, tmp_path):
    digits = load_dataset("digits?imbalance=10", seed=3)
    assert digits.name == "digits?imbalance=10"
    assert digits.train.counts[-1] == pytest.approx(load_dataset("digits").train.counts.max() / 10, abs=1.5)
    assert digits.test.counts.tolist() == load_dataset("digits").test.counts.tolist()
    for split in ("train", "test"):
        make.parquet(tmp_path / f"cifar100/{split}.parquet", list(range(100)) * 2, label="fine_label",
                     more={"coarse_label": [index // 5 for index in range(100)] * 2})  # fmt: skip
    coarse = load_dataset("cifar100?label=coarse_label&imbalance=5", data_root=tmp_path)
    assert coarse.name == "cifar100?label=coarse_label&imbalance=5"
    assert (coarse.train.counts[0], coarse.train.counts[-1]) == (10, 2)


@pytest.mark.parametrize("value", ["", "0.5", "many", "nan", "inf", "-3"])
def test_ratios_that_are_none(value):
    with pytest.raises(DataError) as caught:
        load_dataset(f"digits?imbalance={value}")
    assert f"imbalance is {value!r}" in caught.value.message
    assert "?imbalance=100" in (caught.value.fix or "")


def test_mistyped_option_is_helped():
    with pytest.raises(UnknownNameError, match="digits .*'imbalanced'.*'imbalance'"):
        load_dataset("digits?imbalanced=3")
