"""OOD scores and metrics: hand-computed cases, agreement with scikit-learn, errors."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from thirtytwo.errors import DataError
from thirtytwo.evaluation.ood import (
    auroc,
    class_mean,
    class_means,
    false_alarms,
    fpr_at_tpr,
    measure_unknown,
    threshold_at,
)


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
        (lambda: class_mean([[np.inf, 0.0]], [[1.0, 0.0]]), "1 of 1 .*features.*row 0"),
        (lambda: class_mean([1.0, 2.0], [[1.0, 0.0]]), r"features.*\(2,\)"),
        (lambda: auroc([], [1.0]), r"known.*\(0,\)"),
        (lambda: auroc([1.0], [np.nan]), "1 of 1 .*unknown"),
        (lambda: fpr_at_tpr([1.0], []), r"unknown.*\(0,\)"),
    ],
)
def test_invalid_input_raises(use, pattern):
    with pytest.raises(DataError, match=pattern):
        use()
