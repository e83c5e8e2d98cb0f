"""T113: nearly equal images within a split."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T113")
class NearWithinSplit(Check):
    """Copies within a split."""

    code = "T113"
    title = "near-duplicates within a split"
    severity = "note"
    why = "Bursts and copies count several times, and make the data seem larger than it is."
    fix = "Keep one of each group, or name the groups with --group-by so that they stay in one split."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare small copies of all images, mirrored and shifted too."""
        found = [
            (group, value) for group, value in subject.near_groups if len({place.split for place in group}) < len(group)
        ]
        if found:
            groups = [group for group, _ in found]
            yield self.finding(
                f"{len(groups)} groups of nearly equal images are in one split: {subject.examples(groups)}.",
                groups,
                notes=[f"similarity {value:.2f}" for _, value in found],
            )
