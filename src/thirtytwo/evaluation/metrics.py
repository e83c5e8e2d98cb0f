"""Compute metrics with 95 % confidence intervals: the content of `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError
from thirtytwo.evaluation.checks import check_predictions
from thirtytwo.evaluation.resampling import resampled_rows, tally
from thirtytwo.predictions import Predictions
from thirtytwo.text import DIGITS, interval, percent

Z95 = 1.959963984540054
TOP = 5
LEAST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Lower bound of probabilities before the logarithm, as in scikit-learn for float32."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """A metric of `metrics.json`: its key, name and description in one line.

    `is_share`: shown in percent; `hub_type` is the metric's name on model hubs, None where they have none.
    """

    key: str
    name: str
    meaning: str
    is_share: bool = True
    lower_is_better: bool = False
    hub_type: str | None = None

    def text(self, value: float, digits: int = DIGITS) -> str:
        """A value with its unit; `digits` are those of a percentage."""
        return percent(value, digits) if self.is_share else f"{value:.4f}"

    def interval(self, ends: Sequence[float]) -> str:
        """An interval with its unit."""
        return interval(ends, as_percent=self.is_share, digits=None if self.is_share else 4)


METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "Accuracy", "the most probable class is the true class", hub_type="accuracy"),
    Metric(
        "accuracy_tta",
        "Accuracy with test-time augmentation",
        "probabilities averaged over mirrored and shifted views",
        hub_type="accuracy",
    ),
    Metric(
        "top5_accuracy", "Top-5 accuracy", "the true class is among the five most probable classes", hub_type="accuracy"
    ),
    Metric("superclass_accuracy", "Superclass accuracy", "the predicted class belongs to the true superclass"),
    Metric(
        "mistake_severity",
        "Errors within the superclass",
        "share of misclassified images predicted within the true superclass",
    ),
    Metric(
        "macro_precision",
        "Macro precision",
        "mean over classes of precision: share of the images predicted as a class that belong to it",
        hub_type="precision",
    ),
    Metric(
        "macro_recall",
        "Macro recall",
        "mean over classes of recall: share of a class's images predicted as that class",
        hub_type="recall",
    ),
    Metric("macro_f1", "Macro F1", "mean over classes of F1: harmonic mean of precision and recall", hub_type="f1"),
    Metric("nll", "Negative log-likelihood", "in nats; 0 is perfect, lower is better", False, True, "nll"),
    Metric(
        "brier",
        "Brier score",
        "squared error of the probabilities, 0 to 2; lower is better",
        False,
        True,
        "brier_score",
    ),
    Metric(
        "ece",
        "Expected calibration error",
        "mean difference between confidence and accuracy; lower is better",
        False,
        True,
        "expected_calibration_error",
    ),
)
"""Every metric, in the order of tables."""
LOSS = Metric("loss", "Loss", "the loss that training minimizes", False, True)
"""Computed on validation after each epoch, not part of `metrics.json`."""


def metric_of(key: str) -> Metric:
    """The metric with this key; `val_` before it, as in a recipe's monitor, is ignored."""
    name = key.removeprefix("val_")
    return next(metric for metric in (*METRICS, LOSS) if metric.key == name)


def measured(values: Mapping[str, Any]) -> Iterator[tuple[Metric, str, str]]:
    """Every metric with a value in `values`, the content of `metrics.json`; and its value and interval formatted."""
    for metric in METRICS:
        found = values.get(metric.key)
        if found and found.get("value") is not None:
            ends = found.get("ci95")
            yield metric, metric.text(found["value"]), metric.interval(ends) if ends else ""


