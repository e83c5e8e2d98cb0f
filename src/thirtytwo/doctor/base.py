"""A check and its findings; the registry of checks, which other packages extend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from thirtytwo.registry import Registry

if TYPE_CHECKING:
    from thirtytwo.doctor.subject import Subject

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Most severe first."""


@dataclass(frozen=True, order=True)
class Place:
    """An image of a data set: its split as stored and its position there."""

    split: str
    position: int


@dataclass(frozen=True, eq=False)
class Finding:
    """What a check found.

    Attributes:
        check: class of the check.
        what: what was found, as a sentence.
        groups: the images concerned; those of a group belong together, as duplicates do. Most telling first.
        files: files that could not be read, and so are no images of the data set.
        notes: a phrase for each group, such as `labels: cat, dog`; empty, or one for each group.
        predicted: for each group, the class that it probably has, with the probability; empty, or one for each group.
        severity: where it is not that of the check.
        fix: what to do, where it is not that of the check.
        images: number of images concerned, where `groups` does not name them; 0: not known.
        classes: number of classes concerned; 0: it is not about classes.
    """

    check: type[Check]
    what: str
    groups: tuple[tuple[Place, ...], ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    predicted: tuple[tuple[str, float], ...] = ()
    severity: Severity = "note"
    fix: str = ""
    images: int = 0
    classes: int = 0

    @property
    def code(self) -> str:
        """Code of the check."""
        return self.check.code


class Check(ABC):
    """Looks for one kind of problem.

    A check of another package is a subclass, registered by its code in the entry-point group `thirtytwo.checks`.

    Attributes:
        code: a letter and three digits; never used for another problem.
        title: the problem, as a short phrase.
        severity: of its findings.
        why: why it matters, as sentences.
        fix: what to do about it, as sentences.
        costly: whether it takes more than seconds for 60,000 small images, and runs only on request.
    """

    code: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    why: ClassVar[str]
    fix: ClassVar[str]
    costly: ClassVar[bool] = False

    @abstractmethod
    def run(self, subject: Subject) -> Iterator[Finding]:
        """Examine a data set."""

    @classmethod
    def finding(
        cls,
        what: str,
        groups: Sequence[Sequence[Place]] = (),
        *,
        files: Sequence[str] = (),
        notes: Sequence[str] = (),
        predicted: Sequence[tuple[str, float]] = (),
        severity: Severity | None = None,
        fix: str | None = None,
        images: int = 0,
        classes: int = 0,
    ) -> Finding:
        """A finding of this check, with its severity and advice unless others are given."""
        return Finding(
            cls,
            what,
            tuple(map(tuple, groups)),
            tuple(files),
            tuple(notes),
            tuple(predicted),
            cls.severity if severity is None else severity,
            cls.fix if fix is None else fix,
            images,
            classes,
        )


CHECKS: Registry[type[Check]] = Registry("check")
"""All checks by code."""
