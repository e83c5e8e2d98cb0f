"""T301: classes without images in a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import listing


@CHECKS.register("T301")
class MissingClasses(Check):
    """Classes that have no image in a split."""

    code = "T301"
    title = "classes missing in a split"
    severity = "warning"
    why = "A class without training images is never predicted; one without test images is not evaluated."
    fix = "Add images of these classes to the split."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The images of every class in every split are counted."""
        for name, images in subject.splits.items():
            missing = [subject.data.classes[index] for index in np.flatnonzero(images.counts == 0)]
            if missing:
                yield self.finding(
                    f"{name} has no images of {listing(missing)}.",
                    severity="error" if name == "train" else "warning",
                    classes=len(missing),
                )
