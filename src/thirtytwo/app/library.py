"""Model library: available models, loaded once for all sessions, and models added by one session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import streamlit as st

from thirtytwo.app.file_store import UploadHandle, UploadStore
from thirtytwo.app.in_use import forget, remember, remembered
from thirtytwo.app.names import given_names
from thirtytwo.app.project import Project
from thirtytwo.app.project_store import ProjectStore, projects_dir
from thirtytwo.app.settings import AppSettings
from thirtytwo.errors import ModelFileError, ThirtytwoError
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import bundled_models, find_model, finished_runs, model_name
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import free_name
from thirtytwo.text import counted, interval, is_utf8, percent, shorten

settings = AppSettings()
"""Settings of the app; set by `launch.run`."""

_SESSION_MODELS = "own models"
_SELECTED, _SELECTED_NAME, _GONE = "chosen model", "name of the chosen model", "chosen model that is gone"
QUERY = "use"
"""Parameter of the page's address that names the chosen model, for users of other computers."""
OPEN_PROJECT = "open project"
"""Key of the identity of the project that a session has open."""
_NAME = 60
"""Length in characters from which the name of a taught model is shortened."""
FROM_OPTION, BUNDLED, TAUGHT = "named when the app was started", "built in", "made with Add classes"
"""Where a model comes from."""
PREFERRED = "imagenet"
"""The bundled model in use at first: the one that names most of what people photograph."""
RUN = "run"
"""First word of the origin of a run below ./runs."""
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
        """Path, modification time and size; changes when the file changes.

        Raises:
            ModelFileError: the file is gone, or cannot be read.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            problem = f"The file of the model {self.name} cannot be read: {error.strerror}."
            raise ModelFileError(problem, "Choose another model.") from None
        return (str(self.path), status.st_mtime_ns, status.st_size)


def entries() -> list[Entry]:
    """All available models: from --model, added in this session, taught in the app, bundled, then runs under ./runs.

    One of --model that was moved or deleted since the start is not listed, nor one whose path is not UTF-8.
    """
    found: list[Entry] = []
    for text in settings.models:
        with suppress(ThirtytwoError):
            path = find_model(text)
            found.append(Entry(model_name(path), path, FROM_OPTION))
    found += session_models().values()
    found += taught_models()
    found += [Entry(name, path, BUNDLED) for name, path in bundled_models().items()]
    found += [Entry(model_name(path), path, f"{RUN} {path.parent}") for path in finished_runs()]
    names = given_names(projects().folder)
    return _with_unique_names(
        [
            one if one.origin == TAUGHT else replace(one, name=names.get(str(one.path.resolve()), one.name))
            for one in found
            if is_utf8(one.path)
        ]
    )


def session_models() -> dict[str, Entry]:
    """Models uploaded, trained or added by path in this session that still exist, newest first."""
    kept: dict[str, Entry] = st.session_state.setdefault(_SESSION_MODELS, {})
    gone = [key for key, entry in kept.items() if not entry.path.is_file()]
    for key in gone:
        del kept[key]
    return kept


def taught_models() -> list[Entry]:
    """Models taught in the app: of this computer's projects; for users of other computers only of their open one."""
    store = projects()
    found = [one for one in store.all() if settings.is_local or one.identity == st.session_state.get(OPEN_PROJECT)]
    seen: Counter[str] = Counter()
    models = []
    for project in sorted(found, key=lambda one: one.created):  # so that numbers stay
        path = store.model(project.identity)
        if project.result is not None and path.is_file():
            name = shorten(given_name(project) or " or ".join(project.result.names), _NAME)
            seen[name] += 1
            models.append(Entry(name if seen[name] == 1 else f"{name} ({seen[name]})", path, TAUGHT))
    return models[::-1]


def given_name(project: Project) -> str:
    """The name that the user gave to a project and its model; empty without one.

    Earlier versions kept it in the file of the names of models.
    """
    store = projects()
    return project.name or given_names(store.folder).get(str(store.model(project.identity).resolve()), "")


def project_name(project: Project) -> str:
    """The name of a project: the one that the user gave it, else its classes; shortened, empty without names."""
    return shorten(given_name(project) or project.title, _NAME)


def taught_entry(project: Project) -> Entry | None:
    """The model that was taught with a project; None if there is none."""
    if project.result is None:
        return None
    path = projects().model(project.identity).resolve()
    return next((one for one in entries() if one.path.resolve() == path), None)


def expectation_of(entry: Entry) -> str:
    """The accuracy to expect of a model of a few images, as a phrase; empty for other models."""
    if entry.origin != TAUGHT:
        few = info_of(entry).few_shot
        if few is None or few.accuracy is None or few.ci95 is None:
            return ""
        return _expectation(few.accuracy, few.ci95, sum(few.counts))
    with suppress(ThirtytwoError):  # deleted by another session
        result = projects().read(entry.path.parent.name).result
        if result is None or result.accuracy is None:
            return "" if result is None else result.expectation
        return _expectation(result.accuracy["value"], result.accuracy["ci95"], result.count)
    return ""


