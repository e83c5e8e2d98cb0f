"""T301: classes without images in a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted, listing, quote


@CHECKS.register("T301")
class MissingClasses(Check):
    """Classes that have no image in a split; an error where training refuses the data for it."""

    code = "T301"
    title = "classes missing in a split"
    severity = "warning"
    why = "A class without training images is never predicted; one without test images is not evaluated."
    fix = "Add images of these classes to the split."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The images of every class in every split are counted."""
        for name, images in subject.splits.items():
            missing = np.flatnonzero(images.counts == 0).tolist()
            needed = [index for index in missing if is_needed(subject, name, index)]
            if needed:
                words = [f"{quote(subject.data.classes[index])} ({_elsewhere(subject, index)})" for index in needed]
                yield self.finding(
                    f"{name} has no images of {listing(words, quoted=False)}.",
                    [(place,) for place in subject.places_of(needed)],
                    severity="error",
                    fix=_FIX_NEEDED,
                    classes=len(needed),
                )
            if others := [subject.data.classes[index] for index in missing if index not in needed]:
                yield self.finding(f"{name} has no images of {listing(others)}.", classes=len(others))


_FIX_NEEDED = (
    "Training refuses such data: add images of these classes to the split, or leave the classes out of all splits. A "
    "plan of fixes (--fix-plan, or the page Data of the app) suggests which images to move or drop."
)


def is_needed(subject: Subject, split: str, index: int) -> bool:
    """Whether training refuses data in which a split has no image of a class."""
    return split == "train" or (split, subject.data.classes[index]) in subject.lacking


def _elsewhere(subject: Subject, index: int) -> str:
    """Where a class has images."""
    counts = {name: int(images.counts[index]) for name, images in subject.splits.items()}
    return ", ".join(f"{counted(count, 'image')} in {name}" for name, count in counts.items() if count) or "none at all"
