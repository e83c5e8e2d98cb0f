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
        found = [group for group in subject.near_groups if self.concerns(subject, group.places)]
        if found:
            groups = [group.places for group in found]
            mirrored = sum(group.mirrored for group in found)
            copies = f", {mirrored:,} of them with a mirrored copy" if mirrored else ""
            yield self.finding(
                f"{counted(len(groups), 'group')} of nearly equal images {self.which}{copies}: "
                f"{subject.examples(groups, '≈')}.",
                groups,
                notes=[f"similarity {group.similarity:.2f}{', mirrored' * group.mirrored}" for group in found],
                fix=self.advice(subject),
            )
