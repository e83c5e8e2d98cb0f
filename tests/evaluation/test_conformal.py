"""Prediction sets: hand-computed thresholds, coverage and errors."""

import numpy as np
import pytest

from thirtytwo.errors import DataError
from thirtytwo.evaluation.conformal import least_probability, measure_sets, prediction_sets
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.predictions import Predictions


def made(probabilities, truth, classes=None):
    probabilities = np.asarray(probabilities, dtype=np.float32)
    names = classes or tuple(f"class {number}" for number in range(probabilities.shape[1]))
    return Predictions(names, np.asarray(truth), probabilities, np.arange(len(truth)))


def drawn(count, classes=10, seed=0, skill=2.0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes))
    logits[np.arange(count), truth] += skill
    shares = np.exp(logits)
    return made(shares / shares.sum(axis=1, keepdims=True), truth)


def of_truth(values):
    """Two classes; the truth is always the first and has these probabilities."""
    values = np.asarray(values, dtype=np.float32)
    return made(np.stack([values, 1 - values], axis=1), np.zeros(len(values), dtype=np.int64))


@pytest.mark.parametrize(
    ("coverage", "expected"),
    [
        (0.5, 0.5),  # rank ceil(10 * 0.5) = 5 of 9 from the top: 0.9 0.8 0.7 0.6 0.5
        (0.55, 0.4),  # rank ceil(5.5) = 6
        (0.9, 0.1),  # rank 9, the last
        (0.1, 0.9),  # rank 1; 10 * 0.1 must not be rounded up to 2
    ],
)
def test_threshold_is_the_rank_with_the_finite_sample_correction(coverage, expected):
    held_out = of_truth([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5])
    assert least_probability(held_out, coverage) == pytest.approx(expected)


def test_sets_hold_every_class_from_the_threshold_on():
    sets = prediction_sets(np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.29, 0.29, 0.42]]), 0.3)
    assert sets.tolist() == [[True, True, False], [False, False, True], [False, False, True]]
    assert not prediction_sets(np.array([[0.5, 0.5]]), 0.6).any()


def test_metrics_of_a_hand_made_case():
    held_out = of_truth([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5])  # threshold 0.4 at 0.55
    new = made([[0.7, 0.3], [0.45, 0.55], [0.3, 0.7], [0.5, 0.5]], [0, 0, 0, 1])
    found = measure_sets(held_out, new, 0.55)
    assert found["least_probability"] == pytest.approx(0.4)
    assert found["measured"] == {"value": 0.75, "ci95": list(wilson(3, 4))}
    assert found["sizes"] == {"1": 2, "2": 2}
    assert found["mean_size"]["value"] == 1.5
    half = 1.959964 * np.std([1, 2, 1, 2], ddof=1) / 2
    assert found["mean_size"]["ci95"] == pytest.approx([1.5 - half, 1.5 + half])
    assert found["least_covered"] == {"class": "class 0", "coverage": pytest.approx(2 / 3), "support": 3}
    assert (found["calibrated_on"], found["n"], found["coverage"]) == (9, 4, 0.55)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("skill", [0.5, 2.0, 6.0])
def test_coverage_is_within_a_point_of_the_target(coverage, skill):
    found = measure_sets(drawn(10_000, seed=1, skill=skill), drawn(20_000, seed=2, skill=skill), coverage)
    assert found["measured"]["value"] == pytest.approx(coverage, abs=0.01)
    assert sum(found["sizes"].values()) == 20_000


def test_coverage_holds_on_average_over_small_calibrations():
    """Exactly ceil((n + 1) c) / (n + 1) in expectation: for n = 19 and c = 0.8 that is 16 / 20."""
    random = np.random.default_rng(0)
    every = drawn(20_000, seed=3)
    measured = []
    for _ in range(400):
        rows = random.choice(20_000, 519, replace=False)
        first, rest = (made(every.probabilities[part], every.truth[part]) for part in (rows[:19], rows[19:]))
        measured.append(measure_sets(first, rest, 0.8)["measured"]["value"])
    assert np.mean(measured) == pytest.approx(0.8, abs=0.015)


def test_a_better_model_has_smaller_sets():
    sizes = [
        measure_sets(drawn(3000, seed=1, skill=skill), drawn(3000, seed=2, skill=skill), 0.9)["mean_size"]["value"]
        for skill in (1.0, 2.0, 4.0)
    ]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("count", "coverage", "enough"), [(18, 0.95, False), (19, 0.95, True), (99, 0.99, True)])
def test_how_many_rows_a_coverage_needs(count, coverage, enough):
    held_out = of_truth(np.linspace(0.1, 0.9, count))
    if enough:
        assert least_probability(held_out, coverage) == pytest.approx(0.1)
    else:
        with pytest.raises(DataError, match="0.95 .*19 .*18"):
            least_probability(held_out, coverage)


@pytest.mark.parametrize(
    ("held_out", "coverage", "pattern"),
    [
        (of_truth([0.5] * 50), 0.0, "0 .*1; found 0"),
        (of_truth([0.5] * 50), 1.0, "0 .*1; found 1"),
        (of_truth([0.5] * 50), 95.0, "95.* 0.95"),
        (of_truth([0.5] * 50), float("nan"), "nan"),
        (made([[np.nan, 1.0], [0.5, 0.5]], [0, 0]), 0.5, "1 of 2 rows .*row 0"),
        (made(np.empty((0, 2)), np.empty(0, dtype=np.int64)), 0.5, "val_fraction"),
    ],
)
def test_invalid_input_raises(held_out, coverage, pattern):
    with pytest.raises(DataError, match=pattern):
        least_probability(held_out, coverage)


def test_other_classes_raise():
    one = made([[0.5, 0.5]] * 30, [0] * 30, ("cat", "dog"))
    other = made([[0.5, 0.5]] * 30, [0] * 30, ("dog", "cat"))
    with pytest.raises(DataError, match="2 classes.*2 classes"):
        measure_sets(one, other, 0.9)
