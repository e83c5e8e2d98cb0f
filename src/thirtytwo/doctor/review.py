"""Go through the suggested fixes of a diagnosis and accept or reject each; only the accepted ones become the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, replace

from thirtytwo.data.fixes import Fix, FixPlan
from thirtytwo.doctor.base import Finding, Place
from thirtytwo.doctor.diagnose import Diagnosis
from thirtytwo.doctor.fix_plan import suggest_fixes
from thirtytwo.doctor.subject import Subject


@dataclass(frozen=True)
class Item:
    """A suggested fix and what people compare to judge it.

    Attributes:
        fix: the suggestion.
        place: its image; None for a file that cannot be read.
        others: the images that the finding names with it, such as its duplicates; those without a suggested fix first.
    """

    fix: Fix
    place: Place | None
    others: tuple[Place, ...] = ()

    @property
    def code(self) -> str:
        """Code of the check that suggests it."""
        return self.fix.reason.partition(" ")[0]


class Review:
    """The decisions on suggested fixes, which can be undone, and the fix that is looked at.

    Attributes:
        diagnosis: what is reviewed, without what the checks computed.
        items: the suggestions, most certain first.
        test: number of test images with findings for which nothing is suggested.
        last: number of images for which nothing is suggested because they are the last of their class in their split.
        position: index of the item that is looked at; 0 if there is none.

    Args:
        diagnosis: the findings; one of data that could not be loaded has no suggestions.
        decided: earlier decisions, which are kept where the same fix is suggested again.
    """

    def __init__(self, diagnosis: Diagnosis, decided: Mapping[Fix, bool] | None = None) -> None:
        plan, self.test, self.last = FixPlan(()), 0, 0
        subject = diagnosis.subject
        if subject is not None:
            found = suggest_fixes(diagnosis)
            plan, self.test, self.last = found.plan, found.test, found.last
            subject = Subject(
                subject.data,
                subject.unreadable,
                spec=subject.spec,
                data_root=subject.data_root,
                lacking=tuple(subject.lacking),
                undivided=subject.undivided,
            )  # without features and thumbnails of all images
        self.diagnosis = replace(diagnosis, subject=subject)
        self.items = tuple(_items(subject, plan, diagnosis.findings)) if subject is not None else ()
        self._by_row = plan.by_row
        self._begin(decided or {})

    def restarted(self, decided: Mapping[Fix, bool]) -> Review:
        """A review of the same suggestions with other decisions, and none to undo."""
        other = copy(self)
        other._begin(decided)
        return other

    def _begin(self, decided: Mapping[Fix, bool]) -> None:
        self.position = 0
        self._decisions = {index: decided[one.fix] for index, one in enumerate(self.items) if one.fix in decided}
        self._history: list[tuple[int, dict[int, bool | None]]] = []
        self._go_to_undecided(0)

    @property
    def current(self) -> Item:
        """The item that is looked at.

        Raises:
            IndexError: nothing is suggested.
        """
        return self.items[self.position]

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the checks that suggest fixes, in the order of their first one."""
        return tuple(dict.fromkeys(item.code for item in self.items))

    @property
    def decided(self) -> dict[Fix, bool]:
        """The decisions: whether a fix is accepted."""
        return {self.items[index].fix: accepted for index, accepted in self._decisions.items()}

    @property
    def plan(self) -> FixPlan:
        """The accepted fixes in their order."""
        accepted = (item.fix for index, item in enumerate(self.items) if self._decisions.get(index))
        return FixPlan(tuple(accepted), self._by_row)

    @property
    def can_undo(self) -> bool:
        """Whether there is a decision of this review to undo."""
        return bool(self._history)

    def decision(self, index: int) -> bool | None:
        """Whether the fix at an index is accepted; None: not decided."""
        return self._decisions.get(index)

    def count(self, code: str | None = None, *, accepted: bool | None = None) -> int:
        """Number of items: of one check or all, and of one decision or all."""
        return sum(
            code in (None, item.code) and accepted in (None, self._decisions.get(index))
            for index, item in enumerate(self.items)
        )

    def go(self, step: int) -> None:
        """Look at another item, `step` further, at most at the first or last one."""
        self.position = max(0, min(len(self.items) - 1, self.position + step))

    def go_to(self, code: str) -> None:
        """Look at the first item of a check that is not decided, or at its first one."""
        found = [index for index, item in enumerate(self.items) if item.code == code]
        self.position = next((index for index in found if index not in self._decisions), found[0])

    def decide(self, accepted: bool, index: int | None = None) -> None:
        """Accept or reject the fix at an index, by default the current one, and look at the one after it."""
        self.position = self.position if index is None else index
        self._set([self.position], accepted)
        self.go(1)

    def decide_all(self, code: str, accepted: bool) -> None:
        """Accept or reject all fixes that a check suggests, and look at the next undecided one."""
        self._set((index for index, item in enumerate(self.items) if item.code == code), accepted)
        self._go_to_undecided(self.position)

    def undo(self) -> None:
        """Take back the last decision, or the last one on all fixes of a check, and look at what was looked at then."""
        if not self._history:
            return
        self.position, before = self._history.pop()
        for index, accepted in before.items():
            if accepted is None:
                self._decisions.pop(index, None)
            else:
                self._decisions[index] = accepted

    def _set(self, indices: Iterable[int], accepted: bool) -> None:
        chosen = list(indices)
        self._history.append((self.position, {index: self._decisions.get(index) for index in chosen}))
        self._decisions |= dict.fromkeys(chosen, accepted)

    def _go_to_undecided(self, start: int) -> None:
        """Look at the first undecided item from `start` on, then from the beginning; stay if there is none."""
        order = [*range(start, len(self.items)), *range(start)]
        self.position = next((index for index in order if index not in self._decisions), self.position)


def _items(subject: Subject, plan: FixPlan, findings: Iterable[Finding]) -> Iterable[Item]:
    """The fixes of a plan with their images, and those of the first finding of the same check that names them."""
    places = {
        (split, str(name)): Place(split, position)
        for split, images in subject.splits.items()
        for position, name in enumerate(images.rows.tolist() if images.files is None else images.files)
    }
    codes = {Item(fix, None).code for fix in plan.fixes}
    groups: dict[tuple[str, Place], tuple[Place, ...]] = {}
    for finding in findings:
        for group in finding.groups if finding.code in codes else ():
            for place in group:
                groups.setdefault((finding.code, place), group)
    fixed = {places.get((fix.split, fix.image)) for fix in plan.fixes}
    for fix in plan.fixes:
        item = Item(fix, places.get((fix.split, fix.image)))
        group = () if item.place is None else groups.get((item.code, item.place), ())
        others = (place for place in group if place != item.place)
        yield replace(item, others=tuple(sorted(others, key=lambda place: place in fixed)))
