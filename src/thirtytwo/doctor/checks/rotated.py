"""T205: images that their metadata rotates."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject

TURNS = {
    2: "mirrored",
    3: "by 180°",
    4: "mirrored, by 180°",
    5: "mirrored, by 90°",
    6: "by 90°",
    7: "mirrored, by 270°",
    8: "by 270°",
}
"""How an image is turned, clockwise, for each EXIF orientation (EXIF 2.32, tag 0x0112)."""


@CHECKS.register("T205")
class Rotated(Check):
    """Images with an EXIF orientation other than upright."""

    code = "T205"
    title = "images rotated by their metadata"
    severity = "note"
    why = (
        "They are turned upright when they are read here. Programs that ignore the EXIF orientation see them lying on "
        "their side: a service with another decoder, or OpenCV with the flag that ignores it."
    )
    fix = "Nothing for training here; before other programs use them, save them upright."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The orientation of every file is read."""
        placed = subject.placed_facts
        turned = [(place, facts.orientation) for place, facts in placed if facts.orientation in TURNS]
        if turned:
            shown = ", ".join(f"{subject.name_of(place)} ({TURNS[orientation]})" for place, orientation in turned[:3])
            are = "is" if len(turned) == 1 else "are"
            yield self.finding(
                f"{len(turned):,} of {len(placed):,} images {are} rotated by their EXIF orientation: {shown}.",
                [(place,) for place, _ in turned],
                notes=[TURNS[orientation] for _, orientation in turned],
            )
