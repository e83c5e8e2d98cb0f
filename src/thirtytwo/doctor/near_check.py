"""A check of some of the groups of near-duplicates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from thirtytwo.doctor.base import Check, Finding, Place
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import counted


class NearCheck(Check):
    """Groups of near-duplicates that a subclass selects; `which` says what is special about them."""

    which: ClassVar[str]

    @staticmethod
    @abstractmethod
    def concerns(subject: Subject, group: Sequence[Place]) -> bool:
        """Whether a group is reported."""

    def advice(self, subject: Subject) -> str:
        """What to do about the groups in this data set."""
        return self.fix

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare small copies of all images, mirrored and shifted too."""
        found = [(group, value) for group, value in subject.near_groups if self.concerns(subject, group)]
        if found:
            groups = [group for group, _ in found]
            yield self.finding(
                f"{counted(len(groups), 'group')} of nearly equal images {self.which}: "
                f"{subject.examples(groups, '≈')}.",
                groups,
                notes=[f"similarity {value:.2f}" for _, value in found],
                fix=self.advice(subject),
            )
