"""Metrics: agreement with scikit-learn, hand-computed cases and invariants."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from thirtytwo.config.recipe import MONITORS
from thirtytwo.errors import DataError
from thirtytwo.evaluation.metrics import METRICS as TABLE
from thirtytwo.evaluation.metrics import (
    compute_metrics,
    confidence_metrics,
    confusion_matrix,
    measured,
    metric_of,
    proportion,
    reliability,
    wilson,
)
from thirtytwo.predictions import Predictions

KEYS = [
    "dataset",
    "split",
    "n",
    "accuracy",
    "accuracy_tta",
    "top5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "nll",
    "brier",
    "ece",
    "per_class",
    "confusions",
    "superclass_accuracy",
    "test_evaluations",
]
METRICS = KEYS[3:12]


def predictions(truth, probabilities, classes=None):
    probabilities = np.asarray(probabilities, dtype=np.float32)
    names = classes or [f"class {index}" for index in range(probabilities.shape[1])]
    return Predictions(tuple(names), np.asarray(truth, dtype=np.int64), probabilities, np.arange(len(truth)))


def drawn(count, width, seed=0, skill=1.5):
    """Random predictions that are right more often than chance."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, width, count)
    logits = random.normal(size=(count, width))
    logits[np.arange(count), truth] += skill
    shares = np.exp(logits)
    return predictions(truth, shares / shares.sum(axis=1, keepdims=True))


def scored(given, **more):
    return compute_metrics(given, **{"dataset": "d", "split": "test", "test_evaluations": 1, "resamples": 50, **more})


@pytest.mark.parametrize(("count", "width", "seed"), [(300, 10, 0), (57, 6, 1), (800, 40, 2), (40, 3, 3), (12, 30, 4)])
@pytest.mark.filterwarnings("ignore:The number of unique classes is greater")
def test_agrees_with_scikit_learn(count, width, seed):
    given = drawn(count, width, seed)
    found = scored(given)
    truth, predicted, labels = given.truth, given.predicted, np.arange(width)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "nll": sklearn_metrics.log_loss(truth, given.probabilities, labels=labels),
        "brier": sklearn_metrics.brier_score_loss(truth, given.probabilities, labels=labels, scale_by_half=False),
    }
    macro = sklearn_metrics.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0.0)
    expected |= dict(zip(("macro_precision", "macro_recall", "macro_f1"), macro[:3], strict=True))
    if width > 5:
        expected["top5_accuracy"] = sklearn_metrics.top_k_accuracy_score(truth, given.probabilities, k=5, labels=labels)
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-6), name
    each = sklearn_metrics.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0.0)
    for index, row in enumerate(found["per_class"]):
        assert row["support"] == each[3][index]
        if row["f1"] is not None:
            assert [row["precision"], row["recall"], row["f1"]] == pytest.approx([part[index] for part in each[:3]])
    assert np.array_equal(confusion_matrix(given), sklearn_metrics.confusion_matrix(truth, predicted, labels=labels))


