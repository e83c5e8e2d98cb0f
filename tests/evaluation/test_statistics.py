"""Paired tests with known answers, errors, and the groups of disagreements."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from thirtytwo.errors import DataError
from thirtytwo.evaluation.statistics import (
    aligned,
    compare_means,
    compare_pair,
    disagreements,
    holm,
    mcnemar,
    paired_interval,
    spread,
)
from thirtytwo.predictions import Predictions

CLASSES = ("ant", "bee", "cow")


def answered(truth, answers, classes=CLASSES, confidence=0.8, **changes):
    """Predictions that give `answers`, each with `confidence`."""
    count, width = len(truth), len(classes)
    probabilities = np.full((count, width), (1 - confidence) / (width - 1), dtype=np.float32)
    probabilities[np.arange(count), answers] = confidence
    given = Predictions(classes, np.asarray(truth, dtype=np.int64), probabilities, np.arange(count, dtype=np.int64))
    return replace(given, **changes)


def drawn(count=500, skill=1.0, seed=0, width=3):
    random = np.random.default_rng(seed)
    truth = np.arange(count) % width
    logits = random.normal(size=(count, width))
    logits[np.arange(count), truth] += skill
    shares = np.exp(logits)
    probabilities = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(tuple("abcdefgh"[:width]), truth, probabilities, np.arange(count))


@pytest.mark.parametrize(
    ("only_first", "only_second", "mid_p", "exact"),
    [
        (1, 7, 0.0390625, 0.0703125),  # Fagerland et al. 2013, airway hyper-responsiveness: 0.039 and 0.070
        (7, 1, 0.0390625, 0.0703125),
        (0, 5, 1 / 32, 1 / 16),
        (0, 1, 0.5, 1.0),
        (5, 5, 1 - 0.5 * 252 / 1024, 1.0),  # the authors' rule for equal counts
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_known_answers(only_first, only_second, mid_p, exact):
    assert mcnemar(only_first, only_second) == pytest.approx((mid_p, exact), abs=1e-12)


@pytest.mark.parametrize(("only_first", "only_second"), [(150, 86), (59, 121), (3, 20), (40, 41), (700, 820)])
def test_mcnemar_agrees_with_exact_arithmetic_and_with_chi_square(only_first, only_second):
    """(150, 86): Agresti, approval of a president twice; (59, 121): a textbook case with chi-square 21.35."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    ways = [math.comb(total, count) for count in range(fewer + 1)]
    mid_p, exact = mcnemar(only_first, only_second)
    assert exact == pytest.approx(2 * sum(ways) / 2**total, rel=1e-9)
    assert mid_p == pytest.approx((2 * sum(ways) - ways[-1]) / 2**total, rel=1e-9)
    assert exact == pytest.approx(stats.binomtest(only_first, total).pvalue, rel=1e-9)
    chi_square = (only_first - only_second) ** 2 / total
    assert mid_p == pytest.approx(stats.chi2.sf(chi_square, 1), abs=0.01)


def test_mcnemar_mid_p_keeps_its_level():
    """With no difference, 5 % of experiments or fewer come out below 0.05, unlike far fewer by the exact test."""
    total = 60
    ways = np.array([math.comb(total, count) for count in range(total + 1)], dtype=float) / 2.0**total
    below = [[p < 0.05 for p in mcnemar(count, total - count)] for count in range(total + 1)]
    mid, exact = ways @ np.array(below, dtype=float)
    assert exact <= mid <= 0.0525


def test_invalid_counts_raise_value_errors():
    with pytest.raises(ValueError, match="-1 and 3"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match="3 and 2 .*4"):
        paired_interval(3, 2, 4)


def test_paired_interval_agrees_with_resampling_images():
    random = np.random.default_rng(5)
    difference = np.repeat([1, -1, 0], [60, 35, 905])
    means = difference[random.integers(0, 1000, (4000, 1000))].mean(axis=1)
    assert paired_interval(60, 35, 1000) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.0015)


def test_paired_interval_is_narrower_than_that_of_two_unpaired_samples():
    low, high = paired_interval(30, 20, 10_000)
    assert low < 0.001 < high
    unpaired = 2 * 1.96 * math.sqrt(2 * 0.9 * 0.1 / 10_000)
    assert high - low < 0.2 * unpaired


def test_a_pair_is_counted_right():
    truth = [0, 0, 0, 0, 1, 1, 2]
    first = answered(truth, [0, 0, 0, 1, 1, 2, 0])
    second = answered(truth, [0, 0, 1, 0, 2, 2, 1])
    found = compare_pair(first, second)
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == (2, 2, 1, 2)
    assert found.same_answer == 3
    assert found.count == 7
    assert found.difference == pytest.approx(1 / 7)
    assert (found.p_value, found.p_exact) == pytest.approx(mcnemar(2, 1))
    assert found.ci95[0] <= found.difference <= found.ci95[1]


