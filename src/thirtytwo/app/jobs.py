"""Training in the background: `thirtytwo train` as a process of its own, whose state is read from files.

A job is a folder with `job.json` and `log.txt`. Its process lives on when the page or the app is closed. Whether it
still runs is decided by process id and start time, so that another process that later got the same id is not mistaken
for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from re import fullmatch
from secrets import token_hex
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from thirtytwo.app.decisions import place_of
from thirtytwo.errors import InputError, RunError, ThirtytwoError, require
from thirtytwo.io import create_directory, expand_home, lock_directory, numbered, write_json
from thirtytwo.rundir import RunDir

VARIABLE = "THIRTYTWO_JOBS"
"""Environment variable that names the folder of jobs."""
State = Literal["running", "stopping", "done", "stopped", "failed", "killed"]
_FILE, _LOG = "job.json", "log.txt"
_IDENTITY = r"[0-9a-f]{16}"
_LOCK_SECONDS = 20.0
_SAME_START = 5.0
"""Largest difference in seconds of two start times of one process: the system's clock may have been set."""
_TAIL_BYTES = 64_000
_ERROR, _BUG, _INTERRUPTED = "thirtytwo: ", "This is a bug.", "Interrupted."
"""What the last lines of a log begin with: an error of the user, a traceback, and SIGTERM."""

Start = Callable[[Sequence[str], Path], int]
"""Starts `thirtytwo` with arguments, and its output appended to a log; returns the process id."""


class Job(BaseModel):
    """A training: its command, run directory and process."""

    model_config = ConfigDict(frozen=True)

    identity: str
    """Name of its folder."""
    data: str
    """DATA argument, as it was entered."""
    place: str = ""
    """Absolute path of the data at the first start, with its options, or the name of other data; empty: unknown."""
    options: tuple[str, ...] = ()
    """Options of `thirtytwo train` without --run."""
    data_root: str = ""
    """Folder in which known data sets are looked up; empty: that of the environment."""
    run: str
    """Absolute path of the run directory."""
    started: float = 0.0
    """Time of the last start, in seconds since 1970."""
    pid: int | None = None
    born: float = 0.0
    """Start time of the process as the system reports it, in seconds since 1970."""
    log_start: int = 0
    """Size of the log in bytes before the last start."""
    stop_asked: float = 0.0
    """When the user asked to stop it, in seconds since 1970; 0: not."""

    @property
    def run_dir(self) -> RunDir:
        """Its run directory."""
        return RunDir(Path(self.run))

    @property
    def can_resume(self) -> bool:
        """Whether training has started, so that it can be continued; else it is started again."""
        return self.run_dir.recipe.is_file()

    @property
    def source(self) -> str:
        """The data as it was entered, or its absolute path where that is not the same from the current directory."""
        return self.data if not self.place or place_of(self.data) == self.place else self.place

    @property
    def arguments(self) -> list[str]:
        """Arguments of the command that starts or continues it."""
        root = ["--data-root", self.data_root] if self.data_root else []
        options = ["--resume"] if self.can_resume else list(self.options)
        return ["train", "--run", self.run, *options, *root, "--", self.source]


def jobs_dir() -> Path:
    """The folder of jobs: `THIRTYTWO_JOBS`, else one in the platform's folder of user data."""
    if chosen := os.environ.get(VARIABLE):
        return expand_home(chosen)
    return platformdirs.user_data_path("thirtytwo", appauthor=False) / "jobs"


