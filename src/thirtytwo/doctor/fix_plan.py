"""Suggest fixes for the findings of a diagnosis, as a plan that people read and edit before it is applied.

Test images stay as they are unless they cannot be read, or training refuses the data with them: runs before and after
the fixes are compared on them, and a test set that is corrected by a model's predictions agrees more with models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thirtytwo.config.recommend import is_small
from thirtytwo.data.fixes import Action, Fix, FixPlan
from thirtytwo.data.split import TEST_FRACTION, places_of
from thirtytwo.data.types import DataSet
from thirtytwo.doctor.base import CHECKS, Finding, Place
from thirtytwo.doctor.checks.exact_across_splits import ExactAcrossSplits
from thirtytwo.doctor.checks.exact_conflicts import ExactConflicts
from thirtytwo.doctor.checks.exact_within_split import ExactWithinSplit
from thirtytwo.doctor.checks.few_images import FewImages, indivisible
from thirtytwo.doctor.checks.label_errors import LabelErrors
from thirtytwo.doctor.checks.missing_classes import MissingClasses, is_needed
from thirtytwo.doctor.checks.near_across_splits import NearAcrossSplits
from thirtytwo.doctor.checks.similar_names import folded_name
from thirtytwo.doctor.checks.single_color import SingleColor
from thirtytwo.doctor.checks.unreadable import Unreadable
from thirtytwo.doctor.diagnose import Diagnosis
from thirtytwo.doctor.subject import Subject
from thirtytwo.text import listing

TEST = "test"
MAJORITY = 2
"""Number of equal images that must agree on a label for each one that has another."""
CONFIDENT = 0.6
"""Least probability of the predicted class with which a label is replaced."""
DOUBTFUL, DOUBTFUL_PHOTOGRAPHS = 0.4, 0.5
"""Least probability with which an image is dropped instead. Below it, most labels of small images are right: CIFAR-10
with 5 % flipped labels, `benchmarks/label_errors.py`. Photographs are predicted once only, so they need more."""
_ORDER = ("train", "val", TEST)
_NAMED = 3
VAL_FRACTION = 0.1
"""Share of the training images of a class that are moved to a validation split without the class."""


@dataclass(frozen=True)
class Suggestions:
    """A plan, and what it leaves out.

    Attributes:
        plan: the suggested fixes, most certain first.
        test: number of test images with such findings, which are left as they are.
        last: number of images that would be fixed if they were not the last of their class in their split.
    """

    plan: FixPlan
    test: int
    last: int


@dataclass(frozen=True)
class _Suggestion:
    """A fix of an image, and how certain it is, 0 to 1.

    `place` is None for an image that cannot be read; `needed` says that training refuses the data without the fix, so
    that it also changes test images, and the last of a class.
    """

    place: Place | None
    fix: Fix
    certainty: float = 1.0
    needed: bool = False


def suggest_fixes(diagnosis: Diagnosis) -> Suggestions:
    """Suggest what to do about the findings of a diagnosis.

    A class of which a split lacks images that training needs gets some from train, or the name of a class that is
    spelled almost the same; otherwise it is dropped from all splits. Of equal images one stays, and of copies in
    several splits those in the split that is not trained on; copies with different labels are all dropped unless one
    label has a majority of `MAJORITY` to 1. Probably wrong labels are replaced by confident predictions. Images that
    are of one color or cannot be read are dropped. If a plan was applied to the data before the diagnosis, its fixes
    are part of the suggested plan, which is for the data as it is stored.

    Raises:
        ValueError: the data set could not be loaded.
    """
    subject = diagnosis.subject
    if subject is None:
        raise ValueError("there is no data set to fix")
    ran = set(diagnosis.ran)
    needed = [*_missing_classes(subject, diagnosis.findings), *_single_images(subject, diagnosis.findings)]
    gone = {one.fix.label for one in needed if one.fix.action == "drop"}
    found = [
        *needed,
        *(_unreadable(subject) if Unreadable.code in ran else ()),
        *_exact(subject, diagnosis.findings),
        *_blank(subject, diagnosis.findings),
        *_near(subject, diagnosis.findings),
        *_wrong_labels(subject, diagnosis.findings),
    ]
    found.sort(key=lambda suggestion: -suggestion.certainty)  # stable: of equal certainty in the order above
    left = _left(subject.data)
    test: set[Place] = set()
    last: set[Place] = set()
    fixes: dict[Place | tuple[str, str], Fix] = {}
    for one in found:
        key = one.place or (one.fix.split, one.fix.image)
        if key in fixes or (one.fix.action == "relabel" and one.fix.to in gone):
            continue
        if one.place is not None and one.place.split == TEST and not one.needed:
            test.add(one.place)
        elif one.place is not None and left[one.place.split, one.fix.label] < 2 and not one.needed:
            last.add(one.place)
        else:
            fixes[key] = one.fix
            left[one.fix.split, one.fix.label] -= one.place is not None
            left[one.fix.split, one.fix.to] += one.fix.action == "relabel"
            left[one.fix.to, one.fix.label] += one.fix.action == "move"
    by_row = all(images.files is None for images in subject.splits.values())
    every = tuple(fixes.values())
    if diagnosis.fixes is not None:
        every = _after(diagnosis.fixes, every)
    return Suggestions(FixPlan(every, by_row), len(test), len(last.difference(fixes)))


def _after(before: FixPlan, new: Sequence[Fix]) -> tuple[Fix, ...]:
    """A plan for the data as it is stored, where `new` are fixes of the data to which `before` was applied.

    An image keeps its earlier fix where both together cannot be said in one row. Of rows of a table, images that were
    moved to a split have other numbers there, so nothing new is suggested for that split.
    """
    earlier = {_image_of(fix, before): fix for fix in before.fixes}
    moved_to = {fix.to for fix in before.fixes if fix.action == "move" and before.by_row}
    found: dict[tuple[str, str], Fix | None] = dict(earlier)
    for fix in new:
        image = _image_of(fix, before)
        old = earlier.get(image)
        if fix.split not in moved_to:
            found[image] = fix if old is None else _both(old, fix)
    return tuple(fix for fix in found.values() if fix is not None)


def _image_of(fix: Fix, plan: FixPlan) -> tuple[str, str]:
    return (fix.split if plan.by_row else "", fix.image)


def _both(old: Fix, new: Fix) -> Fix | None:
    """One fix that does what two do one after the other; None where they cancel each other out."""
    if new.action == "drop":
        return replace(new, split=old.split, label=old.label)
    if old.action != "relabel" or not old.label:
        return old
    return None if new.to == old.label else replace(new, split=old.split, label=old.label)


def _left(data: DataSet) -> Counter[tuple[str, str]]:
    """Number of images by split and class."""
    return Counter(
        {
            (name, label): int(count)
            for name, images in data.stored.items()
            for label, count in zip(data.classes, images.counts, strict=True)
        }
    )


def _suggestion(
    subject: Subject,
    place: Place,
    code: str,
    evidence: str,
    to: str = "",
    certainty: float = 1.0,
    *,
    action: Action | None = None,
    needed: bool = False,
) -> _Suggestion:
    """A suggestion to relabel an image, or to drop it if `to` is empty, unless another action is given."""
    images = subject.splits[place.split]
    name = str(int(images.rows[place.position])) if images.files is None else images.files[place.position]
    reason = f"{code} {CHECKS.get(code).title}"
    action = action or ("relabel" if to else "drop")
    fix = Fix(action, place.split, name, subject.class_of(place), to, reason, evidence)
    return _Suggestion(place, fix, certainty, needed)


def _groups(findings: Sequence[Finding], code: str) -> Iterator[tuple[Place, ...]]:
    for finding in findings:
        if finding.code == code:
            yield from finding.groups


def _is_reported(findings: Sequence[Finding], code: str) -> bool:
    """Whether a check found an error, for which training refuses the data."""
    return any(finding.code == code and finding.severity == "error" for finding in findings)


def _missing_classes(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Give each class images in every split that needs them, or take all of its images out."""
    if not _is_reported(findings, MissingClasses.code):
        return
    code, classes = MissingClasses.code, subject.data.classes
    lacking = {
        index: [name for name in subject.splits if not _count(subject, name, index) and is_needed(subject, name, index)]
        for index in range(len(classes))
    }
    renamed = {
        index: other for index in lacking if "train" in lacking[index] and (other := _spelled_alike(subject, index))
    }
    filled = {
        (name, other) for index, other in renamed.items() for name in subject.splits if _count(subject, name, index)
    }
    for index, label in enumerate(classes):
        splits = [name for name in lacking[index] if (name, label) not in filled]
        if not splits:
            continue
        what = f"{listing(splits, quoted=False)} {'has' if len(splits) == 1 else 'have'} no images of {label}"
        if moved := {} if "train" in splits else _moved(subject, index, splits):
            for place, split in moved.items():
                yield _suggestion(subject, place, code, what, split, action="move", needed=True)
        else:
            for place in subject.places_of([index]):
                yield _suggestion(subject, place, code, what, renamed.get(index, ""), needed=True)


