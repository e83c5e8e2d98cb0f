"""T501: labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.label_probe import LEAST, predict_held_out
from thirtytwo.doctor.subject import Subject
from thirtytwo.evaluation.label_issues import find_label_issues


@CHECKS.register("T501")
class LabelErrors(Check):
    """Labels that a linear probe on features contradicts, by confident learning."""

    code = "T501"
    title = "probable label errors"
    severity = "warning"
    why = (
        "Wrong labels cost accuracy in training, and in a test set they make every metric wrong. A linear layer on the "
        "features of a bundled model, fitted on four fifths of the images, predicts the others, and confident learning "
        "(arXiv 1911.00068) compares these predictions with the labels."
    )
    fix = "Look at them, the first ones first, and correct those that are wrong: many are right, but unusual."
    costly = True

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Predict every image by a probe that was fitted without it."""
        counts = np.bincount(subject.labels, minlength=len(subject.data.classes))
        kept = np.flatnonzero(counts >= LEAST)
        if len(kept) < 2:
            return
        rows = np.flatnonzero(np.isin(subject.labels, kept))
        classes = tuple(subject.data.classes[index] for index in kept)
        labels = np.searchsorted(kept, subject.labels[rows]).astype(np.int64)
        predictions = predict_held_out(subject.features[rows], labels, classes)
        issues = find_label_issues(predictions)
        if not len(issues):
            return
        groups = [(subject.places[rows[position]],) for position in issues.positions]
        notes = [
            f"labeled {classes[labels[position]]}, predicted {classes[suggested]}, quality {quality:.2f}"
            for position, suggested, quality in zip(issues.positions, issues.suggested, issues.quality, strict=True)
        ]
        yield self.finding(
            f"{len(groups):,} of {len(rows):,} labels are probably wrong: "
            + "; ".join(f"{subject.name_of(place)} ({note})" for (place,), note in zip(groups[:3], notes, strict=False))
            + ("; …" if len(groups) > 3 else "."),
            groups,
            notes=notes,
            predicted=[
                (classes[suggested], float(predictions.confidence[position]))
                for position, suggested in zip(issues.positions, issues.suggested, strict=True)
            ],
        )
