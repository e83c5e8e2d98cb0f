"""Projects: the class names, images and taught model of the page Add classes, in folders of this computer's user."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from re import fullmatch
from secrets import token_hex
from typing import Any

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from thirtytwo.app.photos import InputImage, inspect, unseen
from thirtytwo.errors import InputError, RunError
from thirtytwo.fewshot import LEAST, LinearProbe
from thirtytwo.io import lock_directory, write_bytes, write_json
from thirtytwo.machine import cpu_count
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir
from thirtytwo.text import counted

VARIABLE = "THIRTYTWO_PROJECTS"
"""Environment variable that names the folder of projects."""
_FILE, _PHOTOS, _THUMBNAILS = "project.json", "photos", "thumbnails"
_IDENTITY = r"[0-9a-f]{16}"
_LOCK_SECONDS = 20.0
_THREADS = 4
_KEPT_SECONDS = 86_400.0
"""Time for which the files of removed images are kept, so that removing can be undone."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True)


class Photo(_Stored):
    """An image of a class; `problem` is why it cannot be read."""

    name: str
    digest: str
    suffix: str
    problem: str = ""


class PhotoClass(_Stored):
    """A class of a project; `number` identifies it when its name changes."""

    number: int
    name: str = ""
    photos: tuple[Photo, ...] = ()

    @property
    def readable(self) -> tuple[Photo, ...]:
        """The images that can be read."""
        return tuple(photo for photo in self.photos if not photo.problem)


class TaughtClass(_Stored):
    """A class that a model was taught: its number and name in the project, and the content hashes of its images."""

    number: int
    name: str
    digests: tuple[str, ...]


class Trial(_Stored):
    """A new image that a taught model is tried on, and what the user said of its class.

    `actual` is the number of its class, as far as known; `excluded` are classes that it does not belong to.
    """

    photo: Photo
    actual: int | None = None
    excluded: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.photo.name

    @property
    def digest(self) -> str:
        """Content hash of the image."""
        return self.photo.digest