@dataclass(frozen=True)
class JobStore:
    """The jobs in a folder, of which one runs at a time; `start_process` starts a command."""

    folder: Path
    start_process: Start | None = None

    def start(self, data: str, options: Sequence[str], run: Path, data_root: Path | None = None) -> Job:
        """Start training.

        Args:
            data: DATA argument of `thirtytwo train`.
            options: its options without --run.
            run: the run directory to create; the first of `run`, `run-2`, … that does not exist and is of no other job.
            data_root: folder in which known data sets are looked up first.

        Raises:
            RunError: another job is running, or the folder cannot be written.
            OutputError: the job cannot be written.
        """
        root = "" if data_root is None else str(expand_home(data_root).absolute())
        identity, run = token_hex(8), self._free_run(run.absolute())
        job = Job(
            identity=identity,
            data=data,
            place=place_of(data),
            options=tuple(options),
            data_root=root,
            run=str(run),
        )
        return self._launch(job)

    def resume(self, identity: str) -> Job:
        """Continue a job that ended early; start it again where training had not started.

        Raises:
            InputError: there is no such job.
            RunError, OutputError: as `start`.
        """
        job = self.read(identity)
        if not job.can_resume and Path(job.run).exists():
            job = job.model_copy(update={"run": str(self._free_run(Path(job.run)))})
        return self._launch(job)

    def _free_run(self, run: Path) -> Path:
        """The first of `run`, `run-2`, … that does not exist and is of no job, even of one that failed before it."""
        taken = {job.run for job in self.all()}
        return next(path for path in numbered(run) if str(path) not in taken and not path.exists())

    def stop(self, identity: str, *, at_once: bool = False) -> None:
        """Ask the process of a job to stop, which keeps the last completed epoch; `at_once` ends it without asking."""
        with self._lock(), suppress(InputError):
            job = self.read(identity)
            process = _process(job)
            if process is not None:
                self._write(job.model_copy(update={"stop_asked": time.time()}))
                with suppress(Exception):  # it ended meanwhile
                    process.kill() if at_once else process.terminate()

    def forget(self, identity: str) -> None:
        """Delete the record of a job that does not run; its run directory stays."""
        with self._lock(), suppress(InputError):
            if _process(self.read(identity)) is None:
                shutil.rmtree(self.folder / identity, ignore_errors=True)

    def read(self, identity: str) -> Job:
        """Read a job.

        Raises:
            InputError: there is no such job, or its file is damaged.
        """
        path = self.folder / identity / _FILE
        try:
            if fullmatch(_IDENTITY, identity):
                return Job.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            pass
        raise InputError("There is no such training, or its file is damaged.", f"Look in {self.folder}.")

    def all(self) -> list[Job]:
        """The jobs that can be read, the one that was started last first."""
        found = []
        for path in self.folder.glob(f"*/{_FILE}"):
            with suppress(InputError):
                found.append(self.read(path.parent.name))
        return sorted(found, key=lambda one: -one.started)

    def active(self) -> Job | None:
        """The job that is running."""
        return next((job for job in self.all() if _process(job) is not None), None)

    def state(self, job: Job) -> State:
        """What has become of a job."""
        if _process(job) is not None:
            return "stopping" if job.stop_asked else "running"
        if job.run_dir.is_finished():
            return "done"
        if job.stop_asked:  # however its process ended: it may have been killed, where it did not stop in time
            return "stopped"
        tail = self.log_lines(job)
        if any(line.startswith(_INTERRUPTED) for line in tail[-2:]):
            return "stopped"
        return "failed" if problem_of(tail) else "killed"

    def log_lines(self, job: Job, most: int | None = None) -> list[str]:
        """The last lines that the process of a job wrote."""
        path = self.folder / job.identity / _LOG
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(job.log_start, size - _TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return lines if most is None else lines[-most:]

    def _launch(self, job: Job) -> Job:
        """Start the process of a job.

        Raises:
            RunError, OutputError: as `start`.
        """
        create_directory(self.folder, RunError, "Allow this user to write there, or make room.")
        with self._lock():
            if (other := self.active()) is not None:
                raise RunError(
                    f"A training is running already: {other.data}.", "Wait until it is done, or stop it first."
                )
            log = self.folder / job.identity / _LOG
            size = log.stat().st_size if log.is_file() else 0
            fresh = {"pid": None, "started": time.time(), "log_start": size, "stop_asked": 0.0}
            job = job.model_copy(update=fresh)
            self._write(job)
            pid = (self.start_process or start_process)(job.arguments, log)
            job = job.model_copy(update={"pid": pid, "born": _start_time(pid) or 0.0})
            self._write(job)
            return job

    def _lock(self) -> Any:
        return lock_directory(self.folder, wait=_LOCK_SECONDS)

    def _write(self, job: Job) -> None:
        write_json(self.folder / job.identity / _FILE, job.model_dump(mode="json"))


def problem_of(lines: Sequence[str]) -> str:
    """The error at the end of a log: our sentence, or the last line of a traceback; empty without one."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith(_ERROR):
            return " ".join(lines[number:]).removeprefix(_ERROR)
        if lines[number].startswith(_BUG):
            last = lines[number - 1] if number else ""
            return f"Training ended with an unexpected error: {last}"
    return ""


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this app started; a process that ended stays in the system's list until its parent asks for it."""


def start_process(arguments: Sequence[str], log: Path) -> int:
    """Start `thirtytwo` in a session of its own, which closing the app or its terminal does not end.

    Raises:
        RunError: it cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    detached: Mapping[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "thirtytwo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
                **detached,
            )
    except OSError as error:
        raise RunError(
            f"Training cannot be started: {error.strerror}.", "Start the app again, then try again."
        ) from None
    _children[process.pid] = process
    return process.pid


def _process(job: Job) -> Any:
    """The process of a job as psutil's object; None if it has ended, or its id belongs to another process."""
    if job.pid is None:
        return None
    born = _start_time(job.pid)
    if born is None or abs(born - job.born) > _SAME_START:
        return None
    return require("psutil", "train").Process(job.pid)


def _start_time(pid: int) -> float | None:
    """When a running process started, in seconds since 1970; None if there is no such process."""
    if (child := _children.get(pid)) is not None and child.poll() is not None:
        del _children[pid]
        return None
    try:
        psutil: Any = require("psutil", "train")
    except ThirtytwoError:  # without it there is no training either
        return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
