"""CIFAR-10 and CIFAR-100: all expected numbers are published with the data."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thirtytwo.data.load import load_dataset, open_undecoded
from thirtytwo.data.sources.cifar import CIFAR10_CLASSES, CIFAR100, CIFAR100_GROUPS
from thirtytwo.data.sources.parquet import ParquetTable
from thirtytwo.data.split import hold_out
from thirtytwo.doctor import examine

pytestmark = pytest.mark.realdata


def stored(data_root, name: str, split: str, row: int) -> np.ndarray:
    """An image decoded by Pillow alone; negative rows count from the end."""
    file = sorted((data_root / name).rglob(f"{split}-*.parquet"))[0 if row >= 0 else -1]
    cell = pq.read_table(file, columns=["img"])["img"][row].as_py()
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))


@pytest.mark.long
def test_long_tailed_cifar10_has_its_published_size(data_root):
    data = load_dataset("cifar10?imbalance=100", data_root=data_root)
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (12_406, 10_000)


@pytest.mark.long
@pytest.mark.parametrize(("name", "classes", "per_class"), [("cifar10", 10, 5000), ("cifar100", 100, 500)])
def test_counts_and_first_and_last_images(name, classes, per_class, data_root):
    data = load_dataset(name, data_root=data_root)
    assert data.test is not None
    assert data.train.images.shape == (50_000, 32, 32, 3)
    assert data.test.images.shape == (10_000, 32, 32, 3)
    assert data.train.counts.tolist() == [per_class] * classes
    assert data.test.counts.tolist() == [per_class // 5] * classes
    assert data.sizes == {(32, 32): 60_000}
    assert data.skipped == ()
    for split, images in (("train", data.train), ("test", data.test)):
        for row in (0, -1):
            np.testing.assert_array_equal(images.images[row], stored(data_root, name, split, row))


@pytest.mark.slow
def test_cifar10_is_the_published_one(data_root):
    data = load_dataset("cifar10", data_root=data_root)
    assert data.test is not None
    assert data.classes == CIFAR10_CLASSES
    assert [data.classes[label] for label in data.train.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    assert [data.classes[label] for label in data.test.labels[:4]] == ["cat", "ship", "ship", "airplane"]
    mean = data.train.images.reshape(-1, 3).mean(axis=0) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_cifar100_names_and_superclasses_are_those_of_the_file(data_root):
    data = load_dataset("cifar100", data_root=data_root)
    file = sorted((data_root / "cifar100").rglob("train-*.parquet"))[0]
    table = pq.read_table(file, columns=["fine_label", "coarse_label"])
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(data.classes) == features["fine_label"]["names"]
    assert list(CIFAR100_GROUPS) == features["coarse_label"]["names"] == list(CIFAR100.classes["coarse_label"])
    assert data.superclasses is not None
    pairs = set(zip(table["fine_label"].to_pylist(), table["coarse_label"].to_pylist(), strict=True))
    groups = features["coarse_label"]["names"]
    assert {data.classes[fine]: groups[coarse] for fine, coarse in pairs} == dict(data.superclasses)
    assert len(groups) == 20
    assert {len(names) for names in CIFAR100_GROUPS.values()} == {5}


def test_validation_is_about_a_tenth_of_every_class(data_root):
    train, val = hold_out(load_dataset("cifar10", data_root=data_root).train, 0.1, seed=0)
    assert (train.counts + val.counts).tolist() == [5000] * 10
    assert val.counts == pytest.approx([500] * 10, abs=4 * (5000 * 0.1 * 0.9) ** 0.5)
    assert not np.isin(train.hashes, val.hashes).any()


def test_at_the_second_start_no_image_is_decoded(data_root, monkeypatch):
    before = load_dataset("cifar10", data_root=data_root)

    def unexpected(table, name):
        pytest.fail(f"{name} of {table.files[0]} was read")

    monkeypatch.setattr(ParquetTable, "batches", unexpected)
    data = load_dataset("cifar10", data_root=data_root)
    assert isinstance(data.train.images, np.memmap)
    assert data.fingerprint == before.fingerprint


@pytest.mark.long
def test_the_doctor_finds_the_known_duplicates(data_root):
    """CIFAR-100 holds 10 groups of equal images that cross train and test."""
    texts = [finding.what for finding in examine(load_dataset("cifar100", data_root=data_root))]
    assert any(what.startswith("10 groups") and "more than one split" in what for what in texts), texts


@pytest.mark.parametrize(
    ("name", "columns"), [("cifar100", ()), ("cifar100?label=coarse_label", ("fine_label",)), ("cifar10", ())]
)
def test_superclasses_that_follow_from_the_class_are_no_other_column(name, columns, data_root):
    assert open_undecoded(name, data_root=data_root).parts["train"].columns == columns
