"""Temperature and curvature: known answers, hard cases, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax

from thirtytwo.errors import DataError
from thirtytwo.evaluation.calibration import (
    TEMPERATURE_BOUNDS,
    Calibration,
    fit_calibration,
    fit_temperature,
    log_softmax,
    softmax,
)


def negative_log_likelihood(logits, labels, temperature=1.0):
    """Mean negative log-likelihood in nats."""
    logs = log_softmax(np.asarray(logits, dtype=np.float64), temperature)
    return float(-logs[np.arange(len(labels)), labels].mean())


def drawn(count=20_000, width=10, temperature=1.0, seed=0):
    """Logits whose best temperature is known: labels are drawn from their softmax, then they are multiplied."""
    random = np.random.default_rng(seed)
    logits = 2.0 * random.normal(size=(count, width))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 1.9, 6.0])
def test_finds_the_temperature_that_labels_were_drawn_with(temperature):
    assert fit_temperature(*drawn(temperature=temperature)) == pytest.approx(temperature, rel=0.03)


def test_is_the_least_of_the_likelihood_nearby():
    logits, labels = drawn(temperature=2.5)
    best = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, best)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert least < negative_log_likelihood(logits, labels, best * factor)
    assert least < negative_log_likelihood(logits, labels)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
def test_softmax_and_likelihood_agree_with_scipy(temperature):
    logits, labels = drawn(50, 6)
    assert softmax(logits, temperature) == pytest.approx(scipy_softmax(logits / temperature, axis=1))
    expected = -scipy_log_softmax(logits / temperature, axis=1)[np.arange(50), labels].mean()
    assert negative_log_likelihood(logits, labels, temperature) == pytest.approx(expected)


def test_softmax_does_not_overflow():
    assert softmax([[1e30, 0.0], [-1e30, 0.0]]).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_perfect_validation_does_not_sharpen_without_end():
    """200 correct predictions: the confidence is that with one pseudo-sample, (200 + 1/2) / 201."""
    labels = np.arange(200) % 2
    logits = np.where(np.eye(2)[labels] > 0, 2.0, -2.0)
    confidence = softmax(logits, fit_temperature(logits, labels)).max(axis=1)
    assert confidence == pytest.approx(200.5 / 201, abs=1e-4)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[3.0, 0.0]], [1]),  # one row, wrong
        ([[3.0, 0.0]], [0]),  # one row, right
        ([[0.0, 0.0], [0.0, 0.0]], [0, 1]),  # nothing to choose by
        ([[1e6, 0.0], [0.0, 1e6], [1e6, 0.0]], [0, 1, 1]),  # huge
        (np.random.default_rng(0).normal(size=(30, 5)), np.zeros(30, dtype=int)),  # no skill
    ],
)
def test_hard_cases_stay_within_bounds(logits, labels):
    low, high = TEMPERATURE_BOUNDS
    assert low <= fit_temperature(np.asarray(logits), np.asarray(labels)) <= high
    found = fit_calibration(np.asarray(logits), np.asarray(labels))
    assert low <= found.temperature <= high * 1.0001
    assert 0.0 <= found.curvature < np.inf


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 3.0), st.integers(0, 100))
def test_scaling_logits_scales_the_temperature_and_keeps_the_order(factor, seed):
    logits, labels = drawn(400, 4, temperature=1.5, seed=seed)
    one, other = fit_temperature(logits, labels), fit_temperature(logits * factor, labels)
    assert other == pytest.approx(one * factor, rel=1e-3)
    assert (softmax(logits, one).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_bent_logits_by_hand():
    """Logs of 1/2, 1/4, 1/4: -0.6931 and -1.3863 twice; their squares 0.4805 and 1.9218."""
    bent = Calibration(temperature=2.0, curvature=0.5).logits(np.log([[2.0, 1.0, 1.0]]))
    assert bent == pytest.approx(np.array([[0.693147 - 0.240227, -0.960906, -0.960906]]), abs=1e-5)
    scaled = np.exp(np.array([0.452921, -0.960906, -0.960906]) / 2.0)
    found = Calibration(temperature=2.0, curvature=0.5).probabilities(np.log([[2.0, 1.0, 1.0]]))
    assert found[0] == pytest.approx(scaled / scaled.sum(), abs=1e-5)


def test_without_curvature_it_is_a_temperature():
    logits, _ = drawn(30, 6)
    assert Calibration(1.7).probabilities(logits) == pytest.approx(softmax(logits, 1.7))


@pytest.mark.parametrize(("temperature", "curvature"), [(1.0, 0.2), (0.7, 0.5), (2.0, 1.0)])
def test_finds_the_probabilities_that_labels_were_drawn_with(temperature, curvature):
    """Temperature and curvature are correlated, so probabilities are compared instead."""
    random = np.random.default_rng(1)
    logits = 1.5 * random.normal(size=(20_000, 10))
    drawn_with = Calibration(temperature, curvature)
    true = drawn_with.probabilities(logits)
    labels = (np.log(true) + random.gumbel(size=true.shape)).argmax(axis=1)
    found = fit_calibration(logits, labels)
    assert np.abs(found.probabilities(logits) - true).max() < 0.03
    reached = negative_log_likelihood(found.logits(logits), labels, found.temperature)
    assert reached <= negative_log_likelihood(drawn_with.logits(logits), labels, temperature)
    for nearby in (
        Calibration(found.temperature * 1.05, found.curvature),
        Calibration(found.temperature, 0.9 * found.curvature),
    ):
        assert reached < negative_log_likelihood(nearby.logits(logits), labels, nearby.temperature)


def test_undoes_label_smoothing():
    """A network that fits smoothed targets outputs 0.8 p + 0.2 / 10; the curvature brings it nearer to p."""
    random = np.random.default_rng(2)
    true = softmax(3.0 * random.normal(size=(20_000, 10)))
    labels = (np.log(true) + random.gumbel(size=true.shape)).argmax(axis=1)
    smoothed = np.log(0.8 * true + 0.02)
    scaled = softmax(smoothed, fit_temperature(smoothed, labels))
    bent = fit_calibration(smoothed, labels).probabilities(smoothed)
    assert np.abs(bent - true).mean() < 0.6 * np.abs(scaled - true).mean()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 3.0])
def test_no_curvature_where_none_is_needed(temperature):
    logits, labels = drawn(2000, temperature=temperature, seed=4)
    assert fit_calibration(logits, labels) == Calibration(fit_temperature(logits, labels))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0.0, 5.0), st.integers(0, 1000))
def test_bending_keeps_the_order_of_classes(classes, curvature, seed):
    logits = 4.0 * np.random.default_rng(seed).normal(size=(50, classes))
    bent = Calibration(0.8, curvature).logits(logits)
    assert (np.argsort(bent, axis=1) == np.argsort(logits, axis=1)).all()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[np.nan, 0.0], [1.0, 0.0]], [0, 1], "1 of 2 .*row 0"),
        ([[1.0, 0.0], [-np.inf, 0.0]], [0, 1], "row 1"),
        (np.empty((0, 3)), np.empty(0, dtype=int), "val_fraction"),
        ([[1.0, 0.0]], [2], "0 .*1; found 2 to 2"),
        ([[1.0, 0.0]], [0, 1], r"1 .*\(2,\)"),
        ([[1.0, 0.0]], [0.0], "float64"),
        ([1.0, 0.0], [0, 1], r"\(N, C\).*\(2,\)"),
    ],
)
@pytest.mark.parametrize("use", [fit_temperature, fit_calibration])
def test_invalid_input_raises(use, logits, labels, message):
    with pytest.raises(DataError, match=message):
        use(np.asarray(logits), np.asarray(labels))


def test_invalid_settings_raise():
    with pytest.raises(DataError, match="2 .*found 1"):
        fit_temperature(np.ones((3, 1)), np.zeros(3, dtype=int))
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match=str(temperature)):
            softmax(np.ones((1, 2)), temperature)
