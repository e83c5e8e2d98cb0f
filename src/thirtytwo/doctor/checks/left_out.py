"""T202: files and folders that are left out."""

from __future__ import annotations

from collections.abc import Iterator

from thirtytwo.data.sources.folder import is_refused
from thirtytwo.doctor.base import CHECKS, Check, Finding, Severity
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import capitalized


@CHECKS.register("T202")
class LeftOut(Check):
    """Files and folders that are left out, and what else is special about the data."""

    code = "T202"
    title = "files that are left out, and other notes on reading the data"
    severity = "note"
    why = "Images that you expect to be used may be among them."
    fix = ""

    def run(self, subject: Subject) -> Iterator[Finding]:
        """What loading the data set left out is repeated, with its reasons."""
        for left in subject.data.skipped:
            refused, warned = is_refused(left), left in subject.data.warnings
            severity: Severity = "error" if refused else "warning" if warned else "note"
            fix = "Correct its permissions." if refused else self.fix
            yield self.finding(f"{capitalized(left)}.", severity=severity, fix=fix)
