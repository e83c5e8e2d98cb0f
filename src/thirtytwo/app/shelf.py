"""The models at hand, opened once for all sessions, and those that one session brought along."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import streamlit as st

from thirtytwo.app.settings import Settings
from thirtytwo.errors import ThirtytwoError
from thirtytwo.predict.modelfile import ModelInfo, read_info
from thirtytwo.predict.predictor import DEFAULT_BUNDLED, RUNS, Classifier, bundled_models, find_model

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

    @property
    def stamp(self) -> tuple[str, int, int]:
        """Changes when the file does."""
        found = self.path.stat()
        return (str(self.path), found.st_mtime_ns, found.st_size)


def entries() -> list[Entry]:
    """Every model at hand: asked for, brought along, bundled, then finished runs under ./runs, newest first."""
    found: list[tuple[str, Path, str]] = []
    for text in settings.models:
        path = find_model(text)
        found.append((name_of(path), path, "asked for with --model"))
    found += [(one.name, one.path, one.origin) for one in own().values()]
    bundled = sorted(bundled_models().items(), key=lambda item: (item[0] != DEFAULT_BUNDLED, item[0]))
    found += [(name, path, "comes with thirtytwo") for name, path in bundled]
    runs = [path for path in RUNS.glob("*/model.onnx") if path.is_file()]
    runs.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found += [(name_of(path), path, f"run {path.parent}") for path in runs]
    return _named_apart(found)


def name_of(path: Path) -> str:
    """A model file's name: that of its run for a `model.onnx`, else its own."""
    return path.resolve().parent.name if path.name == "model.onnx" else path.stem


def own() -> dict[str, Entry]:
    """What this session uploaded, taught or pointed at, newest first."""
    kept: dict[str, Entry] = st.session_state.setdefault(_OWN, {})
    return kept


def keep(name: str, path: Path, origin: str) -> Entry:
    """Put a model that was found good on this session's shelf, and choose it."""
    name = name.strip() or "model"
    others = {one.name for one in entries() if one.path != path}
    free, number = name, 2
    while free in others:
        free, number = f"{name} ({number})", number + 1
    entry = Entry(free, path, origin)
    kept = {str(path): entry} | {key: one for key, one in own().items() if key != str(path)}
    st.session_state[_OWN] = kept
    choose(entry)
    return entry


def keep_upload(name: str, data: bytes) -> Entry:
    """Check an uploaded model file and put it on the shelf.

    Raises:
        ModelFileError: damaged, or not one of ours; names the upload.
    """
    path = place(data)
    if not path.exists():
        path.write_bytes(data)
    try:
        read_info(path)
    except ThirtytwoError as error:
        path.unlink(missing_ok=True)
        raise type(error)(error.message.replace(str(path), name), error.fix) from None
    return keep(Path(name).stem, path, "uploaded")


def place(data: bytes) -> Path:
    """Where a model of this content lies while the app runs."""
    return workplace() / f"{blake2b(data, digest_size=12).hexdigest()}.onnx"


def workplace() -> Path:
    """A directory for this process's uploads; gone when it ends."""
    return Path(_workplace().name)


def choose(entry: Entry) -> None:
    """Make a model the one that pages begin with."""
    st.session_state[_CHOSEN] = str(entry.path)


def chosen(found: list[Entry]) -> int:
    """Position of the model that pages begin with."""
    wanted = st.session_state.get(_CHOSEN)
    return next((number for number, one in enumerate(found) if str(one.path) == wanted), 0)


def opened(entry: Entry) -> Classifier:
    """The model, ready to classify; raises as `Classifier` does."""
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


@st.cache_resource(show_spinner=False)
def _workplace() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="thirtytwo-app-")


def _named_apart(found: list[tuple[str, Path, str]]) -> list[Entry]:
    """Each file once, the first time it comes; a name that comes again gets its directory with it."""
    seen: set[Path] = set()
    entries: list[Entry] = []
    for name, path, origin in found:
        real = path.resolve()
        if real in seen:
            continue
        seen.add(real)
        if any(one.name == name for one in entries):
            name = f"{name} ({path})"
        entries.append(Entry(name, path, origin))
    return entries
