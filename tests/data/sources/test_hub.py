from __future__ import annotations

import time

import datasets
import numpy as np
import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.data.sources import hub
from thirtytwo.errors import DataError, OfflineError, OutputError, UnknownNameError


def table(make, labels, names=("ant", "bee"), first=0, label="label"):
    features = datasets.Features({"image": datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    cells = [{"bytes": make.png(first + number), "path": None} for number in range(len(labels))]
    return datasets.Dataset.from_dict({"image": cells, label: labels}, features=features)


class Hub:
    """Replacement for the library's loader."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def __call__(self, path, name=None):
        offline = datasets.config.HF_HUB_OFFLINE
        self.asked.append((path, name, offline))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def answer(monkeypatch):
    def set_answer(value, reachable=True):
        stand_in = Hub(value)
        monkeypatch.setattr(datasets, "load_dataset", stand_in)
        monkeypatch.setattr(hub, "hub_is_reachable", lambda: reachable)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        return stand_in

    return set_answer


def test_any_hub_set_with_labels(make, answer):
    splits = {"train": table(make, [0, 1, 1]), "validation": table(make, [1, 0], first=5), "extra": table(make, [0])}
    stand_in = answer(datasets.DatasetDict(splits | {"test": table(make, [1, 0], first=10)}))
    data = load_dataset("hf:owner/insects?config=big")
    assert stand_in.asked == [("owner/insects", "big", False)]
    assert data.name == "owner/insects?config=big"
    assert data.classes == ("ant", "bee")
    assert data.val is not None
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [3, 2, 2]
    np.testing.assert_array_equal(data.test.images[1], make.pixels(11))
    (skipped,) = data.skipped
    assert "'extra'" in skipped


def test_a_single_split_of_any_name_is_divided(make, answer):
    answer(datasets.DatasetDict({"full": table(make, [0, 1] * 10)}))
    data = load_dataset("hf:owner/insects")
    assert data.test is not None
    assert len(data.train) + len(data.test) == 20
    assert data.train.counts.min() >= 1
    assert data.test.counts.min() >= 1


def test_sets_kept_by_the_library_are_cached_by_content(make, answer, tmp_path):
    splits = datasets.DatasetDict({"train": table(make, [0, 1]), "test": table(make, [0, 1], first=5)})
    splits.save_to_disk(tmp_path / "kept")
    answer(datasets.load_from_disk(tmp_path / "kept"))
    first, second = load_dataset("hf:owner/insects"), load_dataset("hf:owner/insects")
    assert isinstance(second.train.images, np.memmap)
    assert first.fingerprint == second.fingerprint


def test_known_sets_are_looked_for_on_this_machine_before_the_hub_is_asked(make, answer):
    from thirtytwo.data.sources.cifar import CIFAR10_CLASSES

    splits = {
        "train": table(make, list(range(10)), CIFAR10_CLASSES),
        "test": table(make, list(range(10)), CIFAR10_CLASSES),
    }
    stand_in = answer(datasets.DatasetDict(splits))
    assert load_dataset("cifar10").classes == CIFAR10_CLASSES
    assert stand_in.asked == [("uoft-cs/cifar10", None, True)]
    assert datasets.config.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("cifar10", ["cifar10 is not on this machine", "<data root>/cifar10/data/train-*.parquet", "THIRTYTWO_DATA"]),
        ("hf:owner/name", ["owner/name is not on this machine", "<data root>/owner/name/data/train-*.parquet"]),
    ],
)
@pytest.mark.parametrize("with_root", [False, True])
def test_offline_error_names_the_files(spec, words, with_root, answer, tmp_path):
    answer(ConnectionError("no route"), reachable=False)
    with pytest.raises(OfflineError) as caught:
        load_dataset(spec, data_root=tmp_path if with_root else None)
    for word in words:
        if not with_root or "THIRTYTWO_DATA" not in word:
            assert word.replace("<data root>", str(tmp_path) if with_root else "<data root>") in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (datasets.exceptions.DatasetNotFoundError("no"), UnknownNameError, "The hub has no data set 'owner/name'"),
        (ConnectionError("gone"), OfflineError, "cannot be reached"),
        (OSError(28, "No space left on device"), OutputError, "disk is full"),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['a', 'b']"),
            DataError,
            "config=",
        ),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), DataError, "scripts are no longer"),
        (datasets.exceptions.DatasetGenerationError("broken"), DataError, "owner/name cannot be loaded: broken"),
    ],
)
def test_errors_of_the_library_become_one_sentence(raised, error, message, answer):
    answer(raised)
    with pytest.raises(error, match=message) as caught:
        load_dataset("hf:owner/name")
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_data_sets_without_a_label_column_are_an_error(make, answer):
    answer(datasets.DatasetDict({"train": table(make, [0, 1]).remove_columns("label")}))
    with pytest.raises(DataError, match="no label column"):
        load_dataset("hf:owner/name")


def test_the_library_is_not_asked_when_offline_is_set():
    """With HF_HUB_OFFLINE, as set in the tests, the real library must not retry for half a minute."""
    start = time.monotonic()
    with pytest.raises(OfflineError):
        load_dataset("hf:owner/there-is-no-such-set")
    assert time.monotonic() - start < 15
