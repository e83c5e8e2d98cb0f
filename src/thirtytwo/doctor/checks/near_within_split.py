"""T113: nearly equal images within a split."""

from __future__ import annotations

from collections.abc import Sequence

from thirtytwo.doctor.base import CHECKS, Place
from thirtytwo.doctor.near_check import NearCheck
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T113")
class NearWithinSplit(NearCheck):
    """Copies within a split. Images below 16 pixels are too small to be compared."""

    code = "T113"
    title = "near-duplicates within a split"
    severity = "note"
    why = "Bursts and copies count several times, and make the data seem larger than it is."
    fix = (
        "Keep one of each group if they are copies. Where thirtytwo splits the data, each group stays on one side with "
        "data.keep_together = 'near-duplicates', which 'auto' chooses for up to 20,000 photographs without --group-by."
    )
    which = "within one split"

    def advice(self, subject: Subject) -> str:
        """As `fix`, but without a setting that training follows already."""
        if subject.data.train.near is not None:
            return (
                "Keep one of each group if they are copies. Nothing is to be set for the splits: where thirtytwo cuts "
                "them, as here, each group stays on one side."
            )
        return self.fix

    @staticmethod
    def concerns(subject: Subject, group: Sequence[Place]) -> bool:
        """As `title` says."""
        return len({place.split for place in group}) < len(group)
