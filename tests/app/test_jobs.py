"""Training in the background: states read from files, one at a time, and none mistaken for another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("platformdirs")

from thirtytwo.app.jobs import Job, JobStore, problem_of
from thirtytwo.errors import InputError, RunError

SLEEPER = """
import signal, sys, time
def stop(*_):
    print("interrupted; no epoch was completed.\\nInterrupted.", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(600)
"""


class Commands:
    """Starts scripts in the place of `thirtytwo`, and remembers the arguments."""

    def __init__(self) -> None:
        self.script = SLEEPER
        self.given: list[Sequence[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, arguments: Sequence[str], log: Path) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.given.append(arguments)
        with log.open("ab") as output:
            process = subprocess.Popen([sys.executable, "-c", self.script], stdout=output, stderr=output)
        self.processes.append(process)
        return process.pid

    def end(self, number: int = -1, kind: int = signal.SIGKILL) -> None:
        self.processes[number].send_signal(kind)
        self.processes[number].wait(30)


@pytest.fixture
def commands() -> Commands:
    return Commands()


@pytest.fixture
def store(tmp_path: Path, commands: Commands) -> Iterator[JobStore]:
    yield JobStore(tmp_path / "jobs", commands)
    for process in commands.processes:
        process.kill()
        process.wait(30)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def finish(run: Path) -> None:
    """The files of a finished run."""
    run.mkdir(parents=True, exist_ok=True)
    names = (
        "recipe.toml environment.json split.json weights.safetensors class_means.safetensors model.onnx metrics.json"
    )
    for name in [*names.split(), "report.html"]:
        (run / name).touch()


@pytest.mark.slow
def test_stop_resume_and_finish(store: JobStore, commands: Commands, tmp_path: Path) -> None:
    job = store.start("-pets", ["--seed", "3"], tmp_path / "runs" / "pets", tmp_path / "root")
    assert commands.given[0] == [
        *("train", "--run", str(tmp_path / "runs" / "pets"), "--seed", "3"),
        *("--data-root", str(tmp_path / "root"), "--", "-pets"),
    ]
    wait_for(lambda: store.log_lines(job) == ["ready"])
    assert store.state(job) == "running"
    another = JobStore(store.folder, commands)  # as of an app that was started anew
    assert another.active() == job
    with pytest.raises(RunError):
        another.start("other", [], tmp_path / "runs" / "other")
    another.forget(job.identity)
    assert store.all() == [job], "a running one is not forgotten"

    another.stop(job.identity)
    job = store.read(job.identity)
    assert job.stop_asked
    wait_for(lambda: store.state(job) == "stopped")
    Path(job.run).mkdir(parents=True)
    assert not job.can_resume
    (Path(job.run) / "recipe.toml").touch()
    again = store.resume(job.identity)
    assert commands.given[1][:4] == ["train", "--run", job.run, "--resume"]
    assert "--seed" not in commands.given[1]
    assert store.state(again) == "running", "lines of the log from before the start do not count"
    wait_for(lambda: store.log_lines(again) == ["ready"])
    finish(Path(job.run))
    assert store.state(again) == "running", "the process decides"
    commands.end()
    assert store.state(again) == "done"
    assert store.active() is None
    store.forget(again.identity)
    assert store.all() == []
    assert Path(job.run).is_dir()


@pytest.mark.slow
def test_ends_that_were_not_wanted(store: JobStore, commands: Commands, tmp_path: Path) -> None:
    job = store.start("pets", [], tmp_path / "pets")
    commands.end()
    assert store.state(job) == "killed"
    assert not problem_of(store.log_lines(job))

    commands.script = "import sys; print('loading', flush=True); sys.exit('thirtytwo: There is no data. Check it.')"
    job = store.resume(job.identity)
    commands.processes[-1].wait(30)
    assert store.state(job) == "failed"
    assert problem_of(store.log_lines(job)) == "There is no data. Check it."

    commands.script = "import sys; print('ZeroDivisionError: division'); sys.exit('This is a bug. Please report it.')"
    job = store.resume(job.identity)
    commands.processes[-1].wait(30)
    assert store.state(job) == "failed"
    assert "ZeroDivisionError: division" in problem_of(store.log_lines(job))


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [False, True])
def test_what_the_user_stopped_did_not_end_by_itself(
    at_once: bool, store: JobStore, commands: Commands, tmp_path: Path
) -> None:
    ended = "None" if at_once else "sys.exit('thirtytwo: The disk is full. Free some space.')"
    commands.script = SLEEPER.replace("sys.exit(130)", ended).replace("Interrupted.", "")
    job = store.start("pets", [], tmp_path / "pets")
    wait_for(lambda: store.log_lines(job) == ["ready"])
    store.stop(job.identity)
    if at_once:
        store.stop(job.identity, at_once=True)
    commands.processes[-1].wait(30)
    assert store.state(store.read(job.identity)) == "stopped"
    resumed = store.resume(job.identity)
    commands.end()
    assert store.state(resumed) == "killed", "a stop of an earlier session does not count"


def test_an_id_that_another_process_got_is_not_mistaken(store: JobStore, tmp_path: Path) -> None:
    job = Job(identity="0" * 16, data="pets", run=str(tmp_path / "pets"), pid=os.getpid(), born=1.0)
    assert store.state(job) == "killed"
    store.folder.mkdir()
    store._write(job)
    store.stop(job.identity)  # would end the tests
    assert store.active() is None
    for identity in ("0" * 15, "../jobs", "f" * 16):
        with pytest.raises(InputError):
            store.read(identity)
    (store.folder / job.identity / "job.json").write_text("{")
    assert store.all() == []
    with pytest.raises(InputError):
        store.resume(job.identity)


def ended(arguments: Sequence[str], log: Path) -> int:
    """In the place of `start_process`: a process that has ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("thirtytwo: There is no data. Check it.\n")
    return 0


def test_a_run_directory_belongs_to_one_training(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs", ended)
    failed = store.start("pets", [], tmp_path / "runs" / "pets")
    other = store.start("others/pets", [], tmp_path / "runs" / "pets")
    assert other.run == str(tmp_path / "runs" / "pets-2")
    finish(Path(other.run))
    assert (store.state(failed), store.state(other)) == ("failed", "done")
    Path(failed.run).mkdir()  # meanwhile, by something else
    assert store.resume(failed.identity).run == str(tmp_path / "runs" / "pets-3")


def test_a_training_is_resumed_on_its_own_data_wherever_the_app_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Sequence[str]] = []

    def start(arguments: Sequence[str], log: Path) -> int:
        given.append(arguments)
        return ended(arguments, log)

    for place in ("here", "there"):
        (tmp_path / place / "pets").mkdir(parents=True)
    (tmp_path / "here" / "cifar10").mkdir()  # does not hide the known data
    store = JobStore(tmp_path / "jobs", start)
    monkeypatch.chdir(tmp_path / "here")
    jobs = {data: store.start(data, [], Path("runs")) for data in ("pets?label=breed", "cifar10", "gone")}
    monkeypatch.chdir(tmp_path / "there")
    for job in jobs.values():
        store.resume(job.identity)
    wanted = [f"{tmp_path / 'here' / 'pets'}?label=breed", "cifar10", "gone"]
    assert [arguments[-1] for arguments in given] == [*jobs, *wanted]
    monkeypatch.chdir(tmp_path / "here")
    store.resume(jobs["pets?label=breed"].identity)
    assert given[-1][-1] == "pets?label=breed"
    assert all(arguments[2] == jobs[data].run for arguments, data in zip(given[3:6], jobs, strict=True))
