"""T501: labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.features import choose_larger_model, larger_features
from thirtytwo.doctor.label_probe import LEAST, predict_held_out
from thirtytwo.doctor.out_of_fold import OutOfFold
from thirtytwo.doctor.second_probe import predict_doubted
from thirtytwo.doctor.subject import Subject
from thirtytwo.evaluation.label_issues import find_label_issues
from thirtytwo.predictions import Predictions
from thirtytwo.text import percent

Positions = npt.NDArray[np.int64]


RELIABLE = 0.5
"""Least agreement of predictions and labels without a word of caution."""


@CHECKS.register("T501")
class LabelErrors(Check):
    """Images that a model fitted without them confidently predicts as another class, by confident learning
    (arXiv 1911.00068). The model is a linear probe on features; of small images, a larger model is applied to the most
    doubtful ones as well. With `--predictions`, the predictions are those of a cross-validation (`train --folds`).
    """

    code = "T501"
    title = "probable label errors"
    severity = "warning"
    why = "Wrong labels cost accuracy in training, and in a test set they make every metric wrong."
    fix = "Look at them, the first ones first, and correct those that are wrong: many are right, but unusual."
    costly = True

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Each such image is reported with the predicted class and its probability."""
        rows, predictions = _by_probe(subject) if subject.out_of_fold is None else _by_folds(subject.out_of_fold)
        if len(predictions.classes) < 2:
            return
        issues, classes, labels = find_label_issues(predictions), predictions.classes, predictions.truth
        if not len(issues):
            return
        groups = [(subject.places[rows[position]],) for position in issues.positions]
        notes = [
            f"labeled {classes[labels[position]]}, predicted {classes[suggested]}, "
            f"probability {predictions.confidence[position]:.2f}"
            for position, suggested in zip(issues.positions, issues.suggested, strict=True)
        ]
        source = "a linear layer on features" if subject.out_of_fold is None else str(subject.out_of_fold.path)
        agreement = float((predictions.predicted == labels).mean())
        yield self.finding(
            f"By {source}, whose predictions agree with {percent(agreement)} of the labels, {len(groups):,} of "
            f"{len(rows):,} labels may be wrong{_caution(agreement)}: "
            + "; ".join(f"{subject.name_of(place)} ({note})" for (place,), note in zip(groups[:3], notes, strict=False))
            + ("; …" if len(groups) > 3 else "."),
            groups,
            notes=notes,
            predicted=[
                (classes[suggested], float(predictions.confidence[position]))
                for position, suggested in zip(issues.positions, issues.suggested, strict=True)
            ],
        )


def _caution(agreement: float) -> str:
    return "" if agreement >= RELIABLE else " (predictions that agree so little say little about labels)"


def _by_probe(subject: Subject) -> tuple[Positions, Predictions]:
    """Positions of the images of classes with enough of them, and predictions by a probe fitted on their features."""
    kept, rows, labels = _of_kept_classes(subject.labels, len(subject.data.classes))
    classes = tuple(subject.data.classes[index] for index in kept)
    if len(kept) < 2:
        return rows, Predictions(classes, labels, np.zeros((len(rows), len(kept)), dtype=np.float32), rows)
    first = predict_held_out(subject.features[rows], labels, classes)
    larger = choose_larger_model(subject.data)
    if larger is None:
        return rows, first
    return rows, predict_doubted(first, lambda chosen: larger_features(larger, subject.images_at(rows[chosen])))


def _by_folds(given: OutOfFold) -> tuple[Positions, Predictions]:
    """The same by a cross-validation, for the images that it predicted."""
    all_of = given.predictions
    kept, rows, labels = _of_kept_classes(all_of.truth, len(all_of.classes))
    probabilities = all_of.probabilities[np.ix_(rows, kept)].astype(np.float64) + 1e-9
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = tuple(all_of.classes[index] for index in kept)
    return given.positions[rows], Predictions(classes, labels, probabilities.astype(np.float32), all_of.rows[rows])


def _of_kept_classes(labels: Positions, classes: int) -> tuple[Positions, Positions, Positions]:
    """Classes with at least `LEAST` images, positions of their images, and the labels of these among these classes."""
    kept = np.flatnonzero(np.bincount(labels, minlength=classes) >= LEAST)
    rows = np.flatnonzero(np.isin(labels, kept))
    return kept, rows, np.searchsorted(kept, labels[rows]).astype(np.int64)
