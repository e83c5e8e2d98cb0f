"""Conformal prediction sets: sets of classes that contain the true class with a given probability.

Split conformal prediction with the threshold on 1 - p(true class), called LAC (M. Sadinle, J. Lei, L. Wasserman, *Least
Ambiguous Set-Valued Classifiers with Bounded Error Levels*, JASA 2019, arXiv 1609.00451), with the finite-sample
correction (A. Angelopoulos, S. Bates, arXiv 2107.07511). If the probabilities are exact, no other sets with the same
coverage are smaller on average; the sets are deterministic. On validation images of CIFAR-10 and CIFAR-100 the adaptive
methods (APS, arXiv 2006.02544; RAPS, arXiv 2009.14193) reached the same coverage with larger sets. Drawback: where the
model's accuracy is above the coverage, some images get an empty set, meaning that no class is probable enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, RunError
from thirtytwo.evaluation.calibration import LEAST_IMAGES
from thirtytwo.evaluation.checks import DIVERGED, check_finite
from thirtytwo.evaluation.evaluators import Context, Evaluator, Option, Request, register
from thirtytwo.evaluation.metrics import Z95, proportion
from thirtytwo.evaluation.sections import Cell, Section, Table
from thirtytwo.predictions import Predictions
from thirtytwo.text import SPACE, interval, percent, readable


def check_coverage(coverage: Any) -> None:
    """Check that a coverage lies between 0 and 1.

    Raises:
        DataError: it does not.
    """
    if isinstance(coverage, bool | str) or not hasattr(coverage, "__float__"):
        raise DataError(f"The coverage must be a number between 0 and 1; found {coverage!r}.")
    if not 0.0 < coverage < 1.0:
        fix = f"Did you mean {coverage / 100:g}?" if 1.0 < coverage < 100.0 else "Common values are 0.9, 0.95 and 0.99."
        raise DataError(f"The coverage must lie between 0 and 1; found {coverage:g}.", fix)


def least_probability(predictions: Predictions, coverage: float) -> float:
    """Compute the least probability with which a class belongs to the set, from held-out `predictions`.

    The set of classes with at least this probability contains the true class of a new image from the same distribution
    with a probability of at least `coverage`, and at most 1 / (N + 1) more if no two scores are equal.

    Args:
        predictions: predictions of held-out images, used for calibration.
        coverage: wanted probability that the set contains the true class, 0 to 1.

    Raises:
        DataError: too few images for this coverage, a coverage outside 0..1, or probabilities that are not finite.
    """
    check_coverage(coverage)
    true_probabilities = _true_class_probabilities(predictions)
    count = len(true_probabilities)
    rank = math.ceil(round((count + 1) * coverage, 9))  # of the score: the finite-sample quantile
    if rank > count:
        needed = math.ceil(round(coverage / (1.0 - coverage), 9))
        raise DataError(
            f"A coverage of {coverage:g} needs at least {needed:,} validation images; found {count:,}.",
            "Lower --coverage, or hold out more images with data.val_fraction.",
        )
    return float(np.sort(true_probabilities)[count - rank])


def prediction_sets(probabilities: npt.NDArray[np.floating[Any]], least: float) -> npt.NDArray[np.bool_]:
    """Membership of each class in the prediction set of each image, bool `(N, C)`.

    Args:
        probabilities: float `(N, C)`.
        least: threshold of `least_probability`.
    """
    return np.asarray(probabilities >= np.asarray(least, dtype=probabilities.dtype))


def measure_sets(calibration: Predictions, predictions: Predictions, coverage: float) -> dict[str, Any]:
    """Calibrate prediction sets on `calibration` and evaluate them on `predictions`.

    Returns:
        The entry `conformal` of `metrics.json`. `measured` is the empirical coverage with Wilson's 95 % interval;
        `mean_size` the mean number of classes, ± 1.96 standard errors; `sizes` the number of images by size of their
        set; `least_covered` the class with the lowest coverage, since the guarantee is marginal and not per class.

    Raises:
        DataError: as for `least_probability`, or the classes of the two differ.
    """
    if calibration.classes != predictions.classes:
        raise DataError(
            f"The prediction sets were calibrated on {len(calibration.classes)} classes, but these predictions have "
            f"{len(predictions.classes)} classes with other names or in another order."
        )
    threshold = least_probability(calibration, coverage)
    _true_class_probabilities(predictions)
    sets = prediction_sets(predictions.probabilities, threshold)
    count, truth = len(predictions.truth), predictions.truth
    covered = sets[np.arange(count), truth]
    sizes = sets.sum(axis=1)
    error = float(sizes.std(ddof=1)) / math.sqrt(count) if count > 1 else 0.0
    mean = float(sizes.mean())
    support = np.bincount(truth, minlength=len(predictions.classes))
    with np.errstate(invalid="ignore", divide="ignore"):
        class_coverage = np.bincount(truth[covered], minlength=len(predictions.classes)) / support
    lowest = int(np.nanargmin(class_coverage))
    return {
        "method": "LAC",
        "coverage": coverage,
        "least_probability": threshold,
        "calibrated_on": len(calibration.truth),
        "n": count,
        "measured": proportion(int(covered.sum()), count),
        "mean_size": {"value": mean, "ci95": [max(0.0, mean - Z95 * error), mean + Z95 * error]},
        "sizes": {str(size): int(number) for size, number in enumerate(np.bincount(sizes)) if number},
        "least_covered": {
            "class": predictions.classes[lowest],
            "coverage": float(class_coverage[lowest]),
            "support": int(support[lowest]),
        },
    }


def _true_class_probabilities(predictions: Predictions) -> npt.NDArray[np.float32]:
    """Validate `predictions` and return the probability of the true class, `(N,)`."""
    if not len(predictions.truth):
        raise DataError("There are no images to build prediction sets from.", "Raise data.val_fraction in the recipe.")
    check_finite(predictions.probabilities, "probabilities", DIVERGED)
    return np.asarray(predictions.probabilities[np.arange(len(predictions.truth)), predictions.truth])


@register
class ConformalEvaluator(Evaluator):
    """Prediction sets with a requested coverage."""

    key, title = "conformal", "Prediction sets"
    order = 2
    options = (
        Option(
            "coverage",
            float,
            None,
            "Also compute prediction sets that contain the true class with this probability, such as 0.95.",
            "SHARE",
        ),
    )

    def check(self, request: Request) -> Predictions:
        """Check the coverage, and load the validation predictions.

        Raises:
            RunError: the run has no validation images, or their predictions are missing.
            DataError: the coverage is out of range or needs more images, or validation itself is evaluated.
        """
        coverage = request.options["coverage"]
        check_coverage(coverage)
        if not request.validation.count:
            raise RunError(
                f"{request.run} has no validation images, and prediction sets are calibrated on them.",
                "Train with data.val_fraction above 0 and data.train_on = 'train'.",
            )
        calibration = request.validation.predictions()
        least_probability(calibration, coverage)
        if request.own and request.split == "val":
            raise DataError(
                "Prediction sets are calibrated on validation, so they cannot be evaluated on it.", "Omit --split val."
            )
        return calibration

    def measure(self, context: Context) -> dict[str, Any]:
        """Calibrate the sets on validation and evaluate them."""
        sets = measure_sets(context.prepared, context.predictions, context.options["coverage"])
        return sets | dict(context.validation.selection)

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Requested and measured coverage, and set sizes."""
        counts = tuple(
            (Cell(size), Cell(f"{images:,}"), Cell(percent(images / record["n"])))
            for size, images in _set_sizes(record)
        )
        return Section(
            sentences=_sentences(record, split),
            tables=(_coverage_table(record), Table(("Set size", "Images", "Share"), counts)),
        )


