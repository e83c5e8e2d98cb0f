"""Real trainings with two processes on digits: equal to one process, started in every way, interrupted and resumed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

import thirtytwo
from thirtytwo.rundir import RunDir

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

SCRIPT = Path(__file__).with_name("train_along.py")
SECONDS = 600
"""Longest time for what is sure to happen; a busy machine takes minutes to start two processes."""
CASES = ("adamw", "muon", "norms", "plateau", "sam", "selection", "sgd")
SAME = 1e-6
"""Largest difference of weights from rounding: below 1e-13 in float64, with room for a float32 loss that is rounded up
here and down there."""
LONG = 400
"""Epochs of a training that is interrupted."""
TINY = {
    "model.options": "{groups = [{width = 8}, {width = 16}]}",
    "data.image_size": "16",
    "schedule.batch_size": "64",
    "train.precision": "float32",
    "evaluate.tta": "false",
}
Start = Callable[..., subprocess.Popen[str]]


def environment(**variables: str) -> dict[str, str]:
    """This environment without variables of an outer training."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
    }
    return kept | {"OMP_NUM_THREADS": "1"} | variables


def arguments(run: Path, *more: str, epochs: int = 2) -> list[str]:
    words = ["train", "digits", "--recipe", "digits", "--run", str(run), "--device", "cpu", "--epochs", str(epochs)]
    for key, value in TINY.items():
        words += ["--set", f"{key}={value}"]
    return [*words, *more]


@contextmanager
def starting() -> Iterator[Start]:
    """Start programs of Python with their output captured; ended at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, **variables: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, *words], subprocess.PIPE
        process = subprocess.Popen(command, env=environment(**variables), stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.communicate()


@pytest.fixture
def start() -> Iterator[Start]:
    """`starting`, until the end of the test."""
    with starting() as start:
        yield start


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    out, error = process.communicate(timeout=SECONDS)
    return process.returncode, out, error


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def check_run(run: Path, processes: dict[str, int], epochs: int = 2) -> None:
    """The run is complete, was trained by as many processes, and its evaluation is that of one process."""
    directory = RunDir.open(run)
    assert directory.is_finished()
    assert directory.read_json(directory.environment)["processes"] == processes
    assert [row["epoch"] for row in directory.read_history()] == list(range(1, epochs + 1))
    before = directory.read_predictions("test")
    assert len(set(before.rows.tolist())) == len(before.rows) == 358
    thirtytwo.evaluate(run)
    after = directory.read_predictions("test")
    assert (before.probabilities == after.probabilities).all()
    assert (before.rows == after.rows).all()


def wait_for(found: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


def begin(start: Start, run: Path) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A training of two processes that has completed an epoch, and its second process."""
    process = start("-m", "thirtytwo", *arguments(run, "--devices", "2", epochs=LONG))
    wait_for(lambda: (run / "checkpoints" / "last.ckpt").is_file() or process.poll() is not None)
    (second,) = psutil.Process(process.pid).children()
    return process, second


