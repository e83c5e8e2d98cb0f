"""T401: images of a single color."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding, Place
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted


@CHECKS.register("T401")
class SingleColor(Check):
    """Images whose pixels are all equal."""

    code = "T401"
    title = "images of a single color"
    severity = "warning"
    why = "They show nothing of their class: a broken export, a lens cap or an empty scan."
    fix = "Look at them, and remove those that show nothing."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Every pixel is compared with the first one."""
        for name, images in subject.splits.items():
            flat = [
                Place(name, position) for position, image in enumerate(images.images) if (image == image[0, 0]).all()
            ]
            if flat:
                shown = ", ".join(map(subject.described, flat[:3]))
                yield self.finding(
                    f"{counted(len(flat), 'image')} of {name} with a single color: {shown}.",
                    [(place,) for place in flat],
                )