def _sentences(record: Mapping[str, Any], split: str) -> tuple[str, ...]:
    asked, least = _exact_percent(record["coverage"]), percent(record["least_probability"])
    calibrated = ["temperature and curvature"] if record["calibrated_on"] >= LEAST_IMAGES else []
    chosen = ", ".join([*calibrated, *(record.get("validation_chose") or ())])
    threshold = (
        f"This threshold is set on {record['calibrated_on']:,} validation images so that sets contain the true class "
        f"with probability {asked}."
    )
    guarantee = "The requested coverage is guaranteed only if the validation images are used for nothing else. " + (
        f"Here they were also used to choose {chosen}." if chosen else "Here nothing else was chosen on them."
    )
    return (
        f"A prediction set contains every class with a probability of at least {least}.",
        threshold,
        "An empty set means that no class is likely enough.",
        guarantee,
        f"Rely on the coverage measured on {split}, with its interval.",
        "Coverage is over all classes together, not for each class.",
    )


def _coverage_table(record: Mapping[str, Any]) -> Table:
    measured, sizes, weakest = record["measured"], record["mean_size"], record["least_covered"]
    ends = interval(sizes["ci95"], as_percent=False, digits=2)
    rows = (
        (Cell("Requested coverage"), Cell(_exact_percent(record["coverage"]))),
        (
            Cell("Measured coverage"),
            Cell(percent(measured["value"]), f"{interval(measured['ci95'])}, n = {record['n']:,}"),
        ),
        (Cell("Mean set size"), Cell(f"{sizes['value']:.2f}", ends)),
        (Cell(f"Lowest class coverage: {readable(weakest['class'])}"), Cell(percent(weakest["coverage"]))),
    )
    return Table(("Prediction sets", "Value"), rows)


def _exact_percent(share: float) -> str:
    """A requested share: 0.95 is `95 %`."""
    return f"{100 * share:g}{SPACE}%"


def _set_sizes(record: Mapping[str, Any], most: int = 6) -> list[tuple[str, int]]:
    """Number of images by set size; large sets in one row."""
    sizes = sorted((int(size), count) for size, count in record["sizes"].items())
    few = [(str(size), count) for size, count in sizes if size < most]
    many = sum(count for size, count in sizes if size >= most)
    return [*few, (f"{most} and more", many)] if many else few