def test_a_case_worked_by_hand():
    given = predictions(
        [0, 0, 1, 2],
        [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25]],
        ["ant", "bee", "cow"],
    )
    found = scored(given, superclasses={"ant": "insect", "bee": "insect", "cow": "mammal"})
    assert found["n"] == 4
    assert found["accuracy"]["value"] == 0.5
    assert found["top5_accuracy"] is None
    assert found["accuracy_tta"] is None
    assert found["superclass_accuracy"]["value"] == 0.75
    assert found["mistake_severity"]["value"] == 0.5, "one of two mistakes stays among the insects"
    assert found["nll"]["value"] == pytest.approx(-math.log(0.7 * 0.3 * 0.8 * 0.25) / 4, abs=1e-6)
    assert found["brier"]["value"] == pytest.approx((0.14 + 0.86 + 0.06 + 0.875) / 4, abs=1e-6)
    # bins of 1/15: 0.5 -> [7/15, 8/15), 0.6 -> [9/15, 10/15), 0.7 -> [10/15, 11/15), 0.8 -> [12/15, 13/15)
    assert found["ece"]["value"] == pytest.approx((0.5 + 0.6 + 0.3 + 0.2) / 4, abs=1e-6)
    assert found["per_class"] == [
        {"class": "ant", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        {"class": "bee", "precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5, "support": 1},
        {"class": "cow", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    ]
    assert found["confusions"] == [
        {"true": "ant", "predicted": "bee", "count": 1},
        {"true": "cow", "predicted": "bee", "count": 1},
    ]


def test_keys_are_those_of_the_contract_and_survive_json():
    found = scored(drawn(60, 7), tta=drawn(60, 7), test_evaluations=3)
    assert set(KEYS) <= set(found)
    assert set(found) - set(KEYS) == {"ece_bins", "mistake_severity"}
    assert found["test_evaluations"] == 3
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in METRICS:
        low, high = found[name]["ci95"]
        assert low <= found[name]["value"] <= high, name


def test_mistakes_have_no_severity_where_there_are_none():
    right = predictions([0, 1], [[0.9, 0.1], [0.2, 0.8]])
    assert scored(right, superclasses={"class 0": "a", "class 1": "b"})["mistake_severity"] is None
    assert scored(right)["mistake_severity"] is None


def test_confidence_metrics_equal_those_of_all_metrics():
    given = drawn(400, 7)
    alone, among_all = confidence_metrics(given), scored(given, resamples=1000)
    for name in ("nll", "ece"):
        assert alone[name]["value"] == among_all[name]["value"]
        assert alone[name]["ci95"] == pytest.approx(among_all[name]["ci95"], rel=0.05)


def test_a_class_that_neither_occurs_nor_is_predicted_is_null_and_counts_for_nothing():
    found = scored(predictions([0, 1], [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]))
    assert found["per_class"][2] == {"class": "class 2", "precision": None, "recall": None, "f1": None, "support": 0}
    assert found["macro_f1"]["value"] == 1.0


def test_a_certain_and_wrong_answer_has_a_finite_likelihood():
    found = scored(predictions([0], [[0.0, 1.0]]))
    assert 15 < found["nll"]["value"] < 17


def test_ties_go_to_the_lower_index_in_top_1_and_top_5_alike():
    found = scored(predictions([5, 4], np.full((2, 10), 0.1)))
    assert found["accuracy"]["value"] == 0.0
    assert found["top5_accuracy"]["value"] == 0.5


def test_augmented_views_change_their_own_key_only():
    single, tta = drawn(200, 8, skill=1.0), drawn(200, 8, skill=4.0)
    without, found = scored(single), scored(single, tta=tta)
    assert found["accuracy_tta"]["value"] > found["accuracy"]["value"]
    assert {**found, "accuracy_tta": None} == without


def test_intervals_are_seeded_and_shrink_with_more_rows():
    small, large = drawn(100, 4), drawn(10_000, 4)
    assert scored(small) == scored(small)
    assert scored(small, seed=1)["nll"]["ci95"] != scored(small)["nll"]["ci95"]
    for name in ("accuracy", "macro_f1", "nll", "brier"):
        wide, narrow = scored(small)[name]["ci95"], scored(large)[name]["ci95"]
        assert narrow[1] - narrow[0] < 0.3 * (wide[1] - wide[0])


def test_bootstrap_of_a_mean_agrees_with_its_standard_error():
    given = drawn(2000, 5)
    found = scored(given, resamples=1000)
    scores = -np.log(given.probabilities[np.arange(2000), given.truth])
    half = 1.96 * scores.std() / math.sqrt(2000)
    low, high = found["nll"]["ci95"]
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),
        (10, 10, 0.72247, 1.0),
        (5, 10, 0.23659, 0.76341),
        (81, 263, 0.25528, 0.36621),  # Newcombe 1998, table I
        (15, 148, 0.06239, 0.16053),
        (1, 29, 0.00611, 0.17178),
        (9342, 10_000, 0.92917, 0.93890),
    ],
)
def test_wilson_known_values(successes, count, low, high):
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_holds_the_share_and_mirrors(pair):
    successes, count = pair
    low, high = wilson(successes, count)
    assert 0.0 <= low <= successes / count <= high <= 1.0
    assert wilson(count - successes, count) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 1000))
