"""Apply a plan of fixes to a data set that has not been decoded: every row must fit, or nothing is applied."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.build import fingerprint
from thirtytwo.data.fixes import Action, Fix, FixPlan, Problem, refuse_problems
from thirtytwo.data.split import SPLITS, Positions, Split, concatenate
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.data.undecoded import Source, UndecodedDataSet, UndecodedPart, as_undecoded
from thirtytwo.data.validate import with_all_classes
from thirtytwo.errors import closest
from thirtytwo.text import listing, quote

Place: TypeAlias = tuple[Split, int]
"""Split as stored, and position in it."""
_DONE: Mapping[Action, str] = {"drop": "dropped", "relabel": "relabeled", "move": "moved"}
_EVERYWHERE = (
    "Each split keeps an image of each class that it has, the test split too where --folds leaves it out, unless all "
    "splits lose the class."
)
_CLASSES = 20
"""Classes that a message lists."""


@dataclass(frozen=True, eq=False)
class Fixed:
    """A data set to which a plan was applied.

    Attributes:
        data: the data set.
        counts: number of images that were `dropped`, `relabeled` and `moved`.
        dropped: positions of the dropped images in the splits as stored.
    """

    data: UndecodedDataSet
    counts: Mapping[str, int]
    dropped: Mapping[Split, Positions]


def apply_fixes(data: UndecodedDataSet, plan: FixPlan, *, new_classes: bool = False) -> Fixed:
    """Drop, relabel and move images as a plan says.

    Args:
        data: the data set as stored.
        plan: the plan.
        new_classes: whether images may get a class that the data set does not have.

    Raises:
        DataError: rows of the plan cannot be read or do not fit the data; all of them are named at once.
    """
    chosen, problems = _chosen(data, plan, new_classes)
    refuse_problems(plan, data.where, problems)
    added = dict.fromkeys(fix.to for fix in chosen.values() if fix.action == "relabel" and fix.to not in data.classes)
    classes = (*data.classes, *added)
    parts = {name: _part(data, name, chosen, classes) for name in data.parts}
    refuse_problems(plan, data.where, _emptied(data, parts, classes, chosen))
    counts = Counter(fix.action for fix in chosen.values())
    total = {done: counts[action] for action, done in _DONE.items()}
    note = f"fixes: {', '.join(f'{count:,} {done}' for done, count in total.items())}"
    fixed = replace(
        data,
        classes=classes,
        parts=parts,
        content=lambda: _content(data, chosen),
        skipped=(note, *data.skipped),
    )
    dropped: dict[Split, Positions] = {
        name: np.array(sorted(p for (split, p), fix in chosen.items() if split == name and fix.action == "drop"), int)
        for name in data.parts
    }
    return Fixed(fixed, total, dropped)


def apply_in_memory(data: DataSet, plan: FixPlan) -> DataSet:
    """Apply a plan to a data set in memory, as `apply_fixes` does."""
    names = {id(images): name for name, images in data.stored.items()}
    stored = as_undecoded(data, lambda images, position: f"{names[id(images)]} {position}".encode())
    fixed = apply_fixes(stored, plan)
    left = with_all_classes(fixed.data, lacking=[])  # also of data as it is stored, which has no empty classes
    sets = {name: _taken(data, part, left.classes) for name, part in left.parts.items()}
    dropped = [data.stored[name].hashes[positions] for name, positions in fixed.dropped.items()]
    return replace(
        data,
        train=sets["train"],
        val=sets.get("val"),
        test=sets.get("test"),
        fingerprint=fingerprint(left.classes, [(name, part.images, part.labels) for name, part in sets.items()]),
        skipped=left.skipped,
        thinned=np.concatenate([data.thinned, *dropped]),
        fixes=fixed.counts,
    )


def _taken(data: DataSet, part: UndecodedPart, classes: tuple[str, ...]) -> ImageSet:
    """The images of a fixed split, which are named by their split and position as stored."""
    places = [source.decode().split() for source in part.stream(part.rows) if isinstance(source, bytes)]
    found = None
    for name in dict.fromkeys(name for name, _ in places):
        some = data.stored[name].take(np.array([int(at) for split, at in places if split == name], dtype=np.int64))
        found = some if found is None else concatenate(found, some)
    if found is None:
        found = data.train.take(np.zeros(0, dtype=np.int64))
    return replace(found, labels=part.labels, classes=classes, rows=part.rows)


def _content(data: UndecodedDataSet, chosen: Mapping[Place, Fix]) -> str | None:
    """Key of the content for the cache: images that are moved are in other places than their rows say."""
    content = data.content()
    moved = sorted((*place, fix.to) for place, fix in chosen.items() if fix.action == "move")
    return cache.digest([content, moved]) if content is not None and moved else content


def _chosen(data: UndecodedDataSet, plan: FixPlan, new_classes: bool) -> tuple[dict[Place, Fix], list[Problem]]:
    """The fix of each image, and what is wrong with the rows that do not fit."""
    places = _by_row(data) if plan.by_row else _by_file(data)
    chosen: dict[Place, Fix] = {}
    problems: list[Problem] = []
    if plan.fixes and plan.by_row == any(part.files is not None for part in data.parts.values()):
        used, needed = ("row", "file") if plan.by_row else ("file", "row")
        return {}, [Problem(f"it names images in a column {used!r}, but for this data the column is {needed!r}")]
    for fix in plan.fixes:
        place = _place(data, places, fix, by_row=plan.by_row)
        problem = place if isinstance(place, Problem) else _mismatch(data, place, fix, new_classes)
        if isinstance(place, tuple) and problem is None:
            before = chosen.setdefault(place, fix)
            if (before.action, _target(before)) != (fix.action, _target(fix)):
                problem = Problem(f"is there twice: {_described(before)} and {_described(fix)}")
        if problem is not None:
            start = f"line {fix.line}: " if fix.line else ""
            problems.append(replace(problem, what=f"{start}{_name(fix, plan.by_row)} {problem.what}"))
    return chosen, problems


def _target(fix: Fix) -> str:
    return "" if fix.action == "drop" else fix.to


def _described(fix: Fix) -> str:
    return fix.action if fix.action == "drop" else f"{fix.action} to {quote(fix.to)}"


def _name(fix: Fix, by_row: bool) -> str:
    return f"{fix.split} row {fix.image}" if by_row else quote(fix.image)


def _by_file(data: UndecodedDataSet) -> dict[object, list[Place]]:
    places: dict[object, list[Place]] = defaultdict(list)
    for name, part in data.parts.items():
        for position, file in enumerate(part.files or ()):
            places[file].append((name, position))
    return places


def _by_row(data: UndecodedDataSet) -> dict[object, list[Place]]:
    return {
        (name, row): [(name, position)]
        for name, part in data.parts.items()
        for position, row in enumerate(part.rows.tolist())
    }


def _place(
    data: UndecodedDataSet, places: Mapping[object, Sequence[Place]], fix: Fix, *, by_row: bool
) -> Place | Problem:
    """Where the image of a fix is, or what is wrong, as the end of a phrase.

    An image that is split off as test when the data is loaded is stored in train.
    """
    stored = "train" if fix.split == "test" and "test" not in data.parts else fix.split
    found = places.get((stored, int(fix.image)) if by_row else fix.image, ())
    if not found:
        close = "" if by_row else _spelled(fix.image, places)
        return Problem(f"is not in the data; did you mean {quote(close)}?" if close else "is not in the data")
    if len(found) > 1:
        return Problem(f"is the name of {len(found)} images")
    if stored and found[0][0] != stored:
        return Problem(f"is in {found[0][0]}, not in {fix.split}")
    return found[0]


def _spelled(name: str, places: Mapping[object, object]) -> str:
    """The file that is meant by other separators, a leading `./` or spaces around it; empty: none."""
    plain = name.strip().replace("\\", "/").removeprefix("./")
    return plain if plain in places else ""


def _mismatch(data: UndecodedDataSet, place: Place, fix: Fix, new_classes: bool) -> Problem | None:
    """What does not fit in a row of the plan, as the end of a phrase."""
    name, position = place
    label = data.classes[int(data.parts[name].labels[position])]
    if fix.label and fix.label != label:
        return Problem(f"has the class {quote(label)}, not {quote(fix.label)}")
    if fix.action == "drop" and fix.to.strip():
        return Problem(
            f"is to be dropped, but the column to has {quote(fix.to)}", "A row with drop has no cell to: empty it."
        )
    if (fix.action, fix.to) in {("relabel", label), ("move", name)}:
        return Problem(f"is already {'of the class' if fix.action == 'relabel' else 'in'} {quote(fix.to)}")
    if fix.action == "relabel" and fix.to not in data.classes and not new_classes:
        return _unknown_class(data, fix.to)
    if fix.action == "move" and fix.to not in data.parts:
        return Problem(
            f"cannot be moved to {fix.to}, a split that the data does not have",
            f"Splits of the data: {', '.join(split for split in SPLITS if split in data.parts)}.",
        )
    return None


def _unknown_class(data: UndecodedDataSet, name: str) -> Problem:
    """The problem of a new class; the help lists the existing ones, so that it stands in a message once."""
    close = closest(name, data.classes)
    known = f"Classes of the data: {listing(data.classes, _CLASSES)}; data fix --new-classes allows others."
    meant = f"; did you mean {close}?" if close else ""
    return Problem(f"cannot get the class {quote(name)}, which does not exist{meant}", known)


def _emptied(
    data: UndecodedDataSet, parts: Mapping[Split, UndecodedPart], classes: Sequence[str], chosen: Mapping[Place, Fix]
) -> Iterator[Problem]:
    """Problems with the classes of which a split keeps or gets no image; a new class needs images in every split.

    A class that has no image left in any split is dropped, or merged with others, which is no problem while two classes
    are left. Nor is it one that a class which training lacked leaves another split for it, where splits may lack
    classes.
    """
    added = set(range(len(data.classes), len(classes)))
    before = {name: set(part.labels.tolist()) for name, part in data.parts.items()}
    left = {name: set(part.labels.tolist()) for name, part in parts.items()}
    everywhere = set[int]().union(*left.values())
    fine = set(range(len(data.classes))) - everywhere if len(everywhere) > 1 else set[int]()
    if not data.all_in_all:
        fine |= left.get("train", set()) - before.get("train", set()) - added
    for name in data.parts:
        for index in sorted((before[name] | added) - left[name] - fine):
            where = f"in {name}" if index in added else f"left in {name}"
            yield Problem(f"no image of {quote(classes[index])} would be {where}", _EVERYWHERE)


def _part(data: UndecodedDataSet, name: Split, chosen: Mapping[Place, Fix], classes: Sequence[str]) -> UndecodedPart:
    """A split with new labels, without images that are dropped or moved away, and with those that are moved to it."""
    index = {label: number for number, label in enumerate(classes)}
    part = data.parts[name]
    labels = part.labels.copy()
    keeps = np.ones(len(labels), dtype=bool)
    for (split, position), fix in chosen.items():
        if split != name:
            continue
        if fix.action == "relabel":
            labels[position] = index[fix.to]
        elif fix.action == "drop" or fix.to != name:
            keeps[position] = False
    own = replace(part, labels=labels).take(np.flatnonzero(keeps))
    others = []
    for source in SPLITS:
        moved = sorted(
            position
            for (split, position), fix in chosen.items()
            if split == source and source != name and fix.action == "move" and fix.to == name
        )
        if moved:
            others.append(data.parts[source].take(np.array(moved, dtype=np.int64)))
    return joined(own, others, int(part.rows.max(initial=-1)) + 1) if others else own


def joined(own: UndecodedPart, others: Sequence[UndecodedPart], start: int) -> UndecodedPart:
    """A split with the images of others after its own; those are numbered from `start`, above all of its own rows."""
    pieces = [(0, own, np.arange(start, dtype=np.int64))]
    for other in others:
        pieces.append((pieces[-1][0] + len(pieces[-1][2]), other, other.rows))
    stop = pieces[-1][0] + len(pieces[-1][2])

    def stream(rows: Positions) -> Iterator[Source]:
        for first, part, originals in pieces:
            chosen = rows[(rows >= first) & (rows < first + len(originals))] - first
            if len(chosen):
                yield from part.stream(originals[chosen])

    def original(row: int) -> tuple[UndecodedPart, int]:
        first, part, originals = next(piece for piece in reversed(pieces) if piece[0] <= row)
        return part, int(originals[row - first])

    def name_of(row: int) -> str:
        part, own_row = original(row)
        return part.name_of(own_row)

    def file_name(row: int) -> str:
        part, own_row = original(row)
        return part.file_name(own_row)

    def cells(row: int) -> tuple[str, ...]:
        part, own_row = original(row)
        known = dict(zip(part.columns, part.cells(own_row), strict=True))
        return tuple(known.get(name, "") for name in columns)

    every = [own, *others]
    columns = tuple(dict.fromkeys(name for part in every for name in part.columns))
    return UndecodedPart(
        labels=np.concatenate([part.labels for part in every]),
        rows=np.concatenate([own.rows, np.arange(start, stop, dtype=np.int64)]),
        stream=stream,
        name_of=name_of,
        files=_together([part.files for part in every]),
        random_access=all(part.random_access for part in every),
        groups=_together([part.groups for part in every]),
        columns=columns,
        cells=cells,
        file_name=file_name,
    )


def _together(values: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The values one after the other; None where one is None."""
    if any(value is None for value in values):
        return None
    return tuple(text for value in cast("Sequence[tuple[str, ...]]", values) for text in value)
