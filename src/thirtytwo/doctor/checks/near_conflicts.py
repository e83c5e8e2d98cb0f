"""T112: nearly equal images with different labels."""

from __future__ import annotations

from collections.abc import Sequence

from thirtytwo.doctor.base import CHECKS, Place
from thirtytwo.doctor.near_check import NearCheck
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T112")
class NearConflicts(NearCheck):
    """Copies with different labels. Images below 16 pixels are too small to be compared."""

    code = "T112"
    title = "near-duplicates with different labels"
    severity = "warning"
    why = "Of two labels of one photograph, at most one is right."
    fix = "Look at them; correct the labels or remove the images."
    which = "with different labels"

    @staticmethod
    def concerns(subject: Subject, group: Sequence[Place]) -> bool:
        """As `title` says."""
        return subject.labels_differ(group)
