"""T101: equal images in more than one split."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted


@CHECKS.register("T101")
class ExactAcrossSplits(Check):
    """Images with equal pixels in more than one split."""

    code = "T101"
    title = "exact duplicates across splits"
    severity = "warning"
    why = "Test images that are also training images make test metrics optimistic."
    fix = "Remove them from one of the splits."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The pixels of all images are compared at the decoded size."""
        across = [group for group in subject.exact_groups if subject.splits_differ(group)]
        if across:
            yield self.finding(
                f"{counted(len(across), 'group')} of duplicate images in more than one split: "
                f"{subject.examples(across)}.",
                across,
            )
