"""T305: a test set that is too small to measure accuracy."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.text import counted, points

ASSUMED_ACCURACY = 0.9
WIDE, TOO_WIDE = 0.025, 0.05
"""Half-widths of the 95 % interval of accuracy from which a note, and a warning, is given."""


@CHECKS.register("T305")
class SmallTest(Check):
    """A test set whose accuracy has a wide interval."""

    code = "T305"
    title = "too few test images"
    severity = "note"
    why = "Two models that differ by less than about the interval can hardly be distinguished."
    fix = (
        "Add test images: four times as many halve the interval. To compare models, use a paired test "
        "(thirtytwo compare), or cross-validation."
    )

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The finding states the half-width of Wilson's interval at an accuracy of 90 %."""
        test = subject.data.test
        if test is None or not len(test):
            return
        half = half_width(len(test))
        if half >= WIDE:
            yield self.finding(
                f"The test set has {counted(len(test), 'image')}: an accuracy of {100 * ASSUMED_ACCURACY:.0f} % is "
                f"measured to ±{points(half, 1, signed=False)} (95 % interval).",
                severity="warning" if half >= TOO_WIDE else "note",
                images=len(test),
            )


def half_width(count: int, accuracy: float = ASSUMED_ACCURACY) -> float:
    """Half the width of the 95 % interval of an accuracy on `count` images (Wilson 1927)."""
    low, high = wilson(accuracy * count, count)
    return (high - low) / 2
