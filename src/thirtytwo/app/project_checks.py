"""What is missing before a project can be taught, and what has changed since it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from thirtytwo.app.project import Photo, Project, comparable_name
from thirtytwo.fewshot import LEAST
from thirtytwo.text import counted, listing, readable

RELIABLE = 5
"""Number of images of a class below which the page warns that answers are not reliable."""
_MAX = 5
"""Number of images that are named at once."""


def missing_input(project: Project) -> list[str]:
    """The steps left before a model can be taught, as phrases."""
    steps = [f"name class {position}" for position, one in enumerate(project.classes, start=1) if not one.name]
    names = [one.name for one in project.classes]
    taken = {comparable_name(name): name for name in reversed(names)}
    steps += [
        f"use the name {name!r} for one class only"
        if names.count(name) > 1
        else f"use another name than {name!r}: {taken[comparable_name(name)]!r} is taken, and capitals and spaces make "
        "no difference"
        for name in dict.fromkeys(repeated_names(project))
    ]
    steps += [
        f"add images of {one.name or f'class {position}'}"
        for position, one in enumerate(project.classes, start=1)
        if len(one.readable) < LEAST
    ]
    steps += [f"leave {photo.name!r} in one class only" for photo in (found[0][1] for found in project.shared)][:_MAX]
    return steps


def photo_counts(photos: Iterable[Photo]) -> list[str]:
    """How many images there are, and how many files that cannot be read, as phrases."""
    problems = [bool(photo.problem) for photo in photos]
    images, unreadable = problems.count(False), problems.count(True)
    counts = [counted(images, "image")] if images or not unreadable else []
    return [*counts, f"{counted(unreadable, 'file')} that cannot be read"] if unreadable else counts


def shared_sentence(project: Project, found: Sequence[tuple[int, Photo]]) -> str:
    """An image that several classes have, as a sentence with its file names and the classes."""
    places = [f"“{photo.name}” in “{readable(project.class_name(number))}”" for number, photo in found]
    return f"The same image is there {len(places)} times: {', '.join(places[:-1])} and {places[-1]}."


def repeated_sentence(found: Sequence[tuple[str, str]]) -> str:
    """Images that were to be added and are there already, by their name and the name there, as a sentence."""
    if len(found) == 1:
        name, there = found[0]
        return f"“{name}” is already there{'' if name == there else f', as “{there}”'}: it was not added again."
    names = listing([f"“{name}”" for name, _ in found], _MAX, quoted=False)
    return f"{len(found)} images are already there and were not added again: {names}."


def repeated_names(project: Project) -> list[str]:
    """Names of classes that differ from an earlier one at most by case, spaces or the form of their characters."""
    seen: set[str] = set()
    repeated = []
    for one in project.classes:
        name = comparable_name(one.name)
        if name and name in seen:
            repeated.append(one.name)
        seen.add(name)
    return repeated


def changes_since(project: Project, base: str) -> list[str]:
    """What changed since the model was taught, as phrases; empty if the result is that of the current project."""
    if project.result is None:
        return []
    taught = {one.number: one for one in project.result.classes}
    found = [f"{one.name!r} was removed" for one in taught.values() if one.number not in project.numbers]
    for one in project.classes:
        before = taught.get(one.number)
        if before is None:
            found.append(f"{one.name!r} is new" if one.name else "a class is new")
            continue
        if before.name != one.name:
            found.append(f"{before.name!r} {f'is now named {one.name!r}' if one.name else 'has no name now'}")
        now, then = {photo.digest for photo in one.readable}, set(before.digests)
        found += [
            f"{counted(len(part), 'image')} of {one.name!r} {'was' if len(part) == 1 else 'were'} {what}"
            for part, what in ((now - then, "added"), (then - now, "removed"))
            if part
        ]
    if project.result.base != base:
        found.append(f"it would start from {base!r} instead of {project.result.base!r}")
    return found