def _count(subject: Subject, split: str, index: int) -> int:
    """Number of images of a class in a split."""
    return int(subject.splits[split].counts[index])


def _spelled_alike(subject: Subject, index: int) -> str:
    """The one class with training images whose name is almost that of another class; empty: there is no such."""
    name, data = folded_name(subject.data.classes[index]), subject.data
    trained = [label for label, count in zip(data.classes, data.train.counts, strict=True) if count]
    alike = [label for label in trained if folded_name(label) == name]
    return alike[0] if len(alike) == 1 else ""


def _moved(subject: Subject, index: int, splits: Sequence[str]) -> dict[Place, str]:
    """Training images of a class that are moved to splits which lack it; empty where too few would be left.

    They are chosen by their content; equal images and near-duplicates stay together.
    """
    train = subject.data.train
    units = {position: int(train.hashes[position]) for position in np.flatnonzero(train.labels == index).tolist()}
    for group in subject.near_groups:
        members = [place.position for place in group.places if place.split == "train" and place.position in units]
        units |= dict.fromkeys(members, min((units[position] for position in members), default=0))
    different = np.unique(np.array(list(units.values()), dtype=np.uint64))
    if len(different) < 2 * len(splits) + 1:
        return {}
    order = different[np.argsort(places_of(different, "missing in a split"), kind="stable")].tolist()
    moved: dict[Place, str] = {}
    for split in splits:
        share = TEST_FRACTION if split == TEST else VAL_FRACTION
        count = max(1, round(share * len(different)))
        chosen, order = set(order[:count]), order[count:]
        moved |= {Place("train", position): split for position, unit in units.items() if unit in chosen}
    return moved


