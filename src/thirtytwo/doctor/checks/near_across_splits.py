"""T111: nearly equal images in more than one split."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T111")
class NearAcrossSplits(Check):
    """Copies in more than one split that were recompressed, resized, brightened, shifted or mirrored."""

    code = "T111"
    title = "near-duplicates across splits"
    severity = "warning"
    why = "Test images of which the network saw a copy in training make test metrics optimistic."
    fix = "Look at them, and remove copies from one of the splits."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare small copies of all images, mirrored and shifted too."""
        found = [(group, value) for group, value in subject.near_groups if subject.splits_differ(group)]
        if found:
            groups = [group for group, _ in found]
            yield self.finding(
                f"{len(groups)} groups of nearly equal images are in more than one split: {subject.examples(groups)}.",
                groups,
                notes=[f"similarity {value:.2f}" for _, value in found],
            )
