"""Runs against each other on the same pictures: paired tests, where they disagree, and several seeds as one figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.rundir import Predictions

RESAMPLES = 10_000
_SAME_SPLIT = "Compare on test, or train with the same data, data.split_seed and data.val_fraction."
_NAMED = 5

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairTest:
    """Two runs on the same pictures.

    `difference` is the first run's accuracy less the second's, `ci95` its paired bootstrap interval; `p_value` is
    McNemar's mid-p, `p_exact` his exact test; `same_answer` counts pictures both gave the same class, right or wrong.
    """

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    same_answer: int
    difference: float
    ci95: tuple[float, float]
    p_value: float
    p_exact: float

    @property
    def count(self) -> int:
        """Pictures both runs were asked about."""
        return self.both_right + self.only_first + self.only_second + self.both_wrong


@dataclass(frozen=True)
class Spread:
    """Several runs of one recipe in one figure; `std` is the sample's (divisor n - 1), None for a single run."""

    mean: float
    std: float | None
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """The entry of a summary: mean, std, n, min, max."""
        return {"mean": self.mean, "std": self.std, "n": self.n, "min": self.low, "max": self.high}


@dataclass(frozen=True)
class MeanTest:
    """Two recipes by the means of their runs: the first mean less the second, Welch's 95 % interval and p value."""

    difference: float
    ci95: tuple[float, float]
    p_value: float


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Pictures on which answers differ in one way; `run` is whom it is about, `positions` int64, most telling first.

    `only_right`: `run` alone is right; `only_wrong`: `run` alone is wrong (of three or more); `divided`: two or more
    are right and two or more wrong; `all_wrong`: nobody is right, and the answers differ.
    """

    kind: Literal["only_right", "only_wrong", "divided", "all_wrong"]
    run: int | None
    positions: Ints


def aligned(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Predictions by name of run with rows and classes in the order of the first, checked to be of the same pictures.

    Raises:
        DataError: fewer than two runs, or classes, rows, files or truth that do not match; names both runs.
    """
    if len(predictions) < 2:
        raise DataError(f"A comparison needs at least 2 runs; found {len(predictions)}.", "Name another run.")
    for name, given in predictions.items():
        _check(name, given)
    names = list(predictions)
    first = _in_order(predictions[names[0]])
    return {names[0]: first} | {name: _like(names[0], first, name, predictions[name]) for name in names[1:]}


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """Two-sided p values (mid-p, exact) of "both are right equally often", from the pictures only one got right.

    McNemar 1947; mid-p after Fagerland, Lydersen and Laake 2013 (doi 10.1186/1471-2288-13-91), which keeps its level
    where the exact test is too careful and needs no large counts, unlike chi-square.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts below 0: {only_first}, {only_second}")
    total, fewer = only_first + only_second, min(only_first, only_second)
    if total == 0:
        return 1.0, 1.0
    binom = require("scipy.stats", "train").binom
    here = float(binom.pmf(fewer, total, 0.5))
    if only_first == only_second:
        return 1.0 - 0.5 * here, 1.0
    exact = min(1.0, 2.0 * float(binom.cdf(fewer, total, 0.5)))
    return exact - here, exact


def paired_interval(
    only_first: int, only_second: int, count: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the difference of two accuracies on the same `count` pictures.

    A picture counts +1, -1 or 0 for the first run. Drawing pictures with replacement is drawing these three counts
    from a multinomial, which is what is done (Efron and Tibshirani 1993, chapter 13).
    """
    ties = count - only_first - only_second
    if count < 1 or ties < 0:
        raise ValueError(f"{only_first} and {only_second} of {count}")
    shares = np.array([only_first, only_second, ties]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=resamples)  # (R, 3)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


