"""Rename, delete, export and compare the models of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.export_menu import show_export
from thirtytwo.app.library import BUNDLED, FROM_OPTION, RUN, TAUGHT, Entry, projects, session_models
from thirtytwo.app.names import MAX_NAME, give_name, given_names
from thirtytwo.app.navigation import open_page
from thirtytwo.app.problems import explained
from thirtytwo.app.project_checks import photo_counts
from thirtytwo.app.views.compare import choose_models, classes_of
from thirtytwo.errors import InputError, OutputError, ThirtytwoError
from thirtytwo.io import LOCK, RUNS, free_path
from thirtytwo.rundir import RunDir
from thirtytwo.text import as_markdown

TRASH = ".trash"
"""Folder in ./runs that deleted runs are moved to."""
_PANEL, _NOTICE, _PROBLEM, _MOVED = "model panel", "model notice", "model problem", "model moved"
_LABELS = {"compare": "Compare", "export": "Export", "rename": "Rename", "delete": "Delete"}
_ICONS = {
    "compare": ":material/balance:",
    "export": ":material/ios_share:",
    "rename": ":material/edit:",
    "delete": ":material/delete:",
}


def show_notices() -> None:
    """Show what was done last, and how to undo it; once."""
    if text := st.session_state.pop(_PROBLEM, ""):
        st.error(as_markdown(text), icon=":material/error:")
    if text := st.session_state.pop(_NOTICE, ""):
        st.success(as_markdown(text), icon=":material/check:")
    if moved := st.session_state.get(_MOVED):
        with st.container(horizontal=True, vertical_alignment="center", key="moved"):
            st.info(as_markdown(f"{moved[0].name} was moved to {moved[1]}."), icon=":material/delete:", width="stretch")
            st.button("Undo", key="model-undo", icon=":material/undo:", on_click=_try(restore))


def show_actions(entry: Entry, found: Sequence[Entry], number: int) -> None:
    """Show the buttons of a model, and what belongs to the one that was pressed."""
    kinds = ["compare"] if len(found) > 1 else []
    kinds += ["export", *(["rename"] if can_rename(entry) else []), *(["delete"] if can_delete(entry) else [])]
    opened = st.session_state.get(_PANEL)
    with st.container(horizontal=True, key=f"actions-{number}"):
        for kind in kinds:
            st.button(
                _LABELS[kind],
                key=f"{kind}-{number}",
                icon=_ICONS[kind],
                type="primary" if opened == (str(entry.path), kind) else "secondary",
                on_click=_toggle,
                args=(entry, kind),
                help=f"{_LABELS[kind]} {as_markdown(entry.name)}",
            )
    if opened is None or opened[0] != str(entry.path) or opened[1] not in kinds:
        return
    with st.container(border=True, key=f"panel-{number}"):
        if opened[1] == "compare":
            _show_compare(entry, found)
        elif opened[1] == "export":
            show_export(entry, f"export-{number}")
        elif opened[1] == "rename":
            _show_rename(entry)
        else:
            _show_delete(entry)


def can_rename(entry: Entry) -> bool:
    """Whether the user may name a model: not a bundled one, nor one of --model; users elsewhere only their own."""
    return entry.origin not in (BUNDLED, FROM_OPTION) and (library.settings.is_local or _is_own(entry))


def can_delete(entry: Entry) -> bool:
    """Whether the user may delete a model, or remove it from the list; as `can_rename`."""
    return can_rename(entry)


def _is_own(entry: Entry) -> bool:
    """Whether this session added a model, or has its project open."""
    return str(entry.path) in session_models() or entry.origin == TAUGHT


def consequence(entry: Entry) -> str:
    """What deleting a model does, in a sentence."""
    if entry.origin == TAUGHT:
        images = ""
        with suppress(ThirtytwoError):
            project = projects().read(entry.path.parent.name)
            images = f" and its {' and '.join(photo_counts(project.photos))}"
        return (
            "The model file and its estimated accuracy are deleted from this computer. The project with its class names"
            f"{images} stays on the page Add classes, where Train makes the model again."
        )
    if str(entry.path) in session_models():
        if entry.handle is not None:
            return "The uploaded copy is deleted. Your own file stays where it is."
        return f"It is removed from the list. The file {entry.path} stays where it is."
    return (
        f"The run directory {entry.path.parent}, with its weights, metrics, predictions and report, is moved to "
        f"{RUNS / TRASH}. Delete it there to free its space."
    )


def delete(entry: Entry) -> None:
    """Delete a model as `consequence` says.

    Raises:
        InputError: it may not be deleted.
        RunError: the run is in use.
        OutputError: it cannot be moved.
    """
    if not can_delete(entry):
        raise InputError(f"{entry.name} cannot be deleted here: it is {entry.origin}.", "")
    if not entry.path.is_file():  # of two quick clicks, the first did it
        return
    st.session_state.pop(_MOVED, None)
    if entry.origin == TAUGHT:
        projects().forget_model(entry.path.parent.name)
    elif session_models().pop(str(entry.path), None) is None:
        given = given_names(projects().folder).get(str(entry.path.resolve()), "")
        st.session_state[_MOVED] = (entry, move_to_trash(entry.path.parent), given)
        return
    st.session_state[_NOTICE] = f"{entry.name} was deleted."


def move_to_trash(run: Path) -> Path:
    """Move a run below ./runs to the trash folder there; returns its new path.

    Raises:
        RunError: another process writes to it.
        OutputError: it cannot be moved.
    """
    target = free_path(RUNS / TRASH / run.name)
    _move(run, target)
    return target


def restore() -> None:
    """Move the run that was deleted last back, with the name that the user gave it.

    Raises:
        RunError, OutputError: as `move_to_trash`, or the name cannot be stored.
    """
    if _MOVED not in st.session_state:  # of two quick clicks, the first did it
        return
    entry, trashed, given = st.session_state[_MOVED]
    run = free_path(entry.path.parent)
    _move(trashed, run)
    del st.session_state[_MOVED]
    if given:  # it is stored by the path, and names of models that are gone may have been dropped
        give_name(projects().folder, run / entry.path.name, given)
    st.session_state[_NOTICE] = f"{entry.name} is back."


def _move(run: Path, target: Path) -> None:
    with RunDir(run).writing():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            run.rename(target)
            (target / LOCK).unlink(missing_ok=True)
        except OSError as error:
            fix = "Check its permissions, or move it in a file manager."
            raise OutputError(f"{run} cannot be moved to {target}: {error.strerror}.", fix) from None


def rename(entry: Entry, name: str) -> None:
    """Give a model another name in the app; an empty one gives it back its own.

    Raises:
        InputError: it may not be renamed, or another model has the name.
        RunError, OutputError: the name cannot be stored.
    """
    name = " ".join(name.split())[:MAX_NAME]
    if not can_rename(entry):
        raise InputError(f"{entry.name} cannot be renamed: it is {entry.origin}.", "")
    if any(one.name.casefold() == name.casefold() for one in library.entries() if one.path != entry.path):
        raise InputError(f"Another model is named {name!r}.", "Choose another name.")
    if entry.handle is not None:  # of this session only
        kept = session_models()
        kept[str(entry.path)] = replace(kept[str(entry.path)], name=name or entry.name)
    elif entry.origin == TAUGHT:  # a project and its model have one name
        projects().change(entry.path.parent.name, lambda project: project.with_name(name))
        give_name(projects().folder, entry.path, "")
    else:
        give_name(projects().folder, entry.path, name)
    if library.settings.is_local:
        _rename_base(entry)


def _rename_base(entry: Entry) -> None:
    """Let the projects that start from a model, or were taught with it, go on with its new name."""
    new = next((one.name for one in library.entries() if one.path == entry.path), entry.name)
    for project in projects().all():
        with suppress(ThirtytwoError):  # deleted by another session
            projects().change(project.identity, lambda found: found.with_renamed_base(entry.name, new))


def _toggle(entry: Entry, kind: str) -> None:
    wanted = (str(entry.path), kind)
    st.session_state[_PANEL] = None if st.session_state.get(_PANEL) == wanted else wanted


def _close() -> None:
    st.session_state[_PANEL] = None


def _try(work: Callable[[], None]) -> Callable[[], None]:
    """A callback that shows an error on the page."""

    def callback() -> None:
        try:
            work()
        except ThirtytwoError as error:
            st.session_state[_PROBLEM] = explained(error)

    return callback


def _show_compare(entry: Entry, found: Sequence[Entry]) -> None:
    """Let the user choose another model, those with the same classes first, and open the page Compare."""
    same = classes_of(entry)
    others = sorted((one for one in found if one != entry), key=lambda one: classes_of(one) != same)
    names = [one.name for one in others]
    chosen = st.selectbox(f"Compare {as_markdown(entry.name)} with", names, key=f"compare-with-{entry.path}")
    other = others[names.index(chosen)]
    if classes_of(other) != same:
        st.caption("These models do not know the same classes, so they cannot agree on every image.")
    if st.button("Compare on images", type="primary", key="compare-open"):
        choose_models([entry, other])
        open_page("Compare")


def _show_rename(entry: Entry) -> None:
    key = f"new-name-{entry.path}"

    def apply() -> None:
        rename(entry, st.session_state[key])
        _close()

    with st.form("rename-form", border=False):
        st.text_input("Name in this app", entry.name, key=key, max_chars=MAX_NAME)
        st.form_submit_button("Rename", type="primary", key="rename-apply", on_click=_try(apply))
    if entry.origin == TAUGHT:
        st.caption(
            "Its project on the page Add classes gets this name, too. Leave it empty to name both by the classes."
        )
    elif entry.handle is None:
        st.caption("Files keep their names. Leave the field empty to go back to the model's own name.")


def _show_delete(entry: Entry) -> None:
    def apply() -> None:
        delete(entry)
        _close()

    st.markdown(as_markdown(f"Delete {entry.name}? {consequence(entry)}"))
    with st.container(horizontal=True):
        removes = entry.origin.startswith(RUN) or entry.origin == TAUGHT or entry.handle is not None
        label = "Delete it" if removes else "Remove it from the list"
        st.button(label, type="primary", key="delete-yes", on_click=_try(apply))
        st.button("Keep it", key="delete-no", on_click=_close)
