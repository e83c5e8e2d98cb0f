"""T112: nearly equal images with different labels."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T112")
class NearConflicts(Check):
    """Copies with different labels."""

    code = "T112"
    title = "near-duplicates with different labels"
    severity = "warning"
    why = "Of two labels of one photograph, at most one is right."
    fix = "Look at them; correct the labels or remove the images."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare small copies of all images, mirrored and shifted too."""
        found = [(group, value) for group, value in subject.near_groups if subject.labels_differ(group)]
        if found:
            groups = [group for group, _ in found]
            yield self.finding(
                f"{len(groups)} groups of nearly equal images have different labels: {subject.examples(groups)}.",
                groups,
                notes=[f"similarity {value:.2f}" for _, value in found],
            )
