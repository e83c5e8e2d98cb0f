"""Paths that people enter: as they copied them, chosen from the folders of this computer, or used before."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import streamlit as st

from thirtytwo.app import library
from thirtytwo.app.jobs import JobStore, jobs_dir
from thirtytwo.data.load import files_folder
from thirtytwo.data.types import DATASETS
from thirtytwo.errors import InputError, ThirtytwoError
from thirtytwo.images.discover import is_junk, natural_key
from thirtytwo.io import expand_home
from thirtytwo.text import as_markdown, is_utf8, shorten

DATA_FIELD, KNOWN_FIELD = "Folder, CSV file or known data set", "Known data set"
"""Labels of a field for data: on this computer, and from others, which cannot name paths."""
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
_SYSTEMS = {"darwin": ("macOS", "/Users/me/photos/pets"), "linux": ("Linux", "/home/me/photos/pets")}
_MAX_RECENT, _MAX_FOLDERS, _LONGEST = 5, 500, 70


def entered(text: str) -> str:
    """A path or a name as people enter it, without what copying adds: spaces, quotes, `file://` and escaped spaces.

    Raises:
        InputError: it is a path of Windows, and this is another system.
    """
    text = text.strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
        text = text.lstrip("/") if sys.platform == "win32" else text
    if sys.platform == "win32":
        return text
    if _WINDOWS.match(text):
        system, example = _SYSTEMS.get(sys.platform, _SYSTEMS["linux"])
        raise InputError(
            f"{text} is a path of Windows, but the app runs on {system}.",
            f"Enter the path that the folder has on that computer, such as {example}.",
        )
    plain = text.replace("\\ ", " ")
    return plain if plain != text and not _exists(text) and _exists(plain) else text


def data_label() -> str:
    """The label of a field for data."""
    return DATA_FIELD if library.settings.is_local else KNOWN_FIELD


def what_to_enter() -> str:
    """What a field for data accepts, as a sentence in Markdown."""
    known = ", ".join(f"`{name}`" for name in DATASETS.names())
    if not library.settings.is_local:
        return f"Enter one of {known}."
    return f"Enter a folder with one folder of images per class, a CSV file, or one of {known}."


def short_name(spec: str, name: str = "") -> str:
    """The name of data for headings: its own, or its path where a known data set has that name.

    Args:
        spec: the data as it was entered.
        name: its own name; empty: the last part of its path.
    """
    path, _, _ = spec.partition("?")
    name = name or Path(path).name or spec
    return path if name in DATASETS.names() and path != name and files_folder(spec) is not None else name


def show_chooser(key: str) -> None:
    """Let users of this computer fill the field with this key: with a folder used before, or one that they look for."""
    if not library.settings.is_local:
        return
    with st.popover("Choose a folder", icon=":material/folder_open:"):
        for number, folder in enumerate(_recent()):
            name = as_markdown(shorten(folder, _LONGEST))
            st.button(
                name,
                key=f"{key}-recent-{number}",
                type="tertiary",
                icon=":material/history:",
                on_click=_fill,
                args=(key, folder),
            )
        place = _place(key)
        st.caption(as_markdown(str(place)))
        found = list_folders(place)
        st.selectbox(
            "Open a folder in it",
            found,
            index=None,
            placeholder="Choose a folder" if found else "There are no folders in it",
            key=f"{key}-inside-{place}",
            on_change=_enter,
            args=(key, place),
            disabled=not found,
        )
        with st.container(horizontal=True):
            st.button("Use this folder", key=f"{key}-use", type="primary", on_click=_fill, args=(key, str(place)))
            st.button(
                "Up",
                key=f"{key}-up",
                icon=":material/arrow_upward:",
                on_click=_go,
                args=(key, place.parent),
                disabled=place.parent == place,
            )


def list_folders(place: Path) -> list[str]:
    """Names of the folders in a folder, in natural order, without hidden ones; none where it cannot be read.

    Those that are not UTF-8 are left out: no browser can show or enter them.
    """
    with suppress(OSError):
        named = [one for one in place.iterdir() if not is_junk(one.name) and is_utf8(one.name)]
        names = [one.name for one in named if _is_folder(one)]
        return sorted(names, key=natural_key)[:_MAX_FOLDERS]
    return []


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def _exists(text: str) -> bool:
    with suppress(OSError, ValueError):
        return expand_home(text).exists()
    return False


def _place(key: str) -> Path:
    """The folder that the chooser shows: the one that was opened in it, while it exists, else the home folder."""
    place: Path | None = st.session_state.get(f"{key}-place")
    if place is not None and _is_folder(place):
        return place
    home = expand_home("~")
    return home if _is_folder(home) else Path.cwd()


def _go(key: str, place: Path) -> None:
    st.session_state[f"{key}-place"] = place


def _enter(key: str, place: Path) -> None:
    name = st.session_state.get(f"{key}-inside-{place}")
    if name:
        _go(key, place / name)


def _fill(key: str, folder: str) -> None:
    st.session_state[key] = folder


def _recent() -> list[str]:
    """Folders that were trained on or checked, the last used ones first."""
    from thirtytwo.app.views import reviews  # which shows a page that has this field

    with suppress(ThirtytwoError):
        used = [(job.started, job.source) for job in JobStore(jobs_dir()).all()]
        used += [(one.changed, one.place) for one in reviews.store().all()]
        return _folders(name for _, name in sorted(used, reverse=True))
    return []


def _folders(names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        path = expand_home(name.partition("?")[0])
        if _is_folder(path):
            found.setdefault(str(path.absolute()))
    return list(found)[:_MAX_RECENT]
