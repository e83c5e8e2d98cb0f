"""T302: classes with few training images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.data.split import members_of, units_of
from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import listing

FEW_IMAGES = 20


@CHECKS.register("T302")
class FewImages(Check):
    """Classes with fewer than `FEW_IMAGES` training images; an error where they are too few to split a test set off."""

    code = "T302"
    title = "classes with few images"
    severity = "warning"
    why = "A network learns little about such a class, and its metrics rest on very few images."
    fix = "Add images; metrics for such classes are not reliable."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The training images of every class are counted."""
        if subject.undivided is not None:
            single = indivisible(subject)
            yield self.finding(
                subject.undivided.message,
                [(place,) for place in subject.places_of(single)],
                severity="error",
                fix=subject.undivided.fix,
                classes=len(single),
            )
        counts = subject.data.train.counts
        few = [subject.data.classes[index] for index in np.flatnonzero(counts < FEW_IMAGES)]
        have = "has" if len(few) == 1 else "have"
        if few:
            yield self.finding(
                f"{len(few)} of {len(counts)} classes {have} fewer than {FEW_IMAGES} training images: {listing(few)}.",
                classes=len(few),
            )


def indivisible(subject: Subject) -> list[int]:
    """Classes of a single image, or of images that all belong together, of which no test images can be split off."""
    train = subject.data.train
    _, unit_of = np.unique(units_of(train), return_inverse=True)
    return [index for index, own in enumerate(members_of(train, unit_of)) if len(own) == 1]
