"""Prediction sets: instead of one answer, the classes among which the truth is found as often as was asked for.

Split conformal prediction with the threshold on 1 - p(true class), called LAC (M. Sadinle, J. Lei, L. Wasserman, *Least
Ambiguous Set-Valued Classifiers with Bounded Error Levels*, JASA 2019, arXiv 1609.00451), with the finite-sample
correction (A. Angelopoulos, S. Bates, arXiv 2107.07511). Where the probabilities are right no other sets with this
coverage are smaller on average, and no lots are drawn. On validation pictures of CIFAR-10 and CIFAR-100 the adaptive
methods (APS, arXiv 2006.02544; RAPS, arXiv 2009.14193) came equally near the coverage asked for, with larger sets. The
price: where the model is right more often than asked, some pictures get an empty set, which is to be read as "not sure
of any class".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError
from thirtytwo.evaluation.metrics import Z95, wilson
from thirtytwo.rundir import Predictions


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that no sets can have.

    Raises:
        DataError: not between 0 and 1.
    """
    if not 0.0 < coverage < 1.0:
        fix = f"Did you mean {coverage / 100:g}?" if 1.0 < coverage < 100.0 else "Usual are 0.9, 0.95 and 0.99."
        raise DataError(f"The coverage must lie between 0 and 1; found {coverage:g}.", fix)


def least_probability(predictions: Predictions, coverage: float) -> float:
    """The probability from which a class belongs to the set, calibrated on held-out `predictions`.

    Sets of classes with at least this probability hold the truth of a new picture with at least this `coverage`, on
    average over calibration rows and pictures like them; at most 1 / (N + 1) more where no two scores are equal.

    Raises:
        DataError: too few rows for this coverage, a coverage outside 0..1, or probabilities that are not finite.
    """
    check_coverage(coverage)
    of_truth = _of_truth(predictions)
    count = len(of_truth)
    place = math.ceil(round((count + 1) * coverage, 9))  # the rank that the truth's score of a new picture stays within
    if place > count:
        needed = math.ceil(round(coverage / (1.0 - coverage), 9))
        raise DataError(
            f"A coverage of {coverage:g} needs at least {needed:,} validation pictures; found {count:,}.",
            "Ask for less with --coverage, or hold more out with data.val_fraction.",
        )
    return float(np.sort(of_truth)[count - place])


def prediction_sets(probabilities: npt.NDArray[np.floating[Any]], least: float) -> npt.NDArray[np.bool_]:
    """Which classes belong to the set of each picture, bool `(N, C)`; a row without any is an empty set."""
    return np.asarray(probabilities >= np.asarray(least, dtype=probabilities.dtype))


def measure_sets(calibration: Predictions, predictions: Predictions, coverage: float) -> dict[str, Any]:
    """Sets calibrated on `calibration` and measured on `predictions`; the entry `conformal` of `metrics.json`.

    `measured` is how often the truth is in the set, with Wilson's 95 % interval; `mean_size` the mean number of
    classes, ± 1.96 standard errors; `sizes` how many pictures have a set of each size; `least_covered` the class whose
    pictures are covered least often, since coverage holds over all classes together and not for each.

    Raises:
        DataError: as `least_probability`, or other classes than those calibrated on.
    """
    if calibration.classes != predictions.classes:
        raise DataError(
            f"The sets were calibrated on {len(calibration.classes)} classes, and these predictions are of "
            f"{len(predictions.classes)} others or in another order."
        )
    least = least_probability(calibration, coverage)
    _of_truth(predictions)
    sets = prediction_sets(predictions.probabilities, least)
    count, truth = len(predictions.truth), predictions.truth
    covered = sets[np.arange(count), truth]
    sizes = sets.sum(axis=1)
    error = float(sizes.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    mean = float(sizes.mean())
    support = np.bincount(truth, minlength=len(predictions.classes))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_class = np.bincount(truth[covered], minlength=len(predictions.classes)) / support
    weakest = int(np.nanargmin(by_class))
    return {
        "method": "LAC",
        "coverage": coverage,
        "least_probability": least,
        "calibrated_on": len(calibration.truth),
        "n": count,
        "measured": {"value": float(covered.mean()), "ci95": list(wilson(int(covered.sum()), count))},
        "mean_size": {"value": mean, "ci95": [max(0.0, mean - Z95 * error), mean + Z95 * error]},
        "sizes": {str(size): int(number) for size, number in enumerate(np.bincount(sizes)) if number},
        "least_covered": {
            "class": predictions.classes[weakest],
            "coverage": float(by_class[weakest]),
            "support": int(support[weakest]),
        },
    }


def _of_truth(predictions: Predictions) -> npt.NDArray[np.float32]:
    """Probability of the true class, `(N,)`, checked."""
    if not len(predictions.truth):
        raise DataError("There are no rows to make prediction sets from.", "Raise data.val_fraction in the recipe.")
    bad = np.asarray(~np.isfinite(predictions.probabilities).all(axis=1))
    if bad.any():
        raise DataError(
            f"{int(bad.sum())} of {len(bad)} rows of probabilities hold NaN or infinity "
            f"(first: row {int(bad.argmax())}).",
            "The training diverged; lower the learning rate.",
        )
    return np.asarray(predictions.probabilities[np.arange(len(predictions.truth)), predictions.truth])