def _single_images(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Drop the classes of which no test images can be split off."""
    if subject.undivided is None or not _is_reported(findings, FewImages.code):
        return
    for index in indivisible(subject):
        for place in subject.places_of([index]):
            evidence = "its class cannot be both in training and in test"
            yield _suggestion(subject, place, FewImages.code, evidence, needed=True)


def _unreadable(subject: Subject) -> Iterator[_Suggestion]:
    """Drop images that cannot be read."""
    reason = f"{Unreadable.code} {Unreadable.title}"
    for cause in subject.unreadable:
        if cause.place is not None:
            split, name, label = cause.place
            yield _Suggestion(None, Fix("drop", split, name, label, "", reason, cause.message))


def _exact(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Keep one of equal images, or none where their labels differ."""
    kinds = (ExactConflicts, ExactAcrossSplits, ExactWithinSplit)
    reported = {kind.code: set(_groups(findings, kind.code)) for kind in kinds}
    for group in subject.exact_groups if any(reported.values()) else ():
        for place, code in _superfluous(subject, group):
            if group in reported[code]:
                others = [other for other in group if other != place]
                yield _suggestion(subject, place, code, f"same pixels as {_named(subject, others)}")


def _superfluous(subject: Subject, group: Sequence[Place]) -> Iterator[tuple[Place, str]]:
    """The images of a group of equal ones that are to be dropped, with the code of the check that reports them."""
    held = max(_ORDER.index(place.split) for place in group)
    conflict = subject.labels_differ(group)
    lower = [place for place in group if _ORDER.index(place.split) < held]
    same = [place for place in group if _ORDER.index(place.split) == held]
    for place in lower:
        yield place, ExactConflicts.code if conflict else ExactAcrossSplits.code
    label, count = Counter(map(subject.label, group)).most_common(1)[0]
    agrees = count >= MAJORITY * (len(group) - count)
    kept = next((place for place in same if agrees and subject.label(place) == label), None)
    if _ORDER[held] == TEST and not subject.labels_differ(same):
        kept = same[0]
    for place in same:
        if place != kept:
            yield place, ExactConflicts.code if conflict else ExactWithinSplit.code


def _named(subject: Subject, places: Sequence[Place]) -> str:
    """The images with their classes, those that are kept from training first."""
    order = sorted(places, key=lambda place: -_ORDER.index(place.split))
    return listing(map(subject.described, order), _NAMED, quoted=False)


def _blank(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Drop images of one color."""
    for (place,) in _groups(findings, SingleColor.code):
        yield _suggestion(subject, place, SingleColor.code, "all pixels are equal")


def _near(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Of near-duplicates in several splits, keep those in the split that is not trained on."""
    groups = set(_groups(findings, NearAcrossSplits.code))
    for group, similarity, _ in subject.near_groups if groups else ():
        held = max(_ORDER.index(place.split) for place in group)
        others = [place for place in group if _ORDER.index(place.split) == held]
        evidence = f"similarity {similarity:.2f} to {_named(subject, others)}"
        for place in group if group in groups else ():
            if place not in others:
                certainty = min(similarity, 1.0)
                yield _suggestion(subject, place, NearAcrossSplits.code, evidence, certainty=certainty)


def _wrong_labels(subject: Subject, findings: Sequence[Finding]) -> Iterator[_Suggestion]:
    """Replace probably wrong labels by confident predictions, and drop images with a less confident one."""
    doubtful = DOUBTFUL if is_small(subject.data.median_side) else DOUBTFUL_PHOTOGRAPHS
    for finding in findings:
        if finding.code != LabelErrors.code:
            continue
        for (place,), (label, probability) in zip(finding.groups, finding.predicted, strict=True):
            if probability < doubtful:
                continue
            evidence = f"given {subject.class_of(place)}, predicted {label} with {probability:.2f}"
            to = label if probability >= CONFIDENT else ""
            yield _suggestion(subject, place, LabelErrors.code, evidence, to, probability)