def test_swapping_a_pair_swaps_its_signs():
    first, second = drawn(seed=1), drawn(seed=2, skill=2.0)
    one, other = compare_pair(first, second), compare_pair(second, first)
    assert one.difference == -other.difference
    assert (one.p_value, one.p_exact) == (other.p_value, other.p_exact)
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=0.004)
    assert compare_pair(first, second) == one, "the same seed draws the same"


def test_a_run_against_its_own_copy():
    found = compare_pair(drawn(), drawn())
    assert (found.difference, found.ci95, found.p_value) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.long
def test_holm_known_answer():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_spread_known_answer():
    found = spread([0.90, 0.92, 0.94])
    assert (found.mean, found.std) == pytest.approx((0.92, 0.02))
    assert (found.n, found.low, found.high) == (3, 0.90, 0.94)
    assert spread([0.5]).std is None
    with pytest.raises(ValueError, match="values"):
        spread([])


def test_means_are_compared_as_scipy_does():
    first, second = [0.931, 0.934, 0.929, 0.936], [0.925, 0.930, 0.921]
    found = compare_means(first, second)
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()))
    assert compare_means([0.9], second) is None
    assert compare_means([0.9, 0.9], [0.9, 0.9]).p_value == 1.0
    assert compare_means([0.9, 0.9], [0.8, 0.8]).p_value == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 1000))
def test_every_disagreement_is_in_one_group(runs, seed):
    predictions = [drawn(40, 0.5, seed + number) for number in range(runs)]
    answers = np.stack([given.predicted for given in predictions])
    groups = disagreements(predictions)
    found = np.concatenate([group.positions for group in groups]) if groups else np.array([], dtype=int)
    assert sorted(found.tolist()) == np.flatnonzero((answers != answers[0]).any(axis=0)).tolist()
    right = answers == predictions[0].truth
    for group in groups:
        hits = right[:, group.positions].sum(axis=0)
        assert {
            "only_right": lambda hits=hits, group=group: (hits == 1).all() and right[group.run, group.positions].all(),
            "only_wrong": lambda hits=hits, group=group: (
                (hits == runs - 1).all() and not right[group.run, group.positions].any()
            ),
            "divided": lambda hits=hits: ((hits > 1) & (hits < runs - 1)).all(),
            "all_wrong": lambda hits=hits: (hits == 0).all(),
        }[group.kind]()


def test_the_largest_margin_comes_first():
    truth = [0, 0, 0]
    first = answered(truth, [0, 0, 0])
    second = answered(truth, [1, 1, 1])
    second.probabilities[:] = [[0.3, 0.7, 0.0], [0.01, 0.99, 0.0], [0.4, 0.6, 0.0]]
    (group,) = disagreements([first, second])
    assert (group.kind, group.run, group.positions.tolist()) == ("only_right", 0, [1, 0, 2])


def test_rows_and_classes_in_another_order_are_brought_into_line():
    first = drawn(90, seed=3)
    order, columns = np.random.default_rng(0).permutation(90), [2, 0, 1]
    other = Predictions(
        tuple(first.classes[column] for column in columns),
        np.array([columns.index(label) for label in first.truth[order].tolist()]),
        first.probabilities[order][:, columns],
        first.rows[order],
    )
    found = aligned({"a": first, "b": other})["b"]
    assert found.classes == first.classes
    assert (found.truth == first.truth).all()
    assert (found.rows == first.rows).all()
    assert (found.probabilities == first.probabilities).all()


FILES = ("a.png", "b.png", "c.png")
GOOD = answered([0, 1, 2], [0, 1, 1], files=FILES)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            answered([0, 1, 2], [0, 1, 1], ("ant", "bee", "dog")),
            "runs/a.*'cow'.*runs/b.*'dog'",
        ),
        (answered([0, 1, 1], [0, 1, 1], ("ant", "bee")), "runs/a.*'cow'.*runs/b"),
        (answered([0, 1], [0, 1]), "runs/b.*rows.*runs/a: 2 .*3, 2 "),
        (replace(GOOD, rows=np.array([0, 1, 9])), "runs/b.*rows.*runs/a: 3 .*3, 2 "),
        (answered([0, 1, 1], [0, 1, 1]), "runs/b.*runs/a.*1 of 3 .*row 2 .*'bee' .*'cow'"),
        (replace(GOOD, files=("a.png", "x.png", "c.png")), "runs/b.*runs/a.*row 1 .*'x.png' .*'b.png'"),
        (answered([0, 1, 2], [0, 1, 1], confidence=np.nan), "3 of 3 .*runs/b"),
        (answered([], []), "runs/b"),
        (replace(GOOD, probabilities=np.ones((3, 2), np.float32)), r"runs/b.*\(3, 3\).*\(3, 2\)"),
    ],
)
def test_runs_that_do_not_match_raise(other, message):
    with pytest.raises(DataError, match=message) as caught:
        aligned({"runs/a": GOOD, "runs/b": other})
    assert "\n" not in str(caught.value)


def test_one_run_is_no_comparison():
    with pytest.raises(DataError, match="2 .*1"):
        aligned({"runs/a": GOOD})
