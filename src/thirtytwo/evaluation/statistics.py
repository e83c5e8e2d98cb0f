"""Compare runs on the same images: paired tests, disagreements, and statistics over several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.evaluation.checks import check_finite, check_shape
from thirtytwo.predictions import Predictions

RESAMPLES = 10_000
_USE_SAME_SPLIT = "Compare on test, or train with the same data, data.split_seed and data.val_fraction."
_MAX_NAMED = 5

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PairTest:
    """Paired comparison of two runs on the same images.

    `difference` is the first run's accuracy minus the second's, `ci95` its paired bootstrap interval; `p_value` is
    McNemar's mid-p, `p_exact` McNemar's exact p value; `same_answer` counts images with equal predictions, correct or
    not.
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
        """Number of images."""
        return self.both_right + self.only_first + self.only_second + self.both_wrong


@dataclass(frozen=True)
class Spread:
    """A metric over several runs of one recipe; `std` has divisor n - 1 and is None for a single run."""

    mean: float
    std: float | None
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        """The entry of `summary.json`: mean, std, n, min, max."""
        return {"mean": self.mean, "std": self.std, "n": self.n, "min": self.low, "max": self.high}


@dataclass(frozen=True)
class MeanTest:
    """Difference of the means of two recipes' runs (first minus second), with Welch's 95 % interval and p value."""

    difference: float
    ci95: tuple[float, float]
    p_value: float


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Images on which the runs disagree in one way; `positions` int64, highest priority first.

    `only_right`: only `run` is correct; `only_wrong`: only `run` is wrong (of three or more runs); `divided`: at least
    two runs are correct and two wrong; `all_wrong`: all are wrong, with different predictions. `run` is the index of
    the run, None for the last two kinds.
    """

    kind: Literal["only_right", "only_wrong", "divided", "all_wrong"]
    run: int | None
    positions: Ints


def aligned(predictions: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Bring the predictions of all runs to the row and class order of the first run.

    Args:
        predictions: predictions by name of run.

    Raises:
        DataError: there are fewer than two runs, or classes, rows, files or labels do not match; names both runs.
    """
    if len(predictions) < 2:
        raise DataError(f"A comparison needs at least 2 runs; found {len(predictions)}.", "Add another run.")
    for name, given in predictions.items():
        _validate(name, given)
    names = list(predictions)
    first = _sort_by_row(predictions[names[0]])
    return {names[0]: first} | {name: _match_order(names[0], first, name, predictions[name]) for name in names[1:]}


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """McNemar's test of equal accuracy: two-sided p values (mid-p, exact).

    McNemar 1947; mid-p after Fagerland, Lydersen and Laake 2013 (doi 10.1186/1471-2288-13-91): less conservative than
    the exact test, and valid for small counts, unlike the chi-squared version.

    Args:
        only_first: images that only the first run predicts correctly.
        only_second: images that only the second run predicts correctly.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, found {only_first} and {only_second}")
    total, fewer = only_first + only_second, min(only_first, only_second)
    if total == 0:
        return 1.0, 1.0
    binom = require("scipy.stats", "train").binom
    pmf = float(binom.pmf(fewer, total, 0.5))
    if only_first == only_second:
        return 1.0 - 0.5 * pmf, 1.0
    exact = min(1.0, 2.0 * float(binom.cdf(fewer, total, 0.5)))
    return exact - pmf, exact


def paired_interval(
    only_first: int, only_second: int, count: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap 95 % interval of the difference of two accuracies on the same `count` images.

    Resamples the counts of images with difference +1, -1 and 0 from a multinomial distribution, which is equivalent to
    resampling images (Efron and Tibshirani 1993, chapter 13).
    """
    ties = count - only_first - only_second
    if count < 1 or ties < 0:
        raise ValueError(f"the counts {only_first} and {only_second} do not fit {count} images")
    shares = np.array([only_first, only_second, ties]) / count
    resampled = np.random.default_rng(seed).multinomial(count, shares, size=resamples)  # (R, 3)
    low, high = np.percentile((resampled[:, 0] - resampled[:, 1]) / count, [2.5, 97.5])
    return float(low), float(high)


