"""T304: classes whose names differ only in case, spaces or encoding."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import quote


@CHECKS.register("T304")
class SimilarNames(Check):
    """Classes whose names differ only in case, in spaces around them, or in how letters are encoded."""

    code = "T304"
    title = "class names that are almost the same"
    severity = "warning"
    why = "They are often one class that was written in two ways; the network then has to guess which one is meant."
    fix = "If they are the same class, put their images into one folder."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare the names after Unicode's compatibility normalization and case folding."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name in subject.data.classes:
            groups[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
        for names in groups.values():
            if len(names) > 1:
                yield self.finding(
                    f"The classes {' and '.join(map(quote, names))} have almost the same name.", classes=len(names)
                )