@dataclass(frozen=True)
class Reliability:
    """Accuracy against top-1 confidence in `B` equal-width bins of confidence.

    `edges` `(B + 1,)`; `counts` int64 `(B,)`; `confidence` and `accuracy` `(B,)`, NaN where a bin is empty.
    """

    edges: Floats
    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, weighted by count."""
        gaps = np.abs(np.nan_to_num(self.confidence - self.accuracy))
        return float((gaps * self.counts).sum() / self.counts.sum())


def compute_metrics(
    predictions: Predictions,
    *,
    dataset: str,
    split: str,
    superclasses: Mapping[str, str] | None = None,
    tta: Predictions | None = None,
    bins: int = 15,
    resamples: int = 1000,
    seed: int = 0,
    test_evaluations: int,
) -> dict[str, Any]:
    """Compute the content of `metrics.json`.

    Intervals are 95 %: Wilson's for proportions (accuracy, top 5, superclass), else the percentile bootstrap over
    images, widened to contain the value where resampling is biased, as for ECE. Macro averages are over classes that
    occur or are predicted; a ratio with divisor 0 is 0 (as in scikit-learn), and a class that neither occurs nor is
    predicted has null. `mistake_severity` is the share of errors within the true superclass. `brier` is the squared
    distance from the one-hot truth, 0..2. `ece` uses bins [i/bins, (i+1)/bins) of top-1 confidence, the last closed.

    Args:
        predictions: single-view predictions with calibrated probabilities.
        dataset: name of the data set, copied to the result.
        split: name of the split, copied to the result.
        superclasses: superclass of each class; None: the data set has none.
        tta: predictions with test-time augmentation of the same images; None: there are none.
        bins: number of confidence bins of the ECE.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        test_evaluations: how often the run was evaluated on test so far, copied to the result.

    Raises:
        DataError: there are no images, labels or probabilities do not match the classes, or are NaN, or a class has no
            superclass.
    """
    check_predictions(predictions, "predictions")
    images, width = _per_image(predictions, bins), len(predictions.classes)
    right = images.predicted == images.truth
    resampled = _bootstrap(images, width, bins, resamples, seed)
    counts = _ClassCounts.of(images, width)
    values = {
        **counts.macro(),
        "nll": float(images.nll.mean()),
        "brier": float(images.brier.mean()),
        "ece": reliability(predictions, bins).ece,
    }
    return {
        "dataset": dataset,
        "split": split,
        "n": len(right),
        "accuracy": proportion(int(right.sum()), len(right)),
        "accuracy_tta": None if tta is None else _tta_accuracy(tta, predictions),
        "top5_accuracy": _top5(predictions),
        **{name: _with_interval(value, resampled[name]) for name, value in values.items()},
        "ece_bins": bins,
        "per_class": counts.table(predictions.classes),
        "confusions": confusions(predictions),
        **_superclass_metrics(predictions, superclasses),
        "test_evaluations": test_evaluations,
    }


@dataclass(frozen=True)
class _PerImage:
    """Values of each image, `(N,)`: losses, top-1 confidence and its bin, true and predicted class."""

    nll: Floats
    brier: Floats
    confidence: Floats
    bin_index: Ints
    truth: Ints
    predicted: Ints


def _per_image(predictions: Predictions, bins: int) -> _PerImage:
    probabilities = predictions.probabilities.astype(np.float64)
    true_probabilities = probabilities[np.arange(len(predictions.truth)), predictions.truth]
    confidence = probabilities.max(axis=1)
    return _PerImage(
        nll=-np.log(np.clip(true_probabilities, LEAST_PROBABILITY, 1.0)),
        brier=(probabilities**2).sum(axis=1) - 2.0 * true_probabilities + 1.0,
        confidence=confidence,
        bin_index=_bin_index(confidence, bins),
        truth=predictions.truth,
        predicted=predictions.predicted,
    )


@dataclass(frozen=True)
class _ClassCounts:
    """Images by class, `(C,)`: of the class, predicted as the class, and both."""

    support: Ints
    predicted: Ints
    hits: Ints

    @classmethod
    def of(cls, images: _PerImage, width: int) -> _ClassCounts:
        right = images.predicted == images.truth
        groups = images.truth, images.predicted, images.truth[right]
        return cls(*(np.bincount(group, minlength=width) for group in groups))

    def macro(self) -> dict[str, float]:
        """Means of precision, recall and F1 over classes that occur or are predicted."""
        present = (self.support + self.predicted) > 0
        scores = zip(("precision", "recall", "f1"), _class_scores(self.support, self.predicted, self.hits), strict=True)
        return {f"macro_{name}": float(values[present].mean()) for name, values in scores}

    def table(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The entry `per_class` of `metrics.json`."""
        precision, recall, f1 = _class_scores(self.support, self.predicted, self.hits)
        present = (self.support + self.predicted) > 0
        return [
            {
                "class": name,
                "precision": float(precision[index]) if present[index] else None,
                "recall": float(recall[index]) if present[index] else None,
                "f1": float(f1[index]) if present[index] else None,
                "support": int(self.support[index]),
            }
            for index, name in enumerate(classes)
        ]