def compare_pair(first: Predictions, second: Predictions, resamples: int = RESAMPLES, seed: int = 0) -> PairTest:
    """Compare two runs with predictions from `aligned`."""
    right, other = first.correct, second.correct
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
    """Adjust p values for multiple comparisons (Holm 1979); keeps their order."""
    if not p_values:
        return []
    adjusted = require("statsmodels.stats.multitest", "train").multipletests(p_values, method="holm")[1]
    return [float(p_value) for p_value in adjusted]


def spread(values: Sequence[float]) -> Spread:
    """Compute mean, sample standard deviation, n and range of a metric over several runs."""
    if not values:
        raise ValueError("no values")
    given = np.asarray(values, dtype=np.float64)
    std = float(given.std(ddof=1)) if len(given) > 1 else None
    return Spread(float(given.mean()), std, len(given), float(given.min()), float(given.max()))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95 % t interval of the mean of two or more values; None for one.

    Over the folds of a cross-validation (Mitchell 1997, section 5.6) it is approximate and tends to be too narrow,
    since the training sets overlap; there is no unbiased estimator (Bengio and Grandvalet 2004, JMLR 5:1089-1105).
    """
    found = spread(values)
    if found.std is None:
        return None
    half = float(require("scipy.stats", "train").t.ppf(0.975, found.n - 1)) * found.std / found.n**0.5
    return found.mean - half, found.mean + half


def compare_means(first: Sequence[float], second: Sequence[float]) -> MeanTest | None:
    """Welch's t-test of the means of two recipes' runs (Welch 1947); None if either has fewer than two runs."""
    if min(len(first), len(second)) < 2:
        return None
    difference = float(np.mean(first) - np.mean(second))
    if len(set(first)) == len(set(second)) == 1:
        return MeanTest(difference, (difference, difference), 1.0 if difference == 0.0 else 0.0)
    result = require("scipy.stats", "train").ttest_ind(first, second, equal_var=False)
    ends = result.confidence_interval(0.95)
    return MeanTest(difference, (float(ends.low), float(ends.high)), float(result.pvalue))


def disagreements(predictions: Sequence[Predictions]) -> list[Disagreement]:
    """Group the images on which `aligned` predictions differ; each image is in one group, and no group is empty.

    Images are ranked by the probabilities of the true class: by the margin between the single run and the nearest other
    one, or by the range within a divided group. `all_wrong` is ranked by the mean confidence.
    """
    return [group for group in _groups(predictions) if len(group.positions)]


def _groups(predictions: Sequence[Predictions]) -> Iterator[Disagreement]:
    predicted = np.stack([given.predicted for given in predictions])  # (R, N)
    rows = np.arange(predicted.shape[1])
    right = predicted == predictions[0].truth
    true_probabilities = np.stack([given.probabilities[rows, given.truth] for given in predictions]).astype(
        np.float64
    )  # (R, N)
    runs, correct_runs = len(predicted), right.sum(axis=0)
    for run in range(runs):
        others = np.delete(true_probabilities, run, axis=0)
        yield Disagreement(
            "only_right", run, _rank(right[run] & (correct_runs == 1), true_probabilities[run] - others.max(axis=0))
        )
    for run in range(runs if runs > 2 else 0):
        others = np.delete(true_probabilities, run, axis=0)
        alone = ~right[run] & (correct_runs == runs - 1)
        yield Disagreement("only_wrong", run, _rank(alone, others.min(axis=0) - true_probabilities[run]))
    yield Disagreement(
        "divided", None, _rank((correct_runs >= 2) & (correct_runs <= runs - 2), np.ptp(true_probabilities, axis=0))
    )
    mean_confidence = np.mean([given.confidence for given in predictions], axis=0)
    yield Disagreement(
        "all_wrong", None, _rank((correct_runs == 0) & (predicted != predicted[0]).any(axis=0), mean_confidence)
    )


def _rank(chosen: Bools, priority: npt.NDArray[np.float64]) -> Ints:
    """Positions where `chosen` is true, highest priority first."""
    positions = np.flatnonzero(chosen)
    return positions[np.argsort(-priority[positions], kind="stable")].astype(np.int64)


def _validate(name: str, given: Predictions) -> None:
    check_shape(given, f"predictions of {name}")
    fix = "The training of that run diverged; remove it from the comparison."
    check_finite(given.probabilities, f"the predictions of {name}", fix, given.rows)


def _sort_by_row(given: Predictions) -> Predictions:
    """Sort predictions by row."""
    order = np.argsort(given.rows, kind="stable")
    return replace(
        given,
        truth=given.truth[order],
        probabilities=given.probabilities[order],
        rows=given.rows[order],
        files=None if given.files is None else tuple(given.files[index] for index in order),
    )


def _match_order(first_name: str, first: Predictions, name: str, given: Predictions) -> Predictions:
    """Bring `given` to the row and class order of `first`."""
    if set(given.classes) != set(first.classes):
        raise DataError(
            f"{name} and {first_name} have different classes: "
            f"{_describe_extra_classes(first_name, first, given)}; {_describe_extra_classes(name, given, first)}.",
            "Only runs on the same classes can be compared.",
        )
    ordered = _sort_by_row(given)
    _check_rows(first_name, first, name, ordered)
    columns = np.array([given.classes.index(label) for label in first.classes], dtype=np.int64)
    new_index = np.empty_like(columns)
    new_index[columns] = np.arange(len(columns))
    ordered = replace(
        ordered,
        classes=first.classes,
        truth=new_index[ordered.truth],
        probabilities=np.ascontiguousarray(ordered.probabilities[:, columns]),
    )
    _check_files(first_name, first, name, ordered)
    _check_labels(first_name, first, name, ordered)
    return ordered


def _check_rows(first_name: str, first: Predictions, name: str, ordered: Predictions) -> None:
    if not np.array_equal(ordered.rows, first.rows):
        shared = len(np.intersect1d(ordered.rows, first.rows))
        raise DataError(
            f"{name} was evaluated on other rows than {first_name}: {len(ordered.rows):,} versus {len(first.rows):,}, "
            f"{shared:,} in common.",
            _USE_SAME_SPLIT,
        )


def _check_files(first_name: str, first: Predictions, name: str, ordered: Predictions) -> None:
    if ordered.files is not None and first.files is not None and ordered.files != first.files:
        at = next(at for at, pair in enumerate(zip(ordered.files, first.files, strict=True)) if pair[0] != pair[1])
        raise DataError(
            f"{name} was evaluated on other files than {first_name}: "
            f"row {int(first.rows[at])} is {ordered.files[at]!r} versus {first.files[at]!r}.",
            _USE_SAME_SPLIT,
        )


def _check_labels(first_name: str, first: Predictions, name: str, ordered: Predictions) -> None:
    differ = np.flatnonzero(ordered.truth != first.truth)
    if len(differ):
        at = int(differ[0])
        raise DataError(
            f"{name} was evaluated with other labels than {first_name} in {len(differ):,} of {len(first.truth):,} "
            f"rows: row {int(first.rows[at])} is {first.classes[ordered.truth[at]]!r} "
            f"versus {first.classes[first.truth[at]]!r}.",
            _USE_SAME_SPLIT,
        )


def _describe_extra_classes(name: str, given: Predictions, other: Predictions) -> str:
    """Describe classes that `other` does not have: `only runs/a has cat, dog and 3 more`."""
    own = [label for label in given.classes if label not in set(other.classes)]
    if not own:
        return f"{name} has no other classes"
    more = f" and {len(own) - _MAX_NAMED} more" if len(own) > _MAX_NAMED else ""
    return f"only {name} has {', '.join(map(repr, own[:_MAX_NAMED]))}{more}"
