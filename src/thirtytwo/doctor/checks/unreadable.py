"""T201 and T200: images that cannot be read, and data that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.errors import ImageError


@CHECKS.register("T200")
class Unusable(Check):
    """Data that cannot be loaded at all; `diagnose` reports it in place of running the checks."""

    code = "T200"
    title = "data that cannot be used"
    severity = "error"
    why = "Nothing can be trained on it."
    fix = "Correct what is named."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Data that was loaded is usable."""
        return iter(())


@CHECKS.register("T201")
class Unreadable(Check):
    """Images that are empty, cut short, damaged, too large or of an unknown format."""

    code = "T201"
    title = "images that cannot be read"
    severity = "error"
    why = "Training stops at such a file, unless data.skip_unreadable leaves it out."
    fix = "Copy the file again from where it came from."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The files that could not be read when the data set was loaded are reported."""
        yield from self.findings(subject.unreadable)

    @classmethod
    def findings(cls, causes: Iterable[ImageError]) -> Iterator[Finding]:
        """A finding for each error."""
        for cause in causes:
            yield cls.finding(cause.message, fix=cause.fix, images=1)
