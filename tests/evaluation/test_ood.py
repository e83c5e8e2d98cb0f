"""OOD scores and metrics: hand-computed cases, agreement with scikit-learn and SciPy, errors."""

import math

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from thirtytwo.errors import DataError
from thirtytwo.evaluation.ood import (
    LOGIT_SCORES,
    auroc,
    class_mean,
    class_means,
    energy,
    false_alarms,
    fpr_at_tpr,
    max_logit,
    max_softmax,
    measure_unknown,
    nearest,
    threshold_at,
)


def test_scores_of_a_hand_made_row():
    logits = [[math.log(2.0), math.log(3.0), math.log(5.0)], [0.0, 0.0, 0.0]]
    assert max_softmax(logits) == pytest.approx([0.5, 1 / 3])
    assert max_logit(logits) == pytest.approx([math.log(5.0), 0.0])
    assert energy(logits) == pytest.approx([math.log(10.0), math.log(3.0)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_scores_agree_with_scipy(temperature):
    logits = np.random.default_rng(0).normal(0, 5, (200, 7))
    assert max_softmax(logits, temperature) == pytest.approx(softmax(logits / temperature, axis=1).max(axis=1))
    assert energy(logits, temperature) == pytest.approx(temperature * logsumexp(logits / temperature, axis=1))


def test_class_means_by_hand():
    """Lengths do not matter: (3, 0) and (0, 5) are directions whose mean is (1, 1) / 2."""
    means = class_means([[3.0, 0.0], [0.0, 5.0], [0.0, -2.0]], [0, 0, 1], 3)
    assert means == pytest.approx(np.array([[math.sqrt(0.5), math.sqrt(0.5)], [0.0, -1.0], [0.0, 0.0]]))
    scores = class_mean([[2.0, 2.0], [4.0, 0.0], [-1.0, -1.0], [0.0, 0.0]], means)
    assert scores == pytest.approx([1.0, math.sqrt(0.5), math.sqrt(0.5), 0.0], abs=1e-6)


@pytest.mark.parametrize("labels", [[0], [0, 3], [0, -1]])
def test_labels_that_do_not_fit_the_features_are_refused(labels):
    with pytest.raises(DataError, match="2 .*0 to 2"):
        class_means([[1.0, 0.0], [0.0, 1.0]], labels, 3)


def test_large_logits_do_not_overflow():
    for score in LOGIT_SCORES.values():
        assert np.isfinite(score([[1e5, -1e5], [-1e5, -1e5]])).all()


def test_nearest_of_a_hand_made_bank():
    bank = [[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]]  # directions east, north, west
    found = nearest([[9.0, 0.0], [1.0, 1.0], [0.0, -1.0]], bank, k=1)
    assert found == pytest.approx([0.0, -math.sqrt(2 - math.sqrt(2)), -math.sqrt(2)], abs=1e-3)
    assert nearest([[9.0, 0.0]], bank, k=3) == pytest.approx([-2.0])


@pytest.mark.parametrize("k", [1, 5, 40])
def test_nearest_agrees_with_scikit_learn(k):
    random = np.random.default_rng(0)
    bank, features = random.normal(size=(40, 6)), random.normal(size=(1500, 6))
    unit_bank, unit = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (bank, features))
    expected = NearestNeighbors(n_neighbors=k).fit(unit_bank).kneighbors(unit)[0][:, -1]
    assert nearest(features, bank, k) == pytest.approx(-expected, abs=1e-4)


@pytest.mark.parametrize(
    ("known", "unknown", "area", "false_positives"),
    [
        ([3.0, 4.0], [1.0, 2.0], 1.0, 0.0),
        ([1.0, 2.0], [3.0, 4.0], 0.0, 1.0),
        ([1.0, 1.0], [1.0], 0.5, 1.0),  # all scores equal
        ([1.0, 3.0], [2.0, 0.0], 0.75, 0.5),  # of four pairs three in order; 1 must be kept, and 2 is above it
        ([2.0, 3.0], [2.0, 1.0], 0.875, 0.5),  # a tie counts half, and a tied one is accepted as known
    ],
)
def test_areas_and_false_positives_by_hand(known, unknown, area, false_positives):
    assert auroc(known, unknown) == pytest.approx(area)
    assert fpr_at_tpr(known, unknown) == pytest.approx(false_positives)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (20, 30), (100, 57), (1000, 400)])
def test_areas_and_false_positives_agree_with_scikit_learn(sizes, ties):
    random = np.random.default_rng(sum(sizes))
    known, unknown = random.normal(1.0, 1.0, sizes[0]), random.normal(0.0, 1.0, sizes[1])
    if ties:
        known, unknown = np.round(known), np.round(unknown)
    labels, values = np.repeat([1, 0], sizes), np.concatenate([known, unknown])
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(labels, values))
    false_positives, true_positives, _ = roc_curve(labels, values, drop_intermediate=False)
    assert fpr_at_tpr(known, unknown) == pytest.approx(false_positives[np.argmax(true_positives >= 0.95 - 1e-12)])


def test_threshold_gives_the_requested_false_alarm_rate():
    known = np.random.default_rng(0).normal(size=5000)
    threshold = threshold_at(known, 0.05)
    assert false_alarms(known, threshold) == pytest.approx(0.05, abs=1e-3)
    found = measure_unknown(known, known - 10.0, threshold)
    assert found == {"auroc": pytest.approx(1.0), "fpr95": 0.0, "called_unknown": 1.0}


@pytest.mark.parametrize(
    ("use", "pattern"),
    [
        (lambda: max_logit([[1.0, np.nan]]), "1 of 1 .*logits.*row 0"),
        (lambda: energy([1.0, 2.0]), r"logits.*\(2,\)"),
        (lambda: nearest([[1.0, 0.0]], [[1.0, 0.0, 0.0]]), "2 .*3"),
        (lambda: nearest([[1.0, 0.0]], [[1.0, 0.0]], k=2), "1 to 1.*2"),
        (lambda: nearest([[np.inf, 0.0]], [[1.0, 0.0]], k=1), "1 of 1 .*features.*row 0"),
        (lambda: auroc([], [1.0]), r"known.*\(0,\)"),
        (lambda: auroc([1.0], [np.nan]), "1 of 1 .*unknown"),
        (lambda: fpr_at_tpr([1.0], []), r"unknown.*\(0,\)"),
    ],
)
def test_invalid_input_raises(use, pattern):
    with pytest.raises(DataError, match=pattern):
        use()