def test_what_must_always_hold(count, width, seed):
    given = drawn(count, width, seed)
    found = scored(given, resamples=20)
    wrong = sum(pair["count"] for pair in found["confusions"])
    assert wrong == count - round(found["accuracy"]["value"] * count)
    assert sum(row["support"] for row in found["per_class"]) == count
    assert 0 <= found["ece"]["value"] <= 1
    assert 0 <= found["brier"]["value"] <= 2
    counts = [pair["count"] for pair in found["confusions"]]
    assert counts == sorted(counts, reverse=True)
    order = np.random.default_rng(seed).permutation(count)
    shuffled = scored(predictions(given.truth[order], given.probabilities[order]), resamples=20)
    for name in METRICS:
        if found[name] is not None:
            assert shuffled[name]["value"] == pytest.approx(found[name]["value"])


def test_reliability_counts_every_row_once():
    given = drawn(500, 4)
    found = reliability(given, bins=10)
    assert found.counts.sum() == 500
    assert scored(given, bins=10)["ece"]["value"] == found.ece
    certain = reliability(predictions([0, 0], [[1.0, 0.0], [1.0, 0.0]]))
    assert certain.counts[-1] == 2
    assert certain.ece == 0.0


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("truth", "probabilities", "more", "message"),
    [
        ([], np.empty((0, 2)), {}, "predictions"),
        ([0, 1], [[np.nan, 0.5], [0.5, 0.5]], {}, "1 of 2 .*row 0"),
        ([0, 1], [[0.5, 0.5], [np.inf, 0.0]], {}, "1 of 2 .*row 1"),
        ([0, 2], GOOD, {}, "0 .*1; found 0 to 2"),
        ([0, 1], [[0.5, 0.9], [0.2, 0.8]], {}, "1.4"),
        ([0, 1], [[1.5, -0.5], [0.2, 0.8]], {}, "-0.5"),
        ([0, 1], GOOD, {"superclasses": {"class 0": "a"}}, "1 .*'class 1'"),
        ([0, 1], GOOD, {"tta": predictions([1, 1], GOOD)}, "test-time augmentation"),
        (
            [0, 1],
            GOOD,
            {"tta": predictions([0, 1], [[np.nan, 1.0], [0.0, 1.0]])},
            "1 of 2 .*test-time augmentation.*row 0",
        ),
    ],
)
def test_invalid_input_raises(truth, probabilities, more, message):
    with pytest.raises(DataError, match=message):
        scored(predictions(truth, probabilities), **more)


def test_table_of_metrics_is_that_of_the_file():
    found = scored(drawn(40, 7), superclasses={f"class {index}": str(index % 2) for index in range(7)})
    measured = [key for key, value in found.items() if isinstance(value, dict)]
    assert {metric.key for metric in TABLE} == {*measured, "accuracy_tta"}


def test_every_monitor_of_a_recipe_has_a_metric():
    assert [f"val_{metric_of(monitor).key}" for monitor in MONITORS] == list(MONITORS)
    assert [monitor for monitor in MONITORS if metric_of(monitor).lower_is_better] == ["val_loss"]


@pytest.mark.parametrize("count", [1, 2, 7, 50, 1000])
def test_wilson_agrees_with_scipy(count):
    for successes in {0, 1, count // 3, count // 2, count - 1, count}:
        expected = binomtest(successes, count).proportion_ci(method="wilson")
        assert wilson(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_measured_has_every_metric_with_a_value_in_the_order_of_tables():
    values = {
        "nll": {"value": 0.5, "ci95": [0.4, 0.6]},
        "accuracy": {"value": 0.9, "ci95": [0.8, 0.95]},
        "accuracy_tta": None,
        "ece": {"value": 0.1},
        "mistake_severity": {"value": None, "ci95": None},
        "n": 10,
    }
    accuracy, nll, ece = TABLE[0], metric_of("nll"), metric_of("ece")
    assert list(measured(values)) == [
        (accuracy, accuracy.text(0.9), accuracy.interval([0.8, 0.95])),
        (nll, nll.text(0.5), nll.interval([0.4, 0.6])),
        (ece, ece.text(0.1), ""),
    ]


def test_a_proportion_has_wilsons_interval():
    assert proportion(3, 4) == {"value": 0.75, "ci95": list(wilson(3, 4))}
