"""Projects on disk: folders of this computer's user, which several sessions change one after another."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from re import fullmatch
from secrets import token_hex
from typing import Any

import platformdirs
from pydantic import ValidationError

from thirtytwo.app.photos import InputImage, inspect
from thirtytwo.app.project import Photo, Project
from thirtytwo.app.taught_result import Result
from thirtytwo.errors import InputError, RunError
from thirtytwo.fewshot import LinearProbe
from thirtytwo.io import expand_home, lock_directory, write_bytes, write_json
from thirtytwo.machine import cpu_count
from thirtytwo.rundir import RunDir

VARIABLE = "THIRTYTWO_PROJECTS"
"""Environment variable that names the folder of projects."""
_FILE, _PHOTOS, _THUMBNAILS = "project.json", "photos", "thumbnails"
_IDENTITY = r"[0-9a-f]{16}"
_LOCK_SECONDS = 20.0
_THREADS = 4
_KEPT_SECONDS = 86_400.0
"""Time for which the files of removed images are kept, so that removing can be undone."""


def projects_dir() -> Path:
    """The folder of projects: `THIRTYTWO_PROJECTS`, else one in the platform's folder of user data."""
    if chosen := os.environ.get(VARIABLE):
        return expand_home(chosen)
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
                self._note_removal(identity, _digests(before) - _digests(after))
            return after

    def add_photos(self, identity: str, number: int, files: Sequence[tuple[str, bytes]]) -> Project:
        """Store images, given by name and content, in a class; those that cannot be read are marked.

        Raises:
            InputError: as `read`; or there is no such class.
            OutputError: they cannot be written.
        """

        def add(project: Project, photos: list[Photo]) -> Project:
            if number not in project.numbers:
                raise InputError("This class was removed in another tab.", "Add its images to another class.")
            return project.with_photos(number, photos)

        return self.add_files(identity, files, add)

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
            folder, before = self._path(identity), self.read(identity)  # it may have been deleted meanwhile
            for (name, data), one in zip(files, found, strict=True):
                photo = Photo(name=name, digest=one.digest, suffix=Path(name).suffix.lower()[:8], problem=one.problem)
                write_bytes(_photo_path(folder, photo), data)
                if one.thumbnail:
                    write_bytes(_thumbnail_path(folder, photo), one.thumbnail)
                photos.append(photo)
            after = change(before, photos).model_copy(update={"changed": time.time()})
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
        """Delete a project with its images and its model; a change that another session is making is waited for."""
        with suppress(InputError, RunError):
            folder = self._path(identity)
            with suppress(InputError, RunError, OSError), self._lock(identity):
                (folder / _FILE).unlink(missing_ok=True)  # so that changes which wait now find no project
            shutil.rmtree(folder, ignore_errors=True)

    def delete_unused(self, identity: str) -> None:
        """Delete the files of images that were removed more than a day ago."""
        with suppress(InputError, OSError):
            project = self.read(identity)
            used = _digests(project)
            for part in (_PHOTOS, _THUMBNAILS):
                for path in (self._path(identity) / part).glob("*"):
                    if path.stem not in used and time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                        path.unlink()

    def _note_removal(self, identity: str, digests: Set[str]) -> None:
        """Note that images were removed now, by the time of their files, which `delete_unused` goes by."""
        for digest in digests:
            for part in (_PHOTOS, _THUMBNAILS):
                for path in (self._path(identity) / part).glob(f"{digest}.*"):
                    with suppress(OSError):
                        os.utime(path)

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


def _digests(project: Project) -> set[str]:
    """Content hashes of all images of a project."""
    classes = {photo.digest for one in project.classes for photo in one.photos}
    return classes | {trial.digest for trial in project.trials}


def _photo_path(folder: Path, photo: Photo) -> Path:
    return folder / _PHOTOS / f"{photo.digest}{photo.suffix}"


def _thumbnail_path(folder: Path, photo: Photo) -> Path:
    return folder / _THUMBNAILS / f"{photo.digest}.jpg"
