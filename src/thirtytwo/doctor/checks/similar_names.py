"""T304: classes whose names differ only in case, separators or encoding."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from thirtytwo.doctor.base import CHECKS, Check, Finding
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import quote


@CHECKS.register("T304")
class SimilarNames(Check):
    """Classes whose names differ only in case, in spaces, hyphens and underscores, or in how letters are encoded."""

    code = "T304"
    title = "class names that are almost the same"
    severity = "warning"
    why = "They are often one class that was written in two ways; the network then has to guess which one is meant."
    fix = "If they are the same class, put their images into one folder."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The names are compared after Unicode's compatibility normalization and case folding, without separators."""
        for names in similar_names(subject.data.classes):
            yield self.finding(similar_names_text(names), classes=len(names))


def similar_names(classes: Iterable[str]) -> list[list[str]]:
    """Groups of two or more names that are almost the same, each in the given order."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[folded_name(name)].append(name)
    return [names for names in groups.values() if len(names) > 1]


def similar_names_text(names: Iterable[str]) -> str:
    """A sentence on one such group."""
    return f"The classes {' and '.join(map(quote, names))} have almost the same name."


def folded_name(name: str) -> str:
    """What names that are almost the same have in common; a name of separators alone is itself."""
    folded = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"[\s_-]+", "", folded) or folded
