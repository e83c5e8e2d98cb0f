"""The project that a session has open, and undo of what it removed from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.library import OPEN_PROJECT, projects
from thirtytwo.app.photos import content_hash, repetitions
from thirtytwo.app.problems import explained
from thirtytwo.app.project import Photo, PhotoClass, Project, Trial
from thirtytwo.app.project_checks import photo_counts
from thirtytwo.app.taught_result import Result
from thirtytwo.errors import InputError, ThirtytwoError
from thirtytwo.fewshot import LinearProbe

QUERY = "project"
"""Parameter of the page's address that names the open project, so that reloading opens it again."""
_UNDO, _UNDO_TRIALS, _LOST = "undo of the project", "undo of new images", "problem of the project"
_REPEATED = "images that are there already"
TRIALS = 0
"""Stands for the new images where classes are named by their numbers, which start at 1."""
_MAX_UNDO = 50

Change = Callable[[Project], Project]


@dataclass
class Target:
    """The project that images are added to: it stays the same where another one is opened before all are taken in.

    One that is not stored yet is stored with its first images.
    """

    identity: str

    def stored(self) -> str:
        """Its identity."""
        self.identity = self.identity or _stored()
        return self.identity


def target() -> Target:
    """The open project, to add images to."""
    return Target(str(st.session_state.get(OPEN_PROJECT, "")))


def current() -> Project:
    """The open project as it is stored now; an empty one that is not stored yet, if none is open.

    A session opens the project that the page's address names. The address then names the open one.
    """
    if OPEN_PROJECT not in st.session_state:
        _open(st.query_params.get(QUERY, ""))
        projects().delete_unused(st.session_state[OPEN_PROJECT])
    identity: str = st.session_state[OPEN_PROJECT]
    if not identity:
        st.query_params.pop(QUERY, None)
        return Project()
    try:
        project = projects().read(identity)
    except InputError as error:
        st.session_state[_LOST] = explained(error)
        _open("")
        st.query_params.pop(QUERY, None)
        return Project()
    if st.query_params.get(QUERY) != identity:
        st.query_params[QUERY] = identity
    return project


def lost() -> str:
    """Why the project that was asked for is not open, or a change was not stored; once."""
    return str(st.session_state.pop(_LOST, ""))


def others() -> list[Project]:
    """The user's other projects, the last changed one first; none for users of other computers."""
    if not library.settings.is_local:
        return []
    return [one for one in projects().all() if one.identity != st.session_state.get(OPEN_PROJECT)]


def open_project(identity: str) -> None:
    """Open another project, or with an empty identity a new one."""
    _open(identity)


def delete_project() -> None:
    """Delete the open project and open a new one."""
    identity = st.session_state.get(OPEN_PROJECT, "")
    _open("")
    if identity:
        projects().delete(identity)


def rename_project(name: str) -> None:
    """Name the open project; an empty name stands for its classes."""
    _change(lambda project: project.with_name(name))


def rename_class(number: int, name: str) -> None:
    """Rename a class."""
    _change(lambda project: project.rename(number, name))


def add_class() -> None:
    """Add a class."""
    _change(Project.with_class)


def remove_class(number: int) -> None:
    """Remove a class; can be undone."""
    classes = current().classes
    position = next((place for place, one in enumerate(classes) if one.number == number), None)
    if position is not None:
        found = classes[position]
        _remember(f"{found.name or 'A class'} was removed", lambda project: project.restore_class(position, found))
        _change(lambda project: project.without_class(number))


def add_photos(place: Target, number: int, files: Sequence[tuple[str, bytes]]) -> None:
    """Add images, given by name and content, to a class; `repeated` says which of them it had already."""
    identity = place.stored()
    before, noted = projects().read(identity).find(number).photos, _repeated(identity)
    projects().add_photos(identity, number, files)
    _note_repeated(noted, number, before, files)


def repeated(number: int) -> list[tuple[str, str]]:
    """Images that were to be added to a class but are in it already, once: their name, and the name there."""
    return _repeated(st.session_state.get(OPEN_PROJECT, "")).pop(number, [])


def add_class_photos(place: Target, name: str, files: Sequence[tuple[str, bytes]]) -> PhotoClass:
    """Add images, given by name and content, to the class of this name, which is added if there is none.

    `repeated` says which of them it had already.

    Returns:
        The class as it is then.
    """
    identity = place.stored()
    before = projects().read(identity)
    known = before.number_of(name)

    def add(project: Project, photos: list[Photo]) -> Project:
        with_class = project.with_named_class(name)
        number = with_class.number_of(name)
        return with_class if number is None else with_class.with_photos(number, photos)

    noted = _repeated(identity)
    after = projects().add_files(identity, files, add)
    number = after.number_of(name)
    if number is None:
        return PhotoClass(number=0, name=name)
    _note_repeated(noted, number, () if known is None else before.find(known).photos, files)
    return after.find(number)


def move_photo(photo: Photo, source: int, target: int) -> None:
    """Move an image to another class; can be undone."""
    kept = any(one.digest == photo.digest for one in current().find(target).photos)
    _remember(f"{photo.name} was moved", partial(_moved_back, photo, source, target, kept))
    _change(lambda project: project.move_photo(photo.digest, source, target))


