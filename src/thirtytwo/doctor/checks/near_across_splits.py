"""T111: nearly equal images in more than one split."""

from __future__ import annotations

from collections.abc import Sequence

from thirtytwo.doctor.base import CHECKS, Place
from thirtytwo.doctor.near_check import NearCheck
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T111")
class NearAcrossSplits(NearCheck):
    """Copies in more than one split that were recompressed, resized, brightened, shifted or mirrored."""

    code = "T111"
    title = "near-duplicates across splits"
    severity = "warning"
    why = "Test images of which the network saw a copy in training make test metrics optimistic."
    fix = "Look at them, and remove copies from one of the splits."
    which = "in more than one split"

    @staticmethod
    def concerns(subject: Subject, group: Sequence[Place]) -> bool:
        """As `title` says."""
        return subject.splits_differ(group)
