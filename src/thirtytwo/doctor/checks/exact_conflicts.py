"""T102: equal images with different labels."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted


@CHECKS.register("T102")
class ExactConflicts(Check):
    """Images with equal pixels and different labels."""

    code = "T102"
    title = "exact duplicates with different labels"
    severity = "warning"
    why = "At most one of the labels is right; a network cannot learn the others, and is counted wrong for them."
    fix = "Correct the labels or remove the images."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The pixels of all images are compared at the decoded size."""
        conflicts = [group for group in subject.exact_groups if subject.labels_differ(group)]
        if conflicts:
            yield self.finding(
                f"{counted(len(conflicts), 'group')} of duplicate images with different labels: "
                f"{subject.examples(conflicts)}.",
                conflicts,
            )
