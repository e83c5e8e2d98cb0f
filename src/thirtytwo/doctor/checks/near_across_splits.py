"""T111: nearly equal images in more than one split."""

from __future__ import annotations

from collections.abc import Sequence

from thirtytwo.doctor.base import CHECKS, Place
from thirtytwo.doctor.near_check import NearCheck
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T111")
class NearAcrossSplits(NearCheck):
    """Copies in more than one split that were recompressed, resized, brightened, shifted or mirrored. Images below
    16 pixels are too small to be compared.
    """

    code = "T111"
    title = "near-duplicates across splits"
    severity = "warning"
    why = "Test images of which the network saw a copy in training make test metrics optimistic."
    fix = "Look at them, and remove copies from one of the splits."
    which = "in more than one split"

    def advice(self, subject: Subject) -> str:
        """As `fix`, but a test split that thirtytwo cuts can be cut so that copies stay on one side."""
        if not subject.data.test_is_cut:
            return self.fix
        return (
            "Train with --set data.keep_together=near-duplicates: the data has no test split, and the one that "
            "thirtytwo splits off then has each group on one side. Or remove the copies."
        )

    @staticmethod
    def concerns(subject: Subject, group: Sequence[Place]) -> bool:
        """As `title` says."""
        return subject.splits_differ(group)