def compare_pair(first: Predictions, second: Predictions, resamples: int = RESAMPLES, seed: int = 0) -> PairTest:
    """Test two runs whose predictions are `aligned`."""
    right, other = first.predicted == first.truth, second.predicted == second.truth
    only_first, only_second = int((right & ~other).sum()), int((~right & other).sum())
    p_value, p_exact = mcnemar(only_first, only_second)
    return PairTest(
        both_right=int((right & other).sum()),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int((~right & ~other).sum()),
        same_answer=int((first.predicted == second.predicted).sum()),
        difference=(only_first - only_second) / len(right),
        ci95=paired_interval(only_first, only_second, len(right), resamples, seed),
        p_value=p_value,
        p_exact=p_exact,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for having looked at all of them (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation, n and range of one figure over several runs."""
    if not values:
        raise ValueError("no values")
    given = np.asarray(values, dtype=np.float64)
    std = float(given.std(ddof=1)) if len(given) > 1 else None
    return Spread(float(given.mean()), std, len(given), float(given.min()), float(given.max()))


def compare_means(first: Sequence[float], second: Sequence[float]) -> MeanTest | None:
    """Whether two recipes differ beyond their seeds (Welch 1947); None unless both have two runs or more."""
    if min(len(first), len(second)) < 2:
        return None
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    parts = [float(values.var(ddof=1)) / len(values) for values in (one, other)]
    difference, error = float(one.mean() - other.mean()), math.sqrt(sum(parts))
    if error == 0.0:
        return MeanTest(difference, (difference, difference), 1.0 if difference == 0.0 else 0.0)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True)
    )
    student = require("scipy.stats", "train").t
    half = float(student.ppf(0.975, freedom)) * error
    p_value = 2.0 * float(student.sf(abs(difference) / error, freedom))
    return MeanTest(difference, (difference - half, difference + half), p_value)


def disagreements(predictions: Sequence[Predictions]) -> list[Disagreement]:
    """Every picture on which `aligned` predictions give different classes, each in exactly one group; none is empty.

    Ranked by what the runs thought of the truth: how far the one stands apart from the nearest other, how far apart
    the divided ones are, and how sure the wrong ones were.
    """
    return [group for group in _groups(predictions) if len(group.positions)]


def _groups(predictions: Sequence[Predictions]) -> Iterator[Disagreement]:
    answers = np.stack([given.predicted for given in predictions])  # (R, N)
    rows = np.arange(answers.shape[1])
    right = answers == predictions[0].truth
    of_truth = np.stack([given.probabilities[rows, given.truth] for given in predictions]).astype(np.float64)  # (R, N)
    runs, hits = len(answers), right.sum(axis=0)
    for run in range(runs):
        others = np.delete(of_truth, run, axis=0)
        yield Disagreement("only_right", run, _ranked(right[run] & (hits == 1), of_truth[run] - others.max(axis=0)))
    for run in range(runs if runs > 2 else 0):
        others = np.delete(of_truth, run, axis=0)
        alone = ~right[run] & (hits == runs - 1)
        yield Disagreement("only_wrong", run, _ranked(alone, others.min(axis=0) - of_truth[run]))
    yield Disagreement("divided", None, _ranked((hits >= 2) & (hits <= runs - 2), np.ptp(of_truth, axis=0)))
    sure = np.mean([given.confidence for given in predictions], axis=0)
    yield Disagreement("all_wrong", None, _ranked((hits == 0) & (answers != answers[0]).any(axis=0), sure))


def _ranked(chosen: Bools, telling: npt.NDArray[np.float64]) -> Ints:
    """Positions that are chosen, the most telling first."""
    positions = np.flatnonzero(chosen)
    return positions[np.argsort(-telling[positions], kind="stable")].astype(np.int64)


def _check(name: str, given: Predictions) -> None:
    count, width = len(given.truth), len(given.classes)
    if not count:
        raise DataError(f"The predictions of {name} hold no rows, so there is nothing to compare.")
    if given.probabilities.shape != (count, width) or len(given.rows) != count:
        raise DataError(
            f"The predictions of {name} must have the shape {(count, width)}, rows by classes; "
            f"found {given.probabilities.shape} and {len(given.rows)} rows."
        )
    bad = ~np.isfinite(given.probabilities).all(axis=1)
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {count} rows of the predictions of {name} hold NaN or infinity "
            f"(first: row {int(given.rows[bad.argmax()])}).",
            "Its training diverged; leave that run out.",
        )


def _in_order(given: Predictions) -> Predictions:
    """The same predictions sorted by row."""
    order = np.argsort(given.rows, kind="stable")
    return replace(
        given,
        truth=given.truth[order],
        probabilities=given.probabilities[order],
        rows=given.rows[order],
        files=None if given.files is None else tuple(given.files[place] for place in order),
    )


def _like(first_name: str, first: Predictions, name: str, given: Predictions) -> Predictions:
    """`given` with rows and classes as in `first`."""
    if set(given.classes) != set(first.classes):
        raise DataError(
            f"{name} and {first_name} know other classes: "
            f"{_only(first_name, first, given)}; {_only(name, given, first)}.",
            "Only runs on the same classes can be compared.",
        )
    ordered = _in_order(given)
    if not np.array_equal(ordered.rows, first.rows):
        shared = len(np.intersect1d(ordered.rows, first.rows))
        raise DataError(
            f"{name} was scored on other rows than {first_name}: {len(given.rows):,} against {len(first.rows):,}, "
            f"{shared:,} of them shared.",
            _SAME_SPLIT,
        )
    columns = np.array([given.classes.index(label) for label in first.classes], dtype=np.int64)
    place = np.empty_like(columns)
    place[columns] = np.arange(len(columns))
    ordered = replace(
        ordered,
        classes=first.classes,
        truth=place[ordered.truth],
        probabilities=np.ascontiguousarray(ordered.probabilities[:, columns]),
    )
    if ordered.files is not None and first.files is not None and ordered.files != first.files:
        at = next(at for at, pair in enumerate(zip(ordered.files, first.files, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"{name} was scored on other files than {first_name}: "
            f"row {int(first.rows[at])} is {ordered.files[at]!r} against {first.files[at]!r}.",
            _SAME_SPLIT,
        )
    differ = np.flatnonzero(ordered.truth != first.truth)
    if len(differ):
        at = int(differ[0])
        raise DataError(
            f"{name} was scored against another truth than {first_name} in {len(differ):,} of {len(first.truth):,} "
            f"rows: row {int(first.rows[at])} is {first.classes[ordered.truth[at]]!r} "
            f"against {first.classes[first.truth[at]]!r}.",
            _SAME_SPLIT,
        )
    return ordered


def _only(name: str, given: Predictions, other: Predictions) -> str:
    """`only runs/a has cat, dog and 3 more`."""
    own = [label for label in given.classes if label not in set(other.classes)]
    if not own:
        return f"{name} has none of its own"
    more = f" and {len(own) - _NAMED} more" if len(own) > _NAMED else ""
    return f"only {name} has {', '.join(map(repr, own[:_NAMED]))}{more}"
