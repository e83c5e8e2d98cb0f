"""Runs that a session opened by their path, wherever they are on this computer."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from thirtytwo.app.folder_field import entered
from thirtytwo.app.folds import is_cross_validation
from thirtytwo.app.problems import explained
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.io import expand_home, is_directory, is_file
from thirtytwo.text import as_markdown

_WHERE = "Give the folder of a run: training names it when it ends."
_OPENED, _LAST, _PROBLEM, _FIELD = "opened runs", "run opened last", "problem of the opened run", "run-path"


def opened_runs() -> list[Path]:
    """The runs opened in this session that still exist, the last opened one first."""
    kept: list[Path] = st.session_state.setdefault(_OPENED, [])
    return [path for path in kept if has_predictions(path)]


def just_opened() -> Path | None:
    """The run that the user just opened; once."""
    found: Path | None = st.session_state.pop(_LAST, None)
    return found


def find_run(text: str) -> Path:
    """The run, or the cross-validation, at a path: its directory, or a file in it such as its report.

    Raises:
        RunError: there is none, or it was not evaluated.
        InputError: it cannot be read.
    """
    path = expand_home(text)
    directory = path.parent if is_file(path) else path
    if not is_directory(directory):
        raise RunError(f"There is no directory “{text}” on this computer.", _WHERE)
    if not has_predictions(directory):
        raise RunError(
            f"{str(directory)!r} is not an evaluated run: it has no recipe, or no predictions.",
            _WHERE,
        )
    return directory


def has_predictions(directory: Path) -> bool:
    """Whether a directory is a run that was evaluated, or a finished cross-validation."""
    if is_cross_validation(directory):
        return True
    return (directory / "recipe.toml").is_file() and any(directory.glob("predictions-*.parquet"))


def show_path_form() -> None:
    """Let the user of this computer open a run by its path, and say what is wrong with the path."""
    problem = st.session_state.pop(_PROBLEM, "")
    with st.expander("Open another run on this computer", expanded=bool(problem)):
        with st.form("run-form", border=False, enter_to_submit=True):
            st.text_input("Path of the run", placeholder="~/runs/mine", key=_FIELD)
            st.form_submit_button("Open", on_click=_open, key="run-open")
        if problem:
            st.error(as_markdown(problem), icon=":material/error:")


def _open() -> None:
    text = st.session_state[_FIELD].strip()
    if not text:
        return
    try:
        found = find_run(entered(text))
    except ThirtytwoError as error:
        st.session_state[_PROBLEM] = explained(error)
        return
    open_run(found)


def open_run(found: Path) -> None:
    """Let the page Explore show a run, wherever it is."""
    others = [path for path in opened_runs() if path.resolve() != found.resolve()]
    st.session_state[_OPENED] = [found, *others]
    st.session_state[_LAST] = found
