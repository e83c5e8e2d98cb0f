"""Doubtful labels are predicted again on better features, by a probe that was not fitted on the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from thirtytwo.doctor import second_probe
from thirtytwo.doctor.label_probe import predict_held_out
from thirtytwo.doctor.second_probe import choose_images, predict_doubted
from thirtytwo.predictions import Predictions

CLASSES = ("a", "b", "c")
N = 900

Floats = npt.NDArray[np.float32]


def clusters(noise: float, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features around three centers, and the true labels."""
    truth = np.arange(N) % 3
    random = np.random.default_rng(seed)
    return (np.eye(3)[truth] + random.normal(0.0, noise, (N, 3))).astype(np.float32), truth


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_probe, "DOUBTED", 200)
    monkeypatch.setattr(second_probe, "SAMPLE", 300)


@pytest.fixture
def given() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Labels of which 5 % are wrong, and which are."""
    _, truth = clusters(0.0, 0)
    wrong = np.random.default_rng(1).random(N) < 0.05
    return np.where(wrong, (truth + 1) % 3, truth), wrong


def named(predictions: Predictions, wrong: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Precision and recall of the contradicted labels."""
    contradicted = ~predictions.correct
    return float(wrong[contradicted].mean()), float(contradicted[wrong].mean())


def test_better_features_find_more_and_accuse_fewer(small: None, given: tuple[npt.NDArray[np.int64], ...]) -> None:
    labels, wrong = given
    first = predict_held_out(clusters(0.6, 2)[0], labels, CLASSES)
    better, asked = clusters(0.25, 3)[0], []

    def features_of(positions: npt.NDArray[np.int64]) -> Floats:
        asked.append(len(positions))
        return better[positions]

    second = predict_doubted(first, features_of)
    assert asked[0] <= 500
    assert named(second, wrong)[0] > named(first, wrong)[0] + 0.2
    assert named(second, wrong)[1] > 0.9


def test_worse_features_change_nothing(small: None, given: tuple[npt.NDArray[np.int64], ...]) -> None:
    first = predict_held_out(clusters(0.25, 2)[0], given[0], CLASSES)
    assert predict_doubted(first, lambda positions: clusters(2.0, 3)[0][positions]) is first


def test_no_image_is_predicted_by_a_probe_that_saw_it(small: None, given: tuple[npt.NDArray[np.int64], ...]) -> None:
    labels, wrong = given
    noise = np.random.default_rng(4).normal(size=(N, N)).astype(np.float32)  # tells images, says nothing of labels
    features = np.concatenate([clusters(0.2, 3)[0], 0.02 * noise], axis=1)
    first = predict_held_out(clusters(0.6, 2)[0], labels, CLASSES)
    second = predict_doubted(first, lambda positions: features[positions])
    assert named(second, wrong)[1] > 0.9, "a probe that saw a wrong label would repeat it"


def test_the_sample_is_drawn_of_all_images(small: None, given: tuple[npt.NDArray[np.int64], ...]) -> None:
    first = predict_held_out(clusters(0.6, 2)[0], given[0], CLASSES)
    chosen, sampled = choose_images(first)
    assert (np.diff(chosen) > 0).all()
    assert sampled.sum() == 300
    doubted = np.setdiff1d(chosen, chosen[sampled])
    assert not first.correct[doubted].any() or first.correct[doubted].mean() < first.correct[chosen[sampled]].mean()


def test_classes_that_the_sample_lacks_leave_the_first_predictions(small: None) -> None:
    _, truth = clusters(0.0, 0)
    labels = np.where(np.arange(N) < 6, 2, truth % 2)
    first = predict_held_out(clusters(0.3, 2)[0], labels, CLASSES)
    assert predict_doubted(first, lambda _: pytest.fail("no features are needed")) is first
