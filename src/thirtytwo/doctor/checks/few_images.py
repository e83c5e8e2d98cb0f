"""T302: classes with few training images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import listing

FEW_IMAGES = 20


@CHECKS.register("T302")
class FewImages(Check):
    """Classes with fewer than `FEW_IMAGES` training images."""

    code = "T302"
    title = "classes with few images"
    severity = "warning"
    why = "A network learns little about such a class, and its metrics rest on very few images."
    fix = "Add images; metrics for such classes are not reliable."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The training images of every class are counted."""
        counts = subject.data.train.counts
        few = [subject.data.classes[index] for index in np.flatnonzero(counts < FEW_IMAGES)]
        if few:
            yield self.finding(
                f"{len(few)} of {len(counts)} classes have fewer than {FEW_IMAGES} training images: {listing(few)}.",
                classes=len(few),
            )