@pytest.fixture(scope="module")
def along(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `train_along.py` trains with one process and with two."""
    folder = tmp_path_factory.mktemp("along")
    for count in ("1", "2"):
        with starting() as start:
            code, _, error = finish(start(str(SCRIPT), str(folder), count))
        assert code == 0, error
    return folder


def between_processes(folder: Path, case: str) -> float:
    """Largest difference between the weights of two processes."""
    return _difference(*(folder / f"{case}-2" / f"weights-{rank}.pt" for rank in (0, 1)))


def from_one_process(folder: Path, case: str, expected: str = "") -> float:
    """Largest difference between the weights of two processes and those of one."""
    return _difference(folder / f"{case}-2" / "weights-0.pt", folder / f"{expected or case}-1" / "weights-0.pt")


def _difference(first: Path, second: Path) -> float:
    one, other = torch.load(first), torch.load(second)
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(along: Path, case: str) -> None:
    assert between_processes(along, case) == 0
    if case == "norms":  # normalized over half a batch
        return
    # an image that is drawn twice has two losses, of which one process keeps the last and two the mean
    tolerance = 3e-3 if case == "selection" else SAME
    assert from_one_process(along, case) < tolerance
    rows = [RunDir(along / f"{case}-{count}").read_history() for count in (1, 2)]
    for one, two in zip(*rows, strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "lr"):
            assert two[key] == pytest.approx(one[key], rel=max(tolerance, 1e-5), abs=1e-5), key


@pytest.mark.parametrize("defect", ["no average", "divided twice", "the same images", "an image less", "another order"])
def test_defects_are_found(along: Path, defect: str) -> None:
    """Weights differ by far more than the test above allows where two processes do not work as one."""
    assert from_one_process(along, defect, "sgd") > 100 * SAME
    assert (between_processes(along, defect) > 0) == (defect == "no average")


def test_from_a_shell_and_with_transfer(start: Start, tmp_path: Path) -> None:
    run, further = tmp_path / "run", tmp_path / "further"
    code, out, error = finish(start("-m", "thirtytwo", *arguments(run, "--devices", "2")))
    assert code == 0, error
    assert out.splitlines()[-1] == str(run)
    assert out.count(str(run)) == 1
    assert error.count("epoch 2/2 done") == 1
    check_run(run, {"world_size": 2, "devices": 2, "nodes": 1})
    transfer = ["--pretrained", str(run), "--set", "transfer.head_until=0.5", "--set", "augment.flip=random"]
    code, _, error = finish(start("-m", "thirtytwo", *arguments(further, "--devices", "2", *transfer)))
    assert code == 0, error
    check_run(further, {"world_size": 2, "devices": 2, "nodes": 1})


def test_under_torchrun(start: Start, tmp_path: Path) -> None:
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
        "-m",
        "--",
        "thirtytwo",
    ]
    code, out, error = finish(start(*words, *arguments(tmp_path / "run")))
    assert code == 0, error
    assert out.count(str(tmp_path / "run")) == 1
    check_run(tmp_path / "run", {"world_size": 2, "devices": 2, "nodes": 1})


def test_as_slurm_starts_it(start: Start, tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2"}
    job |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    job["MASTER_PORT"] = free_port()
    tasks = [
        start("-m", "thirtytwo", *arguments(tmp_path / "run"), **job, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in ("0", "1")
    ]
    ended = [finish(task) for task in tasks]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[1][1:] == ("", "")
    check_run(tmp_path / "run", {"world_size": 2, "devices": 2, "nodes": 1})


def test_shells_on_two_machines(start: Start, tmp_path: Path) -> None:
    """The run is written on the first machine; whatever stands at that path on the other does not matter."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    runs = [tmp_path / "first" / "run", tmp_path / "second" / "run"]
    runs[1].mkdir(parents=True)
    (runs[1] / "notes.txt").write_text("mine")
    words = [["-m", "thirtytwo", *arguments(run, "--nodes", "2")] for run in runs]
    machines = [start(*words[rank], **place, NODE_RANK=str(rank)) for rank in (0, 1)]
    ended = [finish(machine) for machine in machines]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert ended[1][1:] == ("", "")
    check_run(runs[0], {"world_size": 2, "devices": 1, "nodes": 2})
    assert [path.name for path in runs[1].iterdir()] == ["notes.txt"]


def test_machines_that_disagree(start: Start, tmp_path: Path) -> None:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    first = start("-m", "thirtytwo", *arguments(tmp_path / "run", "--nodes", "2"), **place, NODE_RANK="0")
    words = arguments(tmp_path / "run", "--nodes", "2", "--devices", "2")
    second = start("-m", "thirtytwo", *words, **place, NODE_RANK="1")
    for code, out, error in (finish(second), finish(first)):
        assert (code, out) == (2, "")
        assert "Traceback" not in error
        assert "--devices" in error
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_recipe_is_reported_once(start: Start, tmp_path: Path) -> None:
    words = arguments(tmp_path / "run", "--devices", "2", "--set", "schedule.batch_size=63")
    code, out, error = finish(start("-m", "thirtytwo", *words))
    assert (code, out) == (2, "")
    assert len(error.splitlines()) == 1
    assert "63 images" in error
    assert not (tmp_path / "run").exists()


def test_a_killed_process_ends_the_training_which_can_be_resumed(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, second = begin(start, run)
    second.send_signal(signal.SIGKILL)
    code, out, error = finish(process)
    assert (code, out) == (2, "")
    assert "Traceback" not in error
    (reported,) = [line for line in error.splitlines() if line.startswith("thirtytwo: ")]
    assert "process 1 of 2 was ended by SIGKILL" in reported
    assert f"thirtytwo train digits --resume --run {run} --devices 2" in reported
    words = ["-m", "thirtytwo", "train", "digits", "--resume", "--run", str(run), "--device", "cpu", "--devices", "2"]
    before = len(RunDir(run).read_history())
    resumed = start(*words)
    wait_for(lambda: len(RunDir(run).read_history()) > before or resumed.poll() is not None)
    resumed.send_signal(signal.SIGINT)
    code, _, error = finish(resumed)
    assert code == 130, error
    assert len(RunDir(run).read_history()) > before


def test_without_process_0_the_other_ends_and_says_so(start: Start, tmp_path: Path) -> None:
    process, second = begin(start, tmp_path / "run")
    process.kill()
    code, _, error = finish(process)
    assert code == -signal.SIGKILL
    wait_for(lambda: not second.is_running())
    assert "Traceback" not in error
    assert "process 0 of 2 was ended" in error
    assert "--resume" in error


def test_ctrl_c_ends_all_and_another_number_of_processes_resumes(start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process, second = begin(start, run)
    process.send_signal(signal.SIGINT)
    code, out, error = finish(process)
    assert (code, out) == (130, "")
    assert "Traceback" not in error
    assert error.count("Resume with:") == 1
    assert not second.is_running()
    before = len(RunDir(run).read_history())
    single = start("-m", "thirtytwo", "train", "digits", "--resume", "--run", str(run), "--device", "cpu")
    wait_for(lambda: len(RunDir(run).read_history()) > before or single.poll() is not None)
    single.send_signal(signal.SIGINT)
    code, _, error = finish(single)
    assert code == 130, error
    assert "processes (was 2, now 1)" in error