def confidence_metrics(
    predictions: Predictions, bins: int = 15, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute `nll` and `ece` with their intervals, as in `compute_metrics`."""
    check_predictions(predictions, "predictions")
    images = _per_image(predictions, bins)
    means, errors = [], []
    for rows in resampled_rows(len(images.truth), resamples, seed):
        means.append(images.nll[rows].mean(axis=1))
        errors.append(_resampled_ece(images, rows, bins))
    return {
        "nll": _with_interval(float(images.nll.mean()), np.concatenate(means)),
        "ece": _with_interval(reliability(predictions, bins).ece, np.concatenate(errors)),
    }


def confusion_matrix(predictions: Predictions) -> Ints:
    """Count images by true class (first axis) and predicted class (second axis), int64 `(C, C)`."""
    width = len(predictions.classes)
    cells = predictions.truth * width + predictions.predicted
    return np.bincount(cells, minlength=width * width).reshape(width, width).astype(np.int64)


def reliability(predictions: Predictions, bins: int = 15) -> Reliability:
    """Compute accuracy against top-1 confidence in `bins` equal-width bins."""
    confidence = predictions.confidence.astype(np.float64)
    right = predictions.correct.astype(np.float64)
    bin_index = _bin_index(confidence, bins)
    counts = np.bincount(bin_index, minlength=bins)
    divisor = np.where(counts > 0, counts, np.nan)
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts.astype(np.int64),
        confidence=np.bincount(bin_index, weights=confidence, minlength=bins) / divisor,
        accuracy=np.bincount(bin_index, weights=right, minlength=bins) / divisor,
    )


def wilson(successes: float, count: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927).

    Args:
        successes: number of successes, at most `count`; both may be fractions, as effective numbers are.
        count: number of trials, above 0.
        z: quantile of the standard normal distribution; by default that of a 95 % interval.
    """
    if not 0 <= successes <= count or count == 0:
        raise ValueError(f"{successes} successes of {count}")
    share = successes / count
    square = z * z / count
    center = (share + square / 2.0) / (1.0 + square)
    half = z * math.sqrt(share * (1.0 - share) / count + square / (4.0 * count)) / (1.0 + square)
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == count else min(1.0, center + half)
    return low, high


def proportion(successes: int, count: int) -> dict[str, Any]:
    """A proportion with its Wilson interval, as in `metrics.json`; raises a ValueError as `wilson`."""
    return {"value": successes / count, "ci95": list(wilson(successes, count))}


def _bootstrap(images: _PerImage, width: int, bins: int, resamples: int, seed: int) -> dict[str, Floats]:
    """Bootstrap values of each metric, `(R,)`; each resample has the size of the data."""
    hit_class = np.where(images.predicted == images.truth, images.truth, width)  # (N,); errors go to an extra class
    parts: list[dict[str, Floats]] = []
    for rows in resampled_rows(len(images.truth), resamples, seed):
        support, predicted_counts = tally(images.truth, rows, width), tally(images.predicted, rows, width)
        precision, recall, f1 = _class_scores(support, predicted_counts, tally(hit_class, rows, width + 1)[:, :width])
        classes = ((support + predicted_counts) > 0).sum(axis=1)
        parts.append(
            {
                "macro_precision": precision.sum(axis=1) / classes,
                "macro_recall": recall.sum(axis=1) / classes,
                "macro_f1": f1.sum(axis=1) / classes,
                "nll": images.nll[rows].mean(axis=1),
                "brier": images.brier[rows].mean(axis=1),
                "ece": _resampled_ece(images, rows, bins),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _resampled_ece(images: _PerImage, rows: Ints, bins: int) -> Floats:
    gap = images.confidence - (images.predicted == images.truth)
    return np.asarray(np.abs(tally(images.bin_index, rows, bins, gap)).sum(axis=1) / len(gap))


def _class_scores(
    support: npt.NDArray[Any], predicted_counts: npt.NDArray[Any], hits: npt.NDArray[Any]
) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 from counts of any shape; 0 where the divisor is 0."""
    return _divide(hits, predicted_counts), _divide(hits, support), _divide(2.0 * hits, support + predicted_counts)


def _divide(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    return np.asarray(np.divide(above, below, out=np.zeros(np.shape(below)), where=below > 0))


def _bin_index(confidence: Floats, bins: int) -> Ints:
    return np.clip((confidence * bins).astype(np.int64), 0, bins - 1)


def _top5(predictions: Predictions) -> dict[str, Any] | None:
    """Top-5 accuracy, ties broken by the lower index as in argmax; None for five classes or fewer."""
    truth, width = predictions.truth, len(predictions.classes)
    if width <= TOP:
        return None
    probabilities = predictions.probabilities.astype(np.float64)
    true_probabilities = probabilities[np.arange(len(truth)), truth]
    ahead = probabilities > true_probabilities[:, None]
    ahead |= (probabilities == true_probabilities[:, None]) & (np.arange(width) < truth[:, None])
    return proportion(int((ahead.sum(axis=1) < TOP).sum()), len(truth))


def _tta_accuracy(tta: Predictions, single: Predictions) -> dict[str, Any]:
    check_predictions(tta, "predictions with test-time augmentation")
    if len(tta.truth) != len(single.truth) or (tta.truth != single.truth).any():
        raise DataError("The predictions with test-time augmentation are not of the same images as those without.")
    return proportion(int(tta.correct.sum()), len(tta.truth))


def _superclass_metrics(predictions: Predictions, superclasses: Mapping[str, str] | None) -> dict[str, Any]:
    """Superclass accuracy, and the share of errors within the true superclass (null where there are no errors)."""
    if not superclasses:
        return {"superclass_accuracy": None, "mistake_severity": None}
    without = [name for name in predictions.classes if name not in superclasses]
    if without:
        raise DataError(f"{len(without)} classes have no superclass, among them {without[0]!r}.")
    names = sorted(set(superclasses.values()))
    group = np.array([names.index(superclasses[name]) for name in predictions.classes])
    same_superclass = group[predictions.predicted] == group[predictions.truth]  # (N,)
    wrong = ~predictions.correct
    mistakes = int(wrong.sum())
    return {
        "superclass_accuracy": proportion(int(same_superclass.sum()), len(same_superclass)),
        "mistake_severity": proportion(int((same_superclass & wrong).sum()), mistakes) if mistakes else None,
    }


def confusions(predictions: Predictions) -> list[dict[str, Any]]:
    """Every pair of classes that was confused, most frequent first; ties in the order of the classes."""
    matrix = confusion_matrix(predictions)
    np.fill_diagonal(matrix, 0)
    cells = np.flatnonzero(matrix)
    order = cells[np.argsort(-matrix.ravel()[cells], kind="stable")]
    names, width = predictions.classes, len(predictions.classes)
    return [
        {"true": names[cell // width], "predicted": names[cell % width], "count": int(matrix.ravel()[cell])}
        for cell in order
    ]


def _with_interval(value: float, resampled: Floats) -> dict[str, Any]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"value": value, "ci95": [min(float(low), value), max(float(high), value)]}
