"""The models at hand, opened once for all sessions, and those that one session brought along."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import streamlit as st

from thirtytwo.app.settings import Settings
from thirtytwo.app.uploads import Held, Store
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.classifier import DEFAULT_BUNDLED, RUNS, Classifier, bundled_models, find_model
from thirtytwo.inference.model_file import ModelInfo, read_info

settings = Settings()
"""Set before the first page is shown."""

_OWN = "own models"
_CHOSEN = "chosen model"
_OPEN = 4
"""Models kept open; the one not asked for longest is closed first."""


@dataclass(frozen=True)
class Entry:
    """A model file under a name that no other has; `origin` says where it comes from."""

    name: str
    path: Path
    origin: str
    held: Held | None = field(default=None, compare=False, repr=False)
    """Keeps an uploaded or taught file there while the session has this entry."""

    @property
    def stamp(self) -> tuple[str, int, int]:
        """Changes when the file does."""
        found = self.path.stat()
        return (str(self.path), found.st_mtime_ns, found.st_size)


def entries() -> list[Entry]:
    """Every model at hand: asked for, brought along, bundled, then finished runs under ./runs, newest first."""
    found: list[Entry] = []
    for text in settings.models:
        path = find_model(text)
        found.append(Entry(name_of(path), path, "asked for with --model"))
    found += own().values()
    bundled = sorted(bundled_models().items(), key=lambda item: (item[0] != DEFAULT_BUNDLED, item[0]))
    found += [Entry(name, path, "comes with thirtytwo") for name, path in bundled]
    runs = [path for path in RUNS.glob("*/model.onnx") if path.is_file()]
    runs.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found += [Entry(name_of(path), path, f"run {path.parent}") for path in runs]
    return _named_apart(found)


def name_of(path: Path) -> str:
    """A model file's name: that of its run for a `model.onnx`, else its own."""
    return path.resolve().parent.name if path.name == "model.onnx" else path.stem


def own() -> dict[str, Entry]:
    """What this session uploaded, taught or pointed at, newest first, as far as it is still there."""
    kept: dict[str, Entry] = st.session_state.setdefault(_OWN, {})
    gone = [key for key, entry in kept.items() if entry.held is not None and not entry.path.is_file()]
    for key in gone:
        del kept[key]
    return kept


def keep(name: str, path: Path, origin: str, held: Held | None = None) -> Entry:
    """Put a model that was found good on this session's shelf, and choose it; `held` is its upload."""
    name = name.strip() or "model"
    others = {one.name for one in entries() if one.path != path}
    free, number = name, 2
    while free in others:
        free, number = f"{name} ({number})", number + 1
    entry = Entry(free, path, origin, held)
    kept = {str(path): entry} | {key: one for key, one in own().items() if key != str(path)}
    st.session_state[_OWN] = kept
    choose(entry)
    return entry


def keep_upload(name: str, data: bytes) -> Entry:
    """Check an uploaded model file and put it on the shelf.

    Raises:
        ModelFileError: damaged, or not one of ours; names the upload.
    """
    held = uploads().add(data)
    try:
        read_info(held.path)
    except ThirtytwoError as error:
        raise type(error)(error.message.replace(str(held.path), name), error.fix) from None
    return keep(Path(name).stem, held.path, "uploaded", held)


def keep_taught(name: str, data: bytes) -> Entry:
    """Put a model that was taught here on the shelf."""
    held = uploads().add(data)
    return keep(name, held.path, "taught here", held)


@st.cache_resource(show_spinner=False)
def uploads() -> Store:
    """The files of all sessions; gone when the process ends."""
    return Store()


def choose(entry: Entry) -> None:
    """Make a model the one that pages begin with."""
    st.session_state[_CHOSEN] = str(entry.path)


def chosen(found: list[Entry]) -> int:
    """Position of the model that pages begin with."""
    wanted = st.session_state.get(_CHOSEN)
    return next((number for number, one in enumerate(found) if str(one.path) == wanted), 0)


def opened(entry: Entry) -> Classifier:
    """The model, ready to classify; raises as `Classifier` does."""
    uploads().touch(entry.path)
    return _opened(entry.stamp)


def info_of(entry: Entry) -> ModelInfo:
    """What the model file says about itself; raises as `read_info` does."""
    return _info(entry.stamp)


@st.cache_resource(show_spinner="Opening the model …", max_entries=_OPEN)
def _opened(stamp: tuple[str, int, int]) -> Classifier:
    return Classifier(Path(stamp[0]))


@st.cache_resource(show_spinner=False, max_entries=200)
def _info(stamp: tuple[str, int, int]) -> ModelInfo:
    return read_info(Path(stamp[0]))


def _named_apart(found: list[Entry]) -> list[Entry]:
    """Each file once, the first time it comes; a name that comes again gets its directory with it."""
    seen: set[Path] = set()
    entries: list[Entry] = []
    for entry in found:
        real = entry.path.resolve()
        if real in seen:
            continue
        seen.add(real)
        if any(one.name == entry.name for one in entries):
            entry = replace(entry, name=f"{entry.name} ({entry.path})")
        entries.append(entry)
    return entries
