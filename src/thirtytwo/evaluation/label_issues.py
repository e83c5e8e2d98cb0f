"""Find likely label errors by confident learning, from predictions of images that were not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, require
from thirtytwo.evaluation.evaluators import Context, Evaluator, Results, register
from thirtytwo.evaluation.sections import Cell, Picked, Section, Table
from thirtytwo.predictions import Predictions
from thirtytwo.text import percent, readable


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Labels that may be wrong, lowest label quality first.

    `positions` int64 `(M,)`: indices into the predictions; `suggested` int64 `(M,)`: the predicted class; `quality`
    float64 `(M,)`: label quality score, 0 to 1, lower is more likely wrong.
    """

    positions: npt.NDArray[np.int64]
    suggested: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.positions)


def has_several_classes(predictions: Predictions) -> bool:
    """Whether the labels are of at least two classes, as confident learning needs."""
    return len(np.unique(predictions.truth)) > 1


def find_label_issues(predictions: Predictions) -> LabelIssues:
    """Find labels that confident learning (arXiv 1911.00068, cleanlab) flags as wrong.

    The number of wrong labels per pair of classes is estimated from the mean predicted probabilities; that many of the
    least likely labels are flagged where cleanlab's two pruning rules agree. The order is by normalized margin: the
    label's probability minus the largest other one. A label that equals the predicted class is never flagged, nor is
    the only image of a class.

    Args:
        predictions: predictions of images that were not trained on; others give no information.

    Raises:
        DataError: the labels are of fewer than two classes (`has_several_classes`).
    """
    if not has_several_classes(predictions):
        raise DataError(
            f"Finding label issues needs images of at least 2 classes; found {len(predictions.truth)} images of "
            f"{len(np.unique(predictions.truth))} of {len(predictions.classes)} classes."
        )
    cleanlab_filter, cleanlab_rank = require("cleanlab.filter", "train"), require("cleanlab.rank", "train")
    probabilities = predictions.probabilities.astype(np.float64)
    quality = cleanlab_rank.get_label_quality_scores(predictions.truth, probabilities, method="normalized_margin")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="May not flag all label issues", category=UserWarning)
        flagged = cleanlab_filter.find_label_issues(predictions.truth, probabilities, filter_by="both", n_jobs=1)
    positions = np.flatnonzero(flagged & ~predictions.correct)
    positions = positions[np.argsort(quality[positions], kind="stable")]
    return LabelIssues(positions, predictions.predicted[positions], quality[positions])


@register
class LabelIssuesEvaluator(Evaluator):
    """Labels that may be wrong, found again from the stored predictions for every report."""

    key, title, store = "label_issues", "Label issues", "nothing"
    order = 5

    def measure(self, context: Context) -> None:
        """Nothing is stored."""

    def read(self, results: Results) -> Mapping[str, Any] | None:
        """Label issues of each split with predictions of several classes; None where there is no such split."""
        splits = [
            {"split": split, "name": results.split_names.get(split, split), "predictions": given}
            | {"issues": find_label_issues(given)}
            for split, given in results.predictions.items()
            if has_several_classes(given)
        ]
        return {"splits": splits} if splits else None

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Number of issues by split, and a list of them, the lowest label quality first."""
        splits = record["splits"]
        if not any(len(part["issues"]) for part in splits):
            labels = " and ".join(f"{len(part['predictions'].truth):,} {part['name']}" for part in splits)
            return Section((f"None: confident learning finds no issue in {labels} labels.",))
        counts = " and ".join(
            f"{len(part['issues']):,} of {len(part['predictions'].truth):,} {part['name']} labels" for part in splits
        )
        found = sorted((issue for part in splits for issue in _listed_issues(part)), key=lambda issue: issue[0])
        rows = tuple(row for _, row, _ in found[:MAX_LISTED])
        title = f"The {len(rows)} most likely errors as a list" if len(rows) < len(found) else "All as a list"
        return Section(
            sentences=(
                f"Possible label errors: {counts}.",
                "None of these images was used for training.",
                "Confident learning (Northcutt et al. 2021, with cleanlab) compares labels with predictions.",
                "Where the network is inaccurate, many of these labels are correct: check each before you change it.",
            ),
            tables=(Table(("Image", "Split", "Label", "Suggested", "Confidence"), rows, words=True, folded=title),),
            images=tuple(image for _, _, image in found),
        )


MAX_LISTED = 300


def _listed_issues(part: Mapping[str, Any]) -> list[tuple[float, tuple[Cell, ...], Picked]]:
    """Quality, row and image of each issue of a split."""
    predictions, issues, name = part["predictions"], part["issues"], part["name"]
    found = []
    for position, suggested, quality in zip(issues.positions, issues.suggested, issues.quality, strict=True):
        given, instead = (
            readable(predictions.classes[int(index)]) for index in (predictions.truth[position], suggested)
        )
        confidence, image = percent(float(predictions.confidence[position])), predictions.name_of(int(position))
        row = tuple(Cell(text) for text in (image, name, given, instead, confidence))
        lines, notes = (f"labeled {given}", f"suggested {instead}"), (confidence, f"{image}, {name}")
        found.append((float(quality), row, Picked(part["split"], int(position), lines, notes)))
    return found
