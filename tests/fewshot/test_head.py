from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.errors import ModelFileError
from thirtytwo.fewshot import graph
from thirtytwo.fewshot.head import BLEND, SHRINKAGE, blend_for, fit_head


def blobs(counts: list[int], width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return 5.0 + random.normal(size=(len(counts), width))[labels] + random.normal(size=(len(labels), width)), labels


@pytest.mark.parametrize(("counts", "width"), [([8, 8], 40), ([20, 15, 30], 6), ([5, 40, 9], 40)])
def test_the_minimum_agrees_with_scikit_learn(counts: list[int], width: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs(counts, width)
    penalty = 1e-2
    weight = (1 / (len(counts) * np.array(counts)))[labels]
    centered = features - weight @ features
    scaled = centered / np.sqrt(weight @ (centered**2).sum(axis=1))
    if len(counts) == 2:  # its two-class model has one weight vector, the difference of ours
        reference = linear_model.LogisticRegression(C=2 / penalty, fit_intercept=False, tol=1e-10, max_iter=5000)
        expected = reference.fit(scaled, labels, sample_weight=weight).decision_function(scaled)
        logits = fit_head(features, labels, 2, penalty).logits(features)
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=2e-3)
        return
    reference = linear_model.LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10, max_iter=5000)
    expected = reference.fit(scaled, labels, sample_weight=weight).decision_function(scaled)
    logits = fit_head(features, labels, len(counts), penalty).logits(features)
    logits -= logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected - expected.mean(axis=1, keepdims=True), atol=2e-3)


@pytest.mark.parametrize(("counts", "width"), [([9, 9], 40), ([20, 20, 20], 6), ([12, 12, 12, 12], 60)])
def test_discriminant_analysis_agrees_with_scikit_learn(counts: list[int], width: int) -> None:
    analysis = pytest.importorskip("sklearn.discriminant_analysis")
    features, labels = blobs(counts, width)
    equal = np.full(len(counts), 1 / len(counts))
    reference = analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=equal)
    reference.fit(features, labels)
    expected = features @ reference.coef_.T + reference.intercept_
    if len(counts) == 2:
        expected = np.hstack([-expected, expected]) / 2
    expected -= expected.mean(axis=1, keepdims=True)
    logits = fit_head(features, labels, len(counts), blend=1.0).logits(features)
    logits -= logits.mean(axis=1, keepdims=True)
    scale = (logits * expected).sum() / (expected**2).sum()
    assert scale > 0
    np.testing.assert_allclose(logits, scale * expected, atol=1e-6)


def test_the_blend_is_an_average_of_both_with_equal_norms() -> None:
    features, labels = blobs([15, 15, 15])
    logistic, analysis, both = (fit_head(features, labels, 3, blend=blend) for blend in (0.0, 1.0, 0.5))
    assert np.linalg.norm(analysis.weights) == pytest.approx(np.linalg.norm(logistic.weights))
    np.testing.assert_allclose(both.weights, (logistic.weights + analysis.weights) / 2, atol=1e-9)
    np.testing.assert_allclose(both.bias, (logistic.bias + analysis.bias) / 2, atol=1e-9)


def test_few_images_are_left_to_logistic_regression() -> None:
    assert blend_for(np.repeat([0, 1], [7, 90]), 2) == 0
    assert blend_for(np.repeat([0, 1], [8, 90]), 2) == BLEND
    features = np.ones((20, 4))  # constant: nothing to analyze
    assert np.isfinite(fit_head(features, np.arange(20) % 2, 2, blend=BLEND).weights).all()


def test_classes_are_balanced() -> None:
    features = np.array([[-1.0, 0.1]] * 2 + [[1.0, -0.1]] * 50)
    head = fit_head(features, np.array([0] * 2 + [1] * 50), 2)
    np.testing.assert_allclose(np.diff(head.logits([[0.0, 0.0]])), 0.0, atol=1e-9)


def test_constant_features_give_zero_logits() -> None:
    head = fit_head(np.ones((10, 4)), np.arange(10) % 2, 2)
    np.testing.assert_allclose(head.logits(np.ones((1, 4))), 0.0, atol=1e-9)


def test_a_failure_without_a_message_names_its_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(graph, "open_session", fail)
    with pytest.raises(ModelFileError, match="RuntimeError"):
        graph._check_runs(tmp_path / "probe.onnx", SimpleNamespace(input_size=8), tmp_path / "model.onnx")
