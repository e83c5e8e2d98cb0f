"""Features of bundled models, wrong labels and outliers, on scikit-learn's digits and the photographs in the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.doctor import CHECKS, Finding, Subject
from thirtytwo.doctor.features import (
    choose_larger_model,
    choose_model,
    compute_features,
    dataset_features,
    larger_features,
)
from thirtytwo.fewshot.base import RESIZE
from thirtytwo.images.pixels import resize
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import bundled_models

pytestmark = pytest.mark.long


def subset(data: DataSet, count: int) -> DataSet:
    """The first images of the training set, and no others."""
    return replace(data, train=data.train.take(np.arange(count)), test=None)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return subset(load_dataset("digits"), 800)


def flipped(data: DataSet, count: int, seed: int = 0) -> tuple[DataSet, set[int]]:
    """The data with other labels for `count` images, and their positions."""
    random = np.random.default_rng(seed)
    wrong = random.choice(len(data.train), count, replace=False)
    labels = data.train.labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, 10, count)) % 10
    return replace(data, train=replace(data.train, labels=labels)), set(wrong.tolist())


def findings(code: str, data: DataSet) -> list[Finding]:
    return list(CHECKS.get(code)().run(Subject(data)))


def test_both_checks_run_only_on_request() -> None:
    assert CHECKS.get("T501").costly
    assert CHECKS.get("T502").costly


def test_flipped_labels_are_found_most_suspicious_first(digits: DataSet) -> None:
    data, wrong = flipped(digits, 40)
    (found,) = findings("T501", data)
    suspects = [place.position for (place,) in found.groups]
    assert len(found.notes) == len(suspects)
    assert len(wrong.intersection(suspects)) >= 32
    assert len(wrong.intersection(suspects[:20])) >= 18
    first = suspects[0]
    given, predicted = data.classes[data.train.labels[first]], [float(note.split()[-1]) for note in found.notes]
    assert found.notes[0].startswith(f"labeled {given}, predicted {digits.classes[digits.train.labels[first]]}, ")
    assert np.mean(predicted[:10]) > np.mean(predicted[-10:]), "the probability of the predicted class"


def test_true_labels_give_few_suspects(digits: DataSet) -> None:
    assert sum(len(found.groups) for found in findings("T501", digits)) <= 16


def test_an_image_of_something_else_is_an_outlier(digits: DataSet) -> None:
    images = digits.train.images.copy()
    images[[5, 77]] = np.random.default_rng(0).integers(0, 256, (2, *images.shape[1:]), dtype=np.uint8)
    (found,) = findings("T502", replace(digits, train=replace(digits.train, images=images)))
    places = [place.position for (place,) in found.groups]
    assert set(places[:2]) == {5, 77}
    assert len(places) <= 8


@pytest.mark.parametrize("labels", [[0] * 12, [0, 1], [0] * 6 + [1]])
def test_too_little_data_gives_no_finding(digits: DataSet, labels: list[int]) -> None:
    data = subset(digits, len(labels))
    data = replace(data, train=replace(data.train, labels=np.array(labels)))
    assert findings("T501", data) == []
    assert findings("T502", data) == []


def test_features_are_cached_by_content(digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path))
    data = subset(digits, 20)
    first = Subject(data).features
    assert first.shape[0] == 20
    assert first.dtype == np.float32
    entries = list((tmp_path / "pictures").iterdir())  # codespell:ignore pictures
    again = Subject(flipped(data, 5)[0]).features  # other labels, same images
    assert np.array_equal(first, again)
    assert list((tmp_path / "pictures").iterdir()) == entries  # codespell:ignore pictures
    negative = replace(data.train, images=255 - data.train.images)
    assert not np.array_equal(Subject(replace(data, train=negative)).features, first)


def test_features_are_in_the_order_of_the_images(digits: DataSet) -> None:
    model = bundled_models()["cifar100-tiny"]
    features = compute_features(model, digits.train.images[:40])
    assert np.allclose(features[[3, 9]], compute_features(model, digits.train.images[[3, 9]]), atol=1e-4)


@pytest.mark.parametrize(
    ("classes", "side", "expected"),
    [
        ("cifar10-tiny", 32, "cifar100-tiny"),  # the classes of CIFAR-10 under any name
        ("cifar100-tiny", 32, "cifar10-tiny"),
        (None, 32, "cifar100-tiny"),
        (None, 300, "imagenet"),
    ],
)
def test_the_model_was_not_trained_on_these_labels(
    digits: DataSet, classes: str | None, side: int, expected: str
) -> None:
    from thirtytwo.inference.classifier import load

    names = digits.classes if classes is None else load(classes).classes
    data = replace(digits, train=replace(digits.train, classes=names), sizes={(side, side): len(digits.train)})
    assert choose_model(data).stem == expected


def test_photographs_are_decoded_at_input_size_however_they_are_split(make: SimpleNamespace, tmp_path: Path) -> None:
    folder = str(make.tree(tmp_path / "set", {"ant": 5, "bee": 5}, side=96))
    whole = load_dataset(folder, whole=True).train
    order = np.array([7, 2, 9, 0, 4, 1])
    data = replace(load_dataset(folder), train=whole.take(order[:4]), test=whole.take(order[4:]))
    path = choose_model(data)
    large = load_dataset(folder, image_size=classifier_side(path), resize=RESIZE, whole=True).train.images[order]
    found = dataset_features(data, folder)
    assert np.abs(found - compute_features(path, large)).max() < 1e-3
    assert np.abs(found - dataset_features(replace(data, name="other"))).max() < 1e-3, "from the cache"


def classifier_side(path: Path) -> int:
    return Classifier(path, threads=1).info.input_size


def test_features_of_the_larger_model_are_those_of_its_first_network_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path))
    data = subset(load_dataset("digits"), 24)
    path = choose_larger_model(data)
    assert path is not None
    assert path.stem == "cifar100"
    images = np.asarray(data.train.images)
    found = larger_features(path, images)
    assert found.shape == (24, 1280)
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-3)
    assert np.array_equal(larger_features(path, images), found)
    assert not caplog.records, "the entry of the cache is sound"
    own = Classifier(path).run_batches(np.stack([resize(one, 224, RESIZE) for one in images]), ("features",))[
        "features"
    ]
    own = own[:, :1280] / np.linalg.norm(own[:, :1280], axis=1, keepdims=True)
    assert np.allclose(own, found, atol=2e-3)


def test_photographs_and_data_that_larger_models_were_trained_on_have_none(
    digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_larger_model(replace(digits, sizes={(640, 480): len(digits.train)})) is None
    info = Classifier(bundled_models()["cifar100"]).info
    path = choose_larger_model(replace(digits, name=info.dataset))
    assert path is not None
    assert path.stem == "cifar10"