def add_trials(place: Target, files: Sequence[tuple[str, bytes]]) -> None:
    """Add new images, given by name and content, that the taught model is tried on."""
    identity = place.stored()
    before, noted = projects().read(identity).trials, _repeated(identity)
    projects().add_files(identity, files, Project.with_trials)
    _note_repeated(noted, TRIALS, [one.photo for one in before], files)


def remove_trials(trials: Sequence[Trial]) -> None:
    """Remove new images; can be undone."""
    if trials:
        _remember(_removed([one.photo for one in trials]), partial(_with_trials, tuple(trials)), _UNDO_TRIALS)
        _change(lambda project: project.without_trials(one.digest for one in trials))


def mark(digest: str, *, actual: int | None = None, excluded: tuple[int, ...] = ()) -> None:
    """Store what the user said of the class of a new image."""
    _change(lambda project: project.mark(digest, actual=actual, excluded=excluded))


def file_trial(digest: str, number: int | None) -> None:
    """Add a new image to a class, or with None remove it from its class."""
    _change(lambda project: project.file_trial(digest, number))


def remove_photos(number: int, photos: Sequence[Photo]) -> None:
    """Remove images from a class; can be undone."""
    if photos:
        _remember(_removed(photos), partial(_with_photos, number, tuple(photos)))
        digests = [photo.digest for photo in photos]
        _change(lambda project: project.without_photos(number, digests))


def set_base(base: str | None) -> None:
    """Choose the model to start from; None: by the size of the images."""
    _change(lambda project: project.with_base(base))


def save_result(identity: str, result: Result, probe: LinearProbe) -> None:
    """Store a taught model and its result in the project that it was taught with."""
    projects().teach(identity, result, probe)


def undoable(*, trials: bool = False) -> str:
    """What `undo` would undo, as a sentence without its full stop; empty if there is nothing."""
    stack = _stack(_UNDO_TRIALS if trials else _UNDO)
    return stack[-1][0] if stack else ""


def undo(*, trials: bool = False) -> None:
    """Undo what was removed or moved last, of the new images if `trials`; other changes since then stay.

    Where that fails, it can be tried again.
    """
    stack = _stack(_UNDO_TRIALS if trials else _UNDO)
    if stack and _change(stack[-1][1]):
        stack.pop()


def has_unsaved() -> bool:
    """Whether the open project is lost with this process, because the user's data folder cannot be written."""
    return bool(st.session_state.get(OPEN_PROJECT)) and not projects().kept


def _repeated(identity: str) -> dict[int, list[tuple[str, str]]]:
    """What `_note_repeated` notes of a project.

    It is asked for before images are stored: a click may end the script's run wherever the state of the session is
    read, and they are then added once more, as if they had been there already.
    """
    noted: dict[str, dict[int, list[tuple[str, str]]]] = st.session_state.setdefault(_REPEATED, {})
    return noted.setdefault(identity, {})


def _note_repeated(
    noted: dict[int, list[tuple[str, str]]],
    number: int,
    before: Sequence[Photo],
    files: Sequence[tuple[str, bytes]],
) -> None:
    """Note which of the files are among the images from before, or among each other."""
    if found := repetitions(before, ((name, content_hash(data)) for name, data in files)):
        noted.setdefault(number, []).extend(found)


def _open(identity: str) -> None:
    st.session_state[OPEN_PROJECT] = identity


def _stored() -> str:
    """Identity of the open project, which is stored first if it is not yet."""
    if not st.session_state.get(OPEN_PROJECT):
        st.session_state[OPEN_PROJECT] = projects().create().identity
    return str(st.session_state[OPEN_PROJECT])


def _change(change: Change) -> bool:
    """Apply a change; returns false where that failed, and `lost` then says why."""
    try:
        projects().change(_stored(), change)
    except ThirtytwoError as error:
        st.session_state[_LOST] = explained(error)
        return False
    return True


def _removed(photos: Sequence[Photo]) -> str:
    return f"{photos[0].name} was removed" if len(photos) == 1 else f"{' and '.join(photo_counts(photos))} were removed"


def _with_photos(number: int, photos: Sequence[Photo], project: Project) -> Project:
    return project.with_photos(number, photos)


def _moved_back(photo: Photo, source: int, target: int, kept: bool, project: Project) -> Project:
    """With an image in the class that it was moved from; also in the other one, if that has `kept` it from before."""
    return project.with_photos(source, [photo]) if kept else project.move_photo(photo.digest, target, source)


def _with_trials(trials: Sequence[Trial], project: Project) -> Project:
    return project.restore_trials(trials)


def _stack(place: str = _UNDO) -> list[tuple[str, Change]]:
    """What can be undone in the open project; it is kept while another one is open."""
    stacks: dict[str, list[tuple[str, Change]]] = st.session_state.setdefault(place, {})
    return stacks.setdefault(st.session_state.get(OPEN_PROJECT, ""), [])


def _remember(what: str, change: Change, place: str = _UNDO) -> None:
    _stack(place).append((what, change))
    del _stack(place)[:-_MAX_UNDO]
