from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thirtytwo.inference.classifier import Classifier, Prediction, load
from thirtytwo.inference.model_file import TtaInfo, usual_tta
from thirtytwo.inference.views import averaged, further_views


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load("cifar10-tiny")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Blurred noise, of which a model is more or less sure."""
    noise = np.random.default_rng(3).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    return noise.repeat(8, axis=1).repeat(8, axis=2)


def confidences(found: list) -> list[float]:
    assert all(isinstance(result, Prediction) for result in found)
    return [result.confidence for result in found]


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_views_have_a_weight_of_one_with_the_image_itself(shift: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    views = further_views(images, shift)
    assert len(views) == (5 if shift else 1)
    own = 1 - sum(weight for weight, _ in views)
    assert own == pytest.approx(views[0][0])
    assert all(view.shape == images.shape and view.flags.c_contiguous for _, view in views)
    assert (views[0][1] == images[:, :, ::-1]).all()
    if shift:
        assert (views[1][1][:, shift:, shift:] == images[:, :-shift, :-shift]).all()
        assert (views[3][1][:, :-shift, :-shift] == images[:, shift:, shift:]).all()


def test_the_average_is_that_of_the_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(2, 5, 7)).astype(np.float32)
    exp = np.exp(logits)
    single = exp / exp.sum(axis=-1, keepdims=True)
    mean = np.exp(0.25 * logits[0] + 0.75 * logits[1])
    expected = mean / mean.sum(axis=1, keepdims=True)
    assert averaged([(0.25, single[0]), (0.75, single[1])]) == pytest.approx(expected, abs=1e-6)
    certain = np.eye(3, dtype=np.float32)
    assert np.isfinite(averaged([(0.5, certain), (0.5, certain[::-1])])).all()


def test_only_images_in_doubt_get_further_views(classifier: Classifier, images: np.ndarray) -> None:
    single, full = (confidences(classifier.predict(images, tta=tta)) for tta in ("off", "all"))
    assert single == confidences(classifier.predict(images))
    threshold = float(np.median(single))
    chosen = load("cifar10-tiny")
    chosen.info = chosen.info.model_copy(update={"tta": TtaInfo(shift=1, threshold=threshold)})
    auto = confidences(chosen.predict(images, tta="auto"))
    doubtful = [value < threshold for value in single]
    assert 0 < sum(doubtful) < len(images)
    expected = [views if doubt else one for one, views, doubt in zip(single, full, doubtful, strict=True)]
    assert auto == pytest.approx(expected, abs=2e-5)
    assert full != pytest.approx(single, abs=1e-3)


def test_mirror_images_are_predicted_alike_with_all_views(classifier: Classifier, images: np.ndarray) -> None:
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    chosen = load(classifier.path)
    chosen.info = chosen.info.model_copy(update={"tta": TtaInfo(shift=0, threshold=0)})
    one, other = (confidences(chosen.predict(which, tta="all")) for which in (images, mirrored))
    assert one == pytest.approx(other, abs=1e-4)


def test_known_is_decided_on_one_view(classifier: Classifier, images: np.ndarray) -> None:
    known = [[result.known for result in classifier.predict(images, tta=tta)] for tta in ("off", "all")]
    assert known[0] == known[1]


def test_decoded_batches_and_unreadable_files(classifier: Classifier, images: np.ndarray, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    found = classifier.predict([images[0], broken, images[1]], tta="all")
    assert [type(result).__name__ for result in found] == ["Prediction", "UnreadableImage", "Prediction"]
    batch = classifier.classify(images[:2], tta="all")
    assert confidences(batch) == pytest.approx(confidences([found[0], found[2]]), abs=2e-5)


def test_large_inputs_are_only_mirrored() -> None:
    assert usual_tta(32).shift == 1
    assert usual_tta(224).shift == 0
