"""Model library: available models, loaded once for all sessions, and models added by one session."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from pathlib import Path
from threading import Lock
from time import monotonic
from weakref import WeakValueDictionary, finalize

import streamlit as st

from thirtytwo.app.settings import Settings
from thirtytwo.errors import ThirtytwoError
from thirtytwo.inference.classifier import DEFAULT_BUNDLED, Classifier, bundled_models, find_model, model_name
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import RUNS, write_bytes

MAX_FILES, MAX_BYTES = 32, 2 << 30


class UploadHandle:
    """A stored file that exists while this object is referenced, unless it is evicted to make room."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.path, self.digest, self.size = path, digest, size
        self.used = monotonic()
        finalize(self, path.unlink, missing_ok=True)


class UploadStore:
    """A directory of content-addressed files, shared by all sessions of the process.

    Args:
        max_files: maximum number of files; the least recently used ones are evicted first, even if still referenced.
        max_bytes: maximum total size; a single larger file is kept alone.
    """

    def __init__(self, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="thirtytwo-app-"))
        finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._max_files, self._max_bytes = max_files, max_bytes
        self._handles: WeakValueDictionary[str, UploadHandle] = WeakValueDictionary()
        self._numbers = count()
        self._lock = Lock()

    def add(self, data: bytes) -> UploadHandle:
        """Store a file atomically, or return the existing one with the same content.

        Raises:
            OutputError: the file cannot be written.
        """
        digest = blake2b(data, digest_size=12).hexdigest()
        with self._lock:
            found = self._handles.get(digest)
            if found is None:
                # A unique number: an equal file may be about to be deleted with its last handle.
                found = UploadHandle(self.folder / f"{digest}-{next(self._numbers)}.onnx", digest, len(data))
                write_bytes(found.path, data)
                self._handles[digest] = found
                self._evict(found)
            found.used = monotonic()
        return found

    def touch(self, path: Path) -> None:
        """Mark a file as just used, if it is in the store."""
        with self._lock:
            for one in list(self._handles.values()):
                if one.path == path:
                    one.used = monotonic()

    def _evict(self, new: UploadHandle) -> None:
        others = sorted((one for one in self._handles.values() if one is not new), key=lambda one: one.used)
        size = new.size + sum(one.size for one in others)
        while others and (len(others) >= self._max_files or size > self._max_bytes):
            oldest = others.pop(0)
            size -= oldest.size
            del self._handles[oldest.digest]
            oldest.path.unlink(missing_ok=True)


settings = Settings()
"""Settings of the app; set by `launch.run`."""

_SESSION_MODELS = "own models"
_SELECTED = "chosen model"
_MAX_LOADED = 4
"""Number of models kept loaded; the least recently used one is unloaded first."""


@dataclass(frozen=True)
class Entry:
    """A model file with a unique name; `origin` describes its source."""

    name: str
    path: Path
    origin: str
    handle: UploadHandle | None = field(default=None, compare=False, repr=False)
    """Keeps an uploaded or trained file on disk while the session has this entry."""

    @property
    def stamp(self) -> tuple[str, int, int]:
        """Path, modification time and size; changes when the file changes."""
        status = self.path.stat()
        return (str(self.path), status.st_mtime_ns, status.st_size)


def entries() -> list[Entry]:
    """All available models: from --model, added in this session, bundled, then runs under ./runs, newest first."""
    found: list[Entry] = []
    for text in settings.models:
        path = find_model(text)
        found.append(Entry(model_name(path), path, "from --model"))
    found += session_models().values()
    bundled = sorted(bundled_models().items(), key=lambda item: (item[0] != DEFAULT_BUNDLED, item[0]))
    found += [Entry(name, path, "bundled with thirtytwo") for name, path in bundled]
    runs = [path for path in RUNS.glob("*/model.onnx") if path.is_file()]
    runs.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found += [Entry(model_name(path), path, f"run {path.parent}") for path in runs]
    return _with_unique_names(found)


def session_models() -> dict[str, Entry]:
    """Models uploaded, trained or added by path in this session that still exist, newest first."""
    kept: dict[str, Entry] = st.session_state.setdefault(_SESSION_MODELS, {})
    gone = [key for key, entry in kept.items() if entry.handle is not None and not entry.path.is_file()]
    for key in gone:
        del kept[key]
    return kept


def add_model(name: str, path: Path, origin: str, handle: UploadHandle | None = None) -> Entry:
    """Add a valid model to the session and select it; `handle` keeps its uploaded file on disk."""
    name = name.strip() or "model"
    others = {one.name for one in entries() if one.path != path}
    free, number = name, 2
    while free in others:
        free, number = f"{name} ({number})", number + 1
    entry = Entry(free, path, origin, handle)
    kept = {str(path): entry} | {key: one for key, one in session_models().items() if key != str(path)}
    st.session_state[_SESSION_MODELS] = kept
    select_model(entry)
    return entry


def add_upload(name: str, data: bytes) -> Entry:
    """Check an uploaded model file and add it to the session.

    Raises:
        ModelFileError: the file is damaged or not a thirtytwo model; names the upload.
    """
    handle = uploads().add(data)
    try:
        read_info(handle.path)
    except ThirtytwoError as error:
        raise type(error)(error.message.replace(str(handle.path), name), error.fix) from None
    return add_model(Path(name).stem, handle.path, "uploaded", handle)


def save_probe(name: str, data: bytes) -> Entry:
    """Add a linear probe that was trained in the app to the session."""
    handle = uploads().add(data)
    return add_model(name, handle.path, "trained in the app", handle)


@st.cache_resource(show_spinner=False)
def uploads() -> UploadStore:
    """The uploaded files of all sessions; deleted when the process ends."""
    return UploadStore()


def select_model(entry: Entry) -> None:
    """Make a model the default selection of all pages."""
    st.session_state[_SELECTED] = str(entry.path)


def index_of_selected(found: list[Entry]) -> int:
    """Index of the default selection."""
    wanted = st.session_state.get(_SELECTED)
    return next((number for number, one in enumerate(found) if str(one.path) == wanted), 0)


def load_classifier(entry: Entry) -> Classifier:
    """The classifier of an entry; raises like `Classifier`."""
    uploads().touch(entry.path)
    return _load_classifier(entry.stamp)


def info_of(entry: Entry) -> ModelInfo:
    """The metadata of an entry's model file; raises like `read_info`."""
    return _read_info(entry.stamp)


@st.cache_resource(show_spinner="Loading the model …", max_entries=_MAX_LOADED)
def _load_classifier(stamp: tuple[str, int, int]) -> Classifier:
    return Classifier(Path(stamp[0]))


@st.cache_resource(show_spinner=False, max_entries=200)
def _read_info(stamp: tuple[str, int, int]) -> ModelInfo:
    return read_info(Path(stamp[0]))


def _with_unique_names(found: list[Entry]) -> list[Entry]:
    """Remove duplicate files, and append the path to repeated names."""
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
