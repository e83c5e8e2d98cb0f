"""T303: classes with many more images than others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import quote

IMBALANCE = 10.0


@CHECKS.register("T303")
class Imbalance(Check):
    """A class with more than `IMBALANCE` times as many training images as another."""

    code = "T303"
    title = "imbalanced classes"
    severity = "warning"
    why = "A network favors frequent classes, and accuracy hides how it does on rare ones."
    fix = "Add images of the rare classes, and compare per-class metrics rather than accuracy."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The largest class is compared with the smallest that has images."""
        counts, classes = subject.data.train.counts, subject.data.classes
        present = np.flatnonzero(counts)
        if not len(present):
            return
        most, least = int(counts.argmax()), int(present[counts[present].argmin()])
        if counts[most] > IMBALANCE * counts[least]:
            yield self.finding(
                f"Classes are imbalanced: {quote(classes[most])} has {counts[most]} training images, "
                f"{quote(classes[least])} has {counts[least]}.",
                classes=2,
            )
