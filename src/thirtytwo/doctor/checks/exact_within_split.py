"""T103: equal images within a split."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted


@CHECKS.register("T103")
class ExactWithinSplit(Check):
    """Images with equal pixels within a split."""

    code = "T103"
    title = "exact duplicates within a split"
    severity = "note"
    why = "They count twice: in training as a larger weight, in the test as a smaller number of different images."
    fix = "Keep one of each group."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The pixels of all images are compared at the decoded size; groups with different labels are those of T102."""
        within = [
            group
            for group in subject.exact_groups
            if len({place.split for place in group}) < len(group) and not subject.labels_differ(group)  # else T102
        ]
        if within:
            extra = sum(len(group) - len({place.split for place in group}) for group in within)
            what = f"{counted(extra, 'duplicate')} of other images of the same split: {subject.examples(within)}."
            yield self.finding(what, within)