def _expectation(accuracy: float, ends: Sequence[float], images: int) -> str:
    return f"{percent(accuracy)}, 95\u00a0% interval {interval(ends)} ({counted(images, 'image')})"


def add_model(name: str, path: Path, origin: str, handle: UploadHandle | None = None) -> Entry:
    """Add a valid model to the session; `handle` keeps its uploaded file on disk."""
    name = name.strip() or "model"
    others = {f"{one.name}.onnx".casefold() for one in entries() if one.path != path}
    entry = Entry(free_name(f"{name}.onnx", others).removesuffix(".onnx"), path, origin, handle)
    kept = {str(path): entry} | {key: one for key, one in session_models().items() if key != str(path)}
    st.session_state[_SESSION_MODELS] = kept
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


def projects() -> ProjectStore:
    """The projects of this computer's user."""
    return _projects(projects_dir())


@st.cache_resource(show_spinner=False)
def _projects(folder: Path) -> ProjectStore:
    return ProjectStore.open(folder)


@st.cache_resource(show_spinner=False)
def uploads() -> UploadStore:
    """The uploaded files of all sessions; deleted when the process ends."""
    return UploadStore()


def select_model(entry: Entry) -> None:
    """Use a model on all pages, also on new ones; only called when the user asks for it."""
    _use(entry)
    st.session_state.pop(_GONE, None)
    if settings.is_local:
        remember(projects().folder, entry.path, entry.name, settings.models)
    else:
        st.session_state[QUERY] = entry.path.parent.name if entry.origin == TAUGHT else entry.name
        keep_choice()


def keep_choice() -> None:
    """Keep the chosen model in the page's address, for users of other computers. Called at the start of a run.

    The one of a project is named by its identity, which opens the project, too.
    """
    if settings.is_local:
        return
    wanted = st.session_state.setdefault(QUERY, st.query_params.get(QUERY, ""))
    if wanted and st.query_params.get(QUERY) != wanted:
        st.query_params[QUERY] = wanted
    if wanted and OPEN_PROJECT not in st.session_state and "project" not in st.query_params:
        with suppress(ThirtytwoError):
            st.session_state[OPEN_PROJECT] = projects().read(wanted).identity


def selected_model(found: Sequence[Entry]) -> Entry:
    """The model in use: the one that the user chose while it exists, else the first one of --model, bundled or found.

    It stays in use when other models are added, when the page is reloaded, and in new pages; on this computer also
    when the app is started again with the same models of --model. `gone_model` says if it no longer exists.
    """
    if _SELECTED not in st.session_state:
        _restore(found)
    wanted = st.session_state.get(_SELECTED)
    chosen = next((one for one in found if str(one.path) == wanted), None)
    if chosen is None:
        if name := st.session_state.get(_SELECTED_NAME):
            st.session_state[_GONE] = name
        chosen = min(found, key=_place)
        _use(chosen)
    return chosen


def gone_model() -> str:
    """Name of the model that was in use and is not available anymore, until the user chooses one; else empty."""
    return str(st.session_state.get(_GONE, ""))


def _use(entry: Entry) -> None:
    st.session_state[_SELECTED], st.session_state[_SELECTED_NAME] = str(entry.path), entry.name


def _restore(found: Sequence[Entry]) -> None:
    """Use the model that the user chose on an earlier page."""
    if not settings.is_local:
        wanted = st.query_params.get(QUERY, "")
        entry = next((one for one in found if wanted in (one.name, one.path.parent.name)), None) if wanted else None
        name = wanted
    else:
        last = remembered(projects().folder)
        if last is None or last.options != tuple(settings.models):  # models named at the start come first
            return
        name, entry = last.name, next((one for one in found if str(one.path.resolve()) == last.path), None)
        if entry is None and not Path(last.path).is_file():
            forget(projects().folder)
    if entry is not None:
        _use(entry)
    elif name:
        st.session_state[_SELECTED_NAME] = name


def _place(entry: Entry) -> tuple[bool, bool, bool]:
    """Where a model stands among those that may be in use at first."""
    return entry.origin != FROM_OPTION, entry.origin != BUNDLED, entry.path.stem != PREFERRED


def warm_up(entry: Entry) -> None:
    """Load a model and run it once, so that the first image does not wait for that."""
    _warm_up(entry.stamp, entry)


@st.cache_resource(show_spinner=False, max_entries=_MAX_LOADED)
def _warm_up(stamp: tuple[str, int, int], _entry: Entry) -> bool:
    classifier = load_classifier(_entry)
    side = classifier.info.input_size
    classifier.classify(np.zeros((1, side, side, 3), dtype=np.uint8), 1)
    return True


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