class Result(_Stored):
    """A taught model: what it was taught, and what to expect of it.

    `labels` and `probabilities` (N rows of C) are the predictions of cross-validation, of the images `digests`; all are
    empty where the accuracy cannot be estimated. `alike` holds positions of near-duplicates in `digests`, in groups;
    `taught` is the time in seconds since 1970.
    """

    base: str
    classes: tuple[TaughtClass, ...]
    expectation: str
    accuracy: dict[str, Any] | None
    folds: int
    count: int
    notes: tuple[str, ...]
    digests: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    alike: tuple[tuple[int, ...], ...] = ()
    taught: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(one.name for one in self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images that each class was taught with, by its name."""
        held_out = self.held_out
        if held_out is None:
            return {one.name: len(one.digests) for one in self.classes}
        sizes = np.bincount(held_out.truth, minlength=len(self.classes)).tolist()
        return dict(zip(self.names, sizes, strict=True))

    @property
    def held_out(self) -> Predictions | None:
        """The predictions of cross-validation, if there are any."""
        if not self.labels:
            return None
        truth = np.array(self.labels, dtype=np.int64)
        return Predictions(self.names, truth, np.array(self.probabilities, np.float32), np.arange(len(truth)))


class Project(_Stored):
    """Classes with images, and the model that was taught with them; the methods return changed copies."""

    identity: str = ""
    """Name of its folder; empty before it is stored."""
    base: str | None = None
    """Name of the model to start from; None: chosen by the size of the images."""
    classes: tuple[PhotoClass, ...] = (PhotoClass(number=1), PhotoClass(number=2))
    result: Result | None = None
    trials: tuple[Trial, ...] = ()
    """New images that the taught model is tried on, the newest first."""
    created: float = 0.0
    changed: float = 0.0
    """Times of its creation and last change, in seconds since 1970."""

    @property
    def title(self) -> str:
        """Its classes, as a title; empty without a name."""
        return " or ".join(one.name for one in self.classes if one.name)

    def find(self, number: int) -> PhotoClass:
        """The class with this number; an empty one if another session removed it."""
        return next((one for one in self.classes if one.number == number), PhotoClass(number=number))

    def with_class(self) -> Project:
        """With one more class."""
        number = max((one.number for one in self.classes), default=0) + 1
        return self.model_copy(update={"classes": (*self.classes, PhotoClass(number=number))})

    def restore_class(self, position: int, found: PhotoClass) -> Project:
        """With a class that was removed."""
        if any(one.number == found.number for one in self.classes):
            return self
        classes = [*self.classes[:position], found, *self.classes[position:]]
        return self.model_copy(update={"classes": tuple(classes)})

    def without_class(self, number: int) -> Project:
        """Without a class."""
        return self.model_copy(update={"classes": tuple(one for one in self.classes if one.number != number)})

    def rename(self, number: int, name: str) -> Project:
        """With another name of a class; spaces around it are dropped."""
        return self._with(number, name=" ".join(name.split()))

    def with_photos(self, number: int, photos: Sequence[Photo]) -> Project:
        """With images in a class that are not in it yet; repeated file names get a number."""
        present = self.find(number).photos
        added = unseen(present, photos, lambda photo, name: photo.model_copy(update={"name": name}))
        return self._with(number, photos=(*present, *added))

    def without_photos(self, number: int, digests: Iterable[str]) -> Project:
        """Without some images of a class."""
        gone = set(digests)
        return self._with(number, photos=tuple(one for one in self.find(number).photos if one.digest not in gone))

    def move_photo(self, digest: str, source: int, target: int) -> Project:
        """With an image of a class in another class; unchanged if it is not there, or there is no such other class."""
        moved = [one for one in self.find(source).photos if one.digest == digest]
        if not moved or target not in _numbers(self):
            return self
        return self.without_photos(source, [digest]).with_photos(target, moved)

    def with_named_class(self, name: str) -> Project:
        """With a class of this name: the one that has it already, else the first unused one, else a new one."""
        if self.number_of(name) is not None:
            return self
        unused = next((one.number for one in self.classes if not one.name and not one.photos), None)
        if unused is not None:
            return self.rename(unused, name)
        added = self.with_class()
        return added.rename(added.classes[-1].number, name)

    def number_of(self, name: str) -> int | None:
        """Number of the class that has this name, in whatever letters."""
        return next((one.number for one in self.classes if one.name and _same(one.name) == _same(name)), None)

    def with_trials(self, photos: Sequence[Photo]) -> Project:
        """With new images to try the model on; those that are there already are left out."""
        new = [Trial(photo=photo) for photo in photos]
        return self._with_trials([*unseen(self.trials, new, _renamed_trial), *self.trials])

    def restore_trials(self, trials: Sequence[Trial]) -> Project:
        """With new images that were removed."""
        known = {one.digest for one in self.trials}
        return self._with_trials([*(one for one in trials if one.digest not in known), *self.trials])

    def without_trials(self, digests: Iterable[str]) -> Project:
        """Without some of the new images."""
        gone = set(digests)
        return self._with_trials([one for one in self.trials if one.digest not in gone])

    def mark(self, digest: str, *, actual: int | None = None, excluded: tuple[int, ...] = ()) -> Project:
        """With what the user said of the class of a new image."""
        update = {"actual": actual, "excluded": excluded}
        return self._with_trials(
            [one.model_copy(update=update) if one.digest == digest else one for one in self.trials]
        )

    def file_trial(self, digest: str, number: int | None) -> Project:
        """With a new image in a class and in no other; with None in none. It stays among the new images."""
        trial = next((one for one in self.trials if one.digest == digest), None)
        if trial is None or not (number is None or number in _numbers(self)):
            return self
        without = self
        for one in self.classes:
            without = without.without_photos(one.number, [digest])
        return without if number is None else without.with_photos(number, [trial.photo]).mark(digest, actual=number)

    def _with_trials(self, trials: Sequence[Trial]) -> Project:
        return self.model_copy(update={"trials": tuple(trials)})

    def with_base(self, base: str | None) -> Project:
        """With another model to start from."""
        return self.model_copy(update={"base": base})

    def with_result(self, result: Result) -> Project:
        """With a taught model."""
        return self.model_copy(update={"result": result})

    def _with(self, number: int, **changes: object) -> Project:
        classes = [one.model_copy(update=changes) if one.number == number else one for one in self.classes]
        return self.model_copy(update={"classes": tuple(classes)})


def repeated_names(project: Project) -> list[str]:
    """Names of classes that differ from an earlier one at most by case, spaces or the form of their characters."""
    seen: set[str] = set()
    repeated = []
    for one in project.classes:
        name = _same(one.name)
        if name and name in seen:
            repeated.append(one.name)
        seen.add(name)
    return repeated


def _same(name: str) -> str:
    """The name in a form that is the same for names that people take for the same."""
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()


def _renamed_trial(trial: Trial, name: str) -> Trial:
    return trial.model_copy(update={"photo": trial.photo.model_copy(update={"name": name})})


def missing_input(project: Project) -> list[str]:
    """The steps left before a model can be taught, as phrases."""
    steps = [f"name class {position}" for position, one in enumerate(project.classes, start=1) if not one.name]
    names = [one.name for one in project.classes]
    steps += [
        f"use the name {name!r} for one class only"
        if names.count(name) > 1
        else f"use another name than {name!r}, which a class has in other letters"
        for name in dict.fromkeys(repeated_names(project))
    ]
    steps += [
        f"add images of {one.name or f'class {position}'}"
        for position, one in enumerate(project.classes, start=1)
        if len(one.readable) < LEAST
    ]
    return steps


def changes_since(project: Project, base: str) -> list[str]:
    """What changed since the model was taught, as phrases; empty if the result is that of the current project."""
    if project.result is None:
        return []
    taught = {one.number: one for one in project.result.classes}
    found = [f"{one.name!r} was removed" for one in taught.values() if one.number not in _numbers(project)]
    for one in project.classes:
        before = taught.get(one.number)
        if before is None:
            found.append(f"{one.name!r} is new" if one.name else "a class is new")
            continue
        if before.name != one.name:
            found.append(f"{before.name!r} is now named {one.name!r}")
        now, then = {photo.digest for photo in one.readable}, set(before.digests)
        found += [
            f"{counted(len(part), 'image')} of {one.name!r} {'was' if len(part) == 1 else 'were'} {what}"
            for part, what in ((now - then, "added"), (then - now, "removed"))
            if part
        ]
    if project.result.base != base:
        found.append(f"it would start from {base!r} instead of {project.result.base!r}")
    return found


def _numbers(project: Project) -> set[int]:
    return {one.number for one in project.classes}


def projects_dir() -> Path:
    """The folder of projects: `THIRTYTWO_PROJECTS`, else one in the platform's folder of user data."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    return platformdirs.user_data_path("thirtytwo", appauthor=False) / "projects"


@dataclass(frozen=True)
class ProjectStore:
    """The projects in a folder. Changes are atomic; those of several sessions are applied one after another.

    Attributes:
        folder: one folder for each project.
        kept: false if the folder is temporary, because the user's data folder cannot be written.
    """

    folder: Path
    kept: bool = True

    @classmethod
    def open(cls, folder: Path) -> ProjectStore:
        """The store in `folder`, or in a temporary folder where that cannot be written."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return cls(folder)
        except OSError:
            return cls(Path(tempfile.mkdtemp(prefix="thirtytwo-projects-")), kept=False)

    def create(self) -> Project:
        """Store a new project.

        Raises:
            OutputError: it cannot be written.
        """
        now = time.time()
        project = Project(identity=token_hex(8), created=now, changed=now)
        self._write(project)
        return project

    def read(self, identity: str) -> Project:
        """Read a project.

        Raises:
            InputError: there is no such project, or it is damaged.
        """
        path = self._path(identity) / _FILE
        try:
            state = path.stat()
            return _read(path, state.st_mtime_ns, state.st_size, state.st_ino)
        except (OSError, ValidationError):
            raise InputError(
                "This project cannot be opened: it was deleted, or its file is damaged.",
                f"Projects are in {self.folder}.",
            ) from None

    def all(self) -> list[Project]:
        """All projects that can be read, the last changed one first."""
        found = []
        for path in self.folder.glob(f"*/{_FILE}"):
            with suppress(InputError):
                found.append(self.read(path.parent.name))
        return sorted(found, key=lambda one: -one.changed)

    def change(self, identity: str, change: Callable[[Project], Project]) -> Project:
        """Apply a change to the project as it is now, which another session may have changed; returns the new one.

        Raises:
            InputError: as `read`.
            OutputError: it cannot be written.
        """
        with self._lock(identity):
            before = self.read(identity)
            after = change(before)
            if after != before:
                after = after.model_copy(update={"changed": time.time()})
                self._write(after)
            return after

    def add_photos(self, identity: str, number: int, files: Sequence[tuple[str, bytes]]) -> Project:
        """Store images, given by name and content, in a class; those that cannot be read are marked.

        Raises:
            InputError: as `read`.
            OutputError: they cannot be written.
        """
        return self.add_files(identity, files, lambda project, photos: project.with_photos(number, photos))

    def add_files(
        self,
        identity: str,
        files: Sequence[tuple[str, bytes]],
        change: Callable[[Project, list[Photo]], Project],
    ) -> Project:
        """Store images, given by name and content, and let `change` add them to the project; raises as `add_photos`."""
        with ThreadPoolExecutor(cpu_count(_THREADS)) as pool:
            found = list(pool.map(lambda file: inspect(*file), files))
        photos = []
        with self._lock(identity):
            folder = self._path(identity)
            for (name, data), one in zip(files, found, strict=True):
                photo = Photo(name=name, digest=one.digest, suffix=Path(name).suffix.lower()[:8], problem=one.problem)
                write_bytes(_photo_path(folder, photo), data)
                if one.thumbnail:
                    write_bytes(_thumbnail_path(folder, photo), one.thumbnail)
                photos.append(photo)
            after = change(self.read(identity), photos).model_copy(update={"changed": time.time()})
            self._write(after)
            return after

    def image(self, identity: str, photo: Photo) -> InputImage:
        """An image of a project, with its thumbnail."""
        folder = self._path(identity)
        thumbnail = _thumbnail_path(folder, photo)
        preview = b"" if photo.problem or not thumbnail.is_file() else thumbnail.read_bytes()
        return InputImage(photo.name, _photo_path(folder, photo), photo.digest, preview, photo.problem)

    def teach(self, identity: str, result: Result, probe: LinearProbe) -> Project:
        """Store a taught model and its result.

        Raises:
            InputError: as `read`.
            OutputError, ModelFileError: the model file cannot be written.
        """
        with self._lock(identity):
            probe.write(self.model(identity))
            after = self.read(identity).with_result(result)
            self._write(after.model_copy(update={"changed": time.time()}))
            return after

    def forget_model(self, identity: str) -> Project:
        """Delete the taught model of a project and its result; names and images stay.

        Raises:
            InputError: as `read`.
            OutputError: it cannot be written.
        """
        with self._lock(identity):
            after = self.read(identity).model_copy(update={"result": None, "changed": time.time()})
            self._write(after)
            self.model(identity).unlink(missing_ok=True)
            return after

    def model(self, identity: str) -> Path:
        """The model file of a project; its folder can be used as a run directory."""
        return RunDir(self._path(identity)).onnx

    def delete(self, identity: str) -> None:
        """Delete a project with its images and its model."""
        with suppress(InputError, RunError):
            shutil.rmtree(self._path(identity), ignore_errors=True)

    def delete_unused(self, identity: str) -> None:
        """Delete the files of images that were removed more than a day ago."""
        with suppress(InputError, OSError):
            project = self.read(identity)
            used = {photo.digest for one in project.classes for photo in one.photos}
            used |= {trial.digest for trial in project.trials}
            for part in (_PHOTOS, _THUMBNAILS):
                for path in (self._path(identity) / part).glob("*"):
                    if path.stem not in used and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                        path.unlink()

    def _path(self, identity: str) -> Path:
        if not fullmatch(_IDENTITY, identity):  # it may come from the address of a page
            raise InputError("There is no such project.", f"Projects are in {self.folder}.")
        return self.folder / identity

    def _lock(self, identity: str) -> Any:
        folder = self._path(identity)
        self.read(identity)
        return lock_directory(folder, wait=_LOCK_SECONDS)

    def _write(self, project: Project) -> None:
        write_json(self._path(project.identity) / _FILE, project.model_dump(mode="json"))


@lru_cache(maxsize=200)
def _read(path: Path, *state: int) -> Project:
    return Project.model_validate_json(path.read_bytes())


def _photo_path(folder: Path, photo: Photo) -> Path:
    return folder / _PHOTOS / f"{photo.digest}{photo.suffix}"


def _thumbnail_path(folder: Path, photo: Photo) -> Path:
    return folder / _THUMBNAILS / f"{photo.digest}.jpg"


def result_of(
    probe: LinearProbe,
    project: Project,
    base: str,
    digests: Mapping[bytes, str],
    alike: Sequence[Sequence[int]] = (),
) -> Result:
    """The result of teaching the readable images of a project.

    Args:
        probe: the taught model.
        project: the project when teaching began.
        base: name of the model that it started from.
        digests: content hash of the file of each image by the decoded pixels' bytes.
        alike: positions of near-duplicates in `probe.images`, in groups.
    """
    held_out = probe.held_out
    return Result(
        base=base,
        classes=tuple(
            TaughtClass(number=one.number, name=one.name, digests=tuple(photo.digest for photo in one.readable))
            for one in project.classes
        ),
        expectation=probe.expectation,
        accuracy=probe.accuracy,
        folds=probe.folds,
        count=len(probe.labels),
        notes=tuple(probe.notes),
        digests=tuple(digests[image.tobytes()] for image in probe.images),
        labels=() if held_out is None else tuple(held_out.truth.tolist()),
        probabilities=()
        if held_out is None
        else tuple(tuple(round(value, 6) for value in row) for row in held_out.probabilities.tolist()),
        alike=tuple(tuple(group) for group in alike),
        taught=time.time(),
    )
