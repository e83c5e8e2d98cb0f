"""Runs over several sessions and processes: usage, one writer at a time, and no side effects on the process."""

from __future__ import annotations

import importlib
import json
import logging
import mmap
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.errors import DivergedError, RunError
from thirtytwo.explain import Explainer
from thirtytwo.rundir import RunDir
from thirtytwo.training.module import ClassifierModule
from thirtytwo.workflows.ensemble import ensemble
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.export import export_model
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.loading import load_run
from thirtytwo.workflows.report import write_report
from thirtytwo.workflows.seeds import train_seeds
from thirtytwo.workflows.train import find_lr, train
from thirtytwo.workflows.tune import tune

WORKING = importlib.import_module("thirtytwo.workflows.finish")
PAGES = importlib.import_module("thirtytwo.workflows.report")


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def how(tiny: SimpleNamespace) -> dict[str, Any]:
    """How the runs here are trained."""
    overrides = {**tiny.overrides, "data.image_size": 16, "data.val_fraction": 0.25, "schedule.epochs": 2}
    return {"recipe": "digits", "overrides": overrides, "limit_train": 100, "show": False}


@pytest.fixture(scope="module")
def finished(how: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run; left as it is."""
    return train("digits", run=tmp_path_factory.mktemp("runs") / "digits", **how)


@pytest.fixture
def again(finished: Run, tmp_path: Path) -> Path:
    """A copy of that run, to do things with."""
    return shutil.copytree(finished.path, tmp_path / "copy")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PAGES, "write_page", lambda run, images, **_: run.report.write_text("<html>"))
    monkeypatch.setattr(PAGES, "write_card", lambda run, record: run.card.write_text("card"))


def environment(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "environment.json").read_text())
    return content


@contextmanager
def stopped_after(epoch: int) -> Iterator[None]:
    """Training is stopped by hand in the epoch after this one."""

    def stop(self: ClassifierModule, *_: Any) -> None:
        if self.current_epoch == epoch:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifierModule, "on_train_batch_end", stop)
        try:
            yield
        except KeyboardInterrupt:
            return
    pytest.fail("it was not stopped")


# Usage


@pytest.mark.long
def test_seconds_of_every_session_count(how: dict[str, Any], tmp_path: Path, no_report: None) -> None:
    run, clock = tmp_path / "run", time.perf_counter()
    with stopped_after(1):
        train("digits", run=run, **how)
    first = time.perf_counter() - clock
    noted = environment(run)
    assert noted["interrupted"]
    assert 0.5 * first < noted["seconds"]["total"] <= first + 0.01
    time.sleep(1)  # what passes between sessions is none of it
    clock = time.perf_counter()
    train("digits", run=run, resume=True, show=False)
    second = time.perf_counter() - clock
    ended = environment(run)
    assert ended["sessions"] == 2
    assert noted["seconds"]["total"] + 0.5 * second < ended["seconds"]["total"] <= first + second + 0.01


@pytest.mark.long
def test_killed_session_counts_until_its_checkpoint(how: dict[str, Any], tmp_path: Path, no_report: None) -> None:
    run = tmp_path / "run"
    with stopped_after(1):
        train("digits", run=run, **how)
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Ledger"]["meter"]["seconds"]
    started = environment(run)
    for key in ("seconds", "sessions"):  # as it was when this session started
        del started[key]
    (run / "environment.json").write_text(json.dumps(started))
    clock = time.perf_counter()
    train("digits", run=run, resume=True, show=False)
    second = time.perf_counter() - clock
    assert 0 < kept + 0.5 * second < environment(run)["seconds"]["total"] <= kept + second + 0.01


def held_before(megabytes: int) -> float:
    """Hold memory and give it back; the most that this process has held since it began, in MB."""
    with mmap.mmap(-1, megabytes * 1_000_000) as held:
        held.write(b"\1" * 1_000_000 * megabytes)
    return float(importlib.import_module("thirtytwo.machine").peak_memory_mb())


@pytest.mark.long
def test_memory_held_before_a_run_is_not_its_own(how: dict[str, Any], tmp_path: Path, no_report: None) -> None:
    most = held_before(400)
    found = environment(train("digits", run=tmp_path / "run", **how).path)
    assert 50 < found["peak_memory_mb"] < most - 200
    assert found["peak_memory_measured"]


# Sessions on other hardware


@pytest.mark.long
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "by an earlier version"])
def test_another_number_of_threads_is_reported_and_recorded(
    recorded: bool, how: dict[str, Any], tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run, auto = tmp_path / "run", {**how["overrides"], "train.threads": "auto"}
    with stopped_after(1):
        train("digits", run=run, **how | {"overrides": auto})
    one = torch.get_num_threads()
    assert environment(run)["session_threads"] == [one]
    if not recorded:
        content = environment(run)
        del content["session_threads"]
        (run / "environment.json").write_text(json.dumps(content))
    before = torch.get_num_threads()
    torch.set_num_threads(one + 1)
    try:
        train("digits", run=run, resume=True)
    finally:
        torch.set_num_threads(before)
    error = capsys.readouterr().err
    assert f"CPU threads (was {one}, now {one + 1})" in error
    assert f"OMP_NUM_THREADS={one}" in error
    assert environment(run)["session_threads"] == [one, one + 1]


@pytest.mark.long
def test_the_same_hardware_is_not_reported(
    how: dict[str, Any], tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopped_after(1):
        train("digits", run=tmp_path / "run", **how)
    train("digits", run=tmp_path / "run", resume=True)
    assert "warning" not in capsys.readouterr().err
    assert environment(tmp_path / "run")["session_threads"] == [1, 1]


# Resuming what is finished


@pytest.mark.parametrize(
    ("asked", "differs"),
    [
        ({"seed": 5}, ("seed", "0", "5")),
        ({"epochs": 9}, ("schedule.epochs", "2", "9")),
        ({"overrides": {"augment.cutout": 4}}, ("augment.cutout", "0", "4")),
        ({"recipe": "digits"}, ("schedule.batch_size", "16", "now")),
        ({"limit_train": 90}, ("data.limit_train", "100", "90")),
    ],
)
def test_finished_run_with_other_arguments(asked: dict[str, Any], differs: tuple[str, ...], finished: Run) -> None:
    with pytest.raises(RunError) as caught:
        train("digits", run=finished.path, resume=True, show=False, **asked)
    assert all(part in caught.value.message for part in differs)
    assert caught.value.fix


def test_finished_run_with_other_data(finished: Run, tiny: SimpleNamespace, tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "others", 240)
    with pytest.raises(RunError) as caught:
        train(str(folder), run=finished.path, resume=True, show=False)
    assert "'digits'" in caught.value.message
    assert str(folder) in caught.value.message


def test_finished_run_with_the_same_arguments(
    finished: Run, how: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("digits", run=finished.path, resume=True, **how | {"show": True})
    assert run.metrics == finished.metrics
    assert str(finished.path) in capsys.readouterr().err
    assert run_command(["train", "digits", "--resume", "--run", str(finished.path), "--seed", "0"]) == 0
    assert run_command(["train", "digits", "--resume", "--run", str(finished.path), "--seed", "1"]) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "digits-own-seed3"),
        ({"seed": 4}, "digits-own-seed4"),
        ({"overrides": {"seed": 5}}, "digits-own-seed5"),
    ],
)
def test_the_seed_in_a_recipe_file_names_the_run(
    asked: dict[str, Any],
    name: str,
    how: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_report: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = importlib.import_module("thirtytwo.config.resolve").read_recipe("digits")
    Path("own.toml").write_text(recipe.model_copy(update={"seed": 3}).to_toml())
    asked = {"overrides": how["overrides"]} | asked
    asked["overrides"] = how["overrides"] | asked["overrides"]
    run = train("digits", **how | {"recipe": "own.toml", "epochs": 1} | asked)
    assert run.path == Path("runs") / name


def test_repeat_counts_from_the_seed_of_the_recipe(tmp_path: Path) -> None:
    from thirtytwo.cli.compare import parse_seeds

    (tmp_path / "own.toml").write_text("seed = 3")
    assert parse_seeds(None, 2, None, str(tmp_path / "own.toml")) == [3, 4]
    assert parse_seeds(None, 2, 0, str(tmp_path / "own.toml")) == [0, 1]


# One writer at a time

HOLDER = """
import sys, time
from pathlib import Path
from thirtytwo.rundir import RunDir
with {begin}:
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def evaluated(again: Path, tiny: SimpleNamespace, tmp_path: Path) -> RunDir:
    """That copy, with entries that evaluations added, and without the file that finishing again restores."""
    tiny.folder(tmp_path / "odd ones", 30)
    evaluate(again, coverage=0.8, ood=tmp_path / "odd ones", show=False)
    run = RunDir(again)
    run.split.unlink()
    return run


@pytest.mark.long
def test_entries_of_evaluations_outlast_a_lost_split(evaluated: RunDir) -> None:
    before = evaluated.read_json(evaluated.metrics)
    assert (before["test_evaluations"], before["conformal"]["coverage"]) == (2, 0.8)
    assert len(before["unknown"]["against"]) == 3, "noise, colors and the requested one"
    after = train("digits", run=evaluated.path, resume=True, show=False).metrics
    assert after["conformal"] == before["conformal"]
    assert after["unknown"] == before["unknown"]
    assert after["test_evaluations"] == evaluated.read_json(evaluated.split)["test_evaluations"] == 2
    assert "Prediction sets" in evaluated.report.read_text(encoding="utf-8")


@pytest.mark.long
def test_entries_that_no_longer_hold_name_their_command(evaluated: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    before = evaluated.read_json(evaluated.metrics)
    evaluated.write_json(evaluated.metrics, before | {"nll": before["nll"] | {"value": 2 * before["nll"]["value"]}})
    after = train("digits", run=evaluated.path, resume=True).metrics
    assert not after.get("conformal")
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "measure them with: " in line)
    assert run_command(shlex.split(line.partition("measure them with: thirtytwo ")[2])) == 0
    restored = evaluated.read_json(evaluated.metrics)
    assert restored["conformal"]["coverage"] == 0.8
    assert [row["name"] for row in restored["unknown"]["against"]] == [
        row["name"] for row in before["unknown"]["against"]
    ]


@contextmanager
def held_elsewhere(begin: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to a run directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER.format(begin=begin)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_run_in_use_is_not_written(again: Path, finished: Run, tmp_path: Path) -> None:
    explain = ["explain", str(tmp_path / "one.png"), "--model", str(again), "--out", str(again / "maps")]
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    work: dict[str, Callable[[], object]] = {
        "train": lambda: train("digits", run=again, resume=True, show=False),
        "evaluate": lambda: evaluate(again, show=False),
        "write_report": lambda: write_report(again),
        "export": lambda: export_model(again, "onnx-int8"),
        "other data": lambda: evaluate(again, data="digits", split="val", show=False),
    }
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*")}
    with held_elsewhere(f"RunDir.open({str(again)!r}).writing()") as other:
        for what, do in work.items():
            with pytest.raises(RunError) as caught:
                do()
            assert f"process {other.pid} on " in caught.value.message, what
        assert run_command(explain) == 2
        assert thirtytwo.load(again).predict(np.zeros((16, 16, 3), np.uint8))
        assert ensemble([again, finished.path], run=tmp_path / "both", show=False).metrics, "it is only read"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    export_model(again, "onnx-int8")  # the other one was killed, and its lock went with it
    assert not list(again.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("start", [train, tune])
def test_directory_in_use_is_refused(
    start: Callable[..., Any], how: dict[str, Any], tmp_path: Path, no_report: None
) -> None:
    run = tmp_path / "run"
    with held_elsewhere(f"RunDir.create_locked({str(run)!r}, None)") as other, pytest.raises(RunError) as caught:
        start("digits", run=run, **how)
    assert f"process {other.pid} on " in caught.value.message


def test_unnamed_runs_never_share_a_directory(tmp_path: Path) -> None:
    with RunDir.create_locked(None, tmp_path / "run") as one, RunDir.create_locked(None, tmp_path / "run") as other:
        assert (one.path.name, other.path.name) == ("run", "run-2")
        one.card.write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing was written to the other"
    with pytest.raises(RunError), RunDir.create_locked(tmp_path / "run", tmp_path):
        pass


@pytest.mark.long
def test_seeds_and_tuning_lock_their_directory(how: dict[str, Any], tmp_path: Path, no_report: None) -> None:
    train_seeds("digits", seeds=[0], run=tmp_path / "seeds", **how)
    tune("digits", trials=1, run=tmp_path / "tuned", **how)
    for path, resume in (
        (tmp_path / "seeds", lambda: train_seeds("digits", run=tmp_path / "seeds", resume=True, show=False)),
        (tmp_path / "tuned", lambda: tune("digits", run=tmp_path / "tuned", resume=True, trials=1, show=False)),
    ):
        holder = f"RunDir(Path({str(path)!r})).writing()"
        with held_elsewhere(holder) as other, pytest.raises(RunError) as caught:
            resume()
        assert f"process {other.pid} on " in caught.value.message


@pytest.mark.long
def test_second_training_is_refused_and_killed_one_resumes(
    how: dict[str, Any], tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    longer = how["overrides"] | {"schedule.batch_size": 2, "schedule.epochs": 200}
    code = f"import thirtytwo; thirtytwo.train('digits', run={str(run)!r}, **{how | {'overrides': longer}!r})"
    first = subprocess.Popen([sys.executable, "-c", code])
    try:
        end = time.monotonic() + 200
        while not (run / "checkpoints" / "last.ckpt").exists() and first.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert first.poll() is None
        assert run_command(["train", "digits", "--resume", "--run", str(run)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"process {first.pid} on " in err
        assert run_command(["evaluate", str(run)]) == 2
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    with stopped_after(len(RunDir(run).read_history()) + 1):
        train("digits", run=run, resume=True, show=False)
    assert environment(run)["sessions"] == 2
    assert not list(run.glob(".lock"))


# Side effects


def state() -> dict[str, Any]:
    """What the whole process shares."""
    import matplotlib

    loggers = {"root": logging.getLogger(), **logging.Logger.manager.loggerDict}
    return {
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "other random": (repr(np.random.get_state()), random.getstate()),  # noqa: NPY002
        "dtype": torch.get_default_dtype(),
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "gradients": torch.is_grad_enabled(),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "levels": {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger)},
        "backend": (matplotlib.get_backend(), dict(matplotlib.rcParams)),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "streams": (sys.stdout, sys.stderr),
        "threads of ours": [thread.name for thread in threading.enumerate() if "thirtytwo" in thread.name],
    }


def no_torch_threads(how: dict[str, Any], **more: Any) -> dict[str, Any]:
    return how | {"overrides": how["overrides"] | {"train.threads": 1} | more}


def diverge(how: dict[str, Any], run: Path) -> None:
    with pytest.raises(DivergedError):
        train("digits", run=run, **no_torch_threads(how, **{"optimizer.weight_decay": 1000}))


def stop_by_hand(how: dict[str, Any], run: Path) -> None:
    with stopped_after(0):
        train("digits", run=run, **how)


def fail_to_export(how: dict[str, Any], run: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train("digits", run=run, **how)


WORK: dict[str, Callable[[dict[str, Any], Path, Path], object]] = {
    "train": lambda how, run, done: train("digits", run=run, **how),
    "train that diverges": lambda how, run, done: diverge(how, run),
    "train that is stopped": lambda how, run, done: stop_by_hand(how, run),
    "train that cannot export": lambda how, run, done: fail_to_export(how, run),
    "evaluate": lambda how, run, done: evaluate(done, show=False),
    "write_report": lambda how, run, done: write_report(done),
    "export": lambda how, run, done: export_model(done, "onnx-int8"),
    "explain": lambda how, run, done: list(Explainer(done, "gradcam").explain(np.zeros((16, 16, 3), np.uint8))),
    "ensemble": lambda how, run, done: ensemble([done, done.parent / "other"], run=run, show=False),
    "tune": lambda how, run, done: tune("digits", run=run, trials=1, **how),
    "find_lr": lambda how, run, done: find_lr("digits", **how),
}


@pytest.mark.parametrize("name", WORK)
@pytest.mark.long
def test_no_side_effects_on_the_process(
    name: str, how: dict[str, Any], again: Path, tmp_path: Path, no_report: None
) -> None:
    import optuna  # sets the level of its logger when it is imported

    assert optuna
    if name == "ensemble":
        shutil.copytree(again, tmp_path / "other")
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(77)
    try:
        before = state()
        WORK[name](how, tmp_path / "run", again)
        after = state()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.set_rng_state(generator)
    after["levels"] = {logger: level for logger, level in after["levels"].items() if logger in before["levels"]}
    assert {key for key in before if before[key] != after[key]} == set()


@pytest.mark.long
def test_other_threads_can_print_during_export(
    finished: Run, again: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = importlib.import_module("thirtytwo.export.onnx")
    plain = torch.onnx.export

    def export(*arguments: Any, **settings: Any) -> Any:
        thread = threading.Thread(target=print, args=("from another thread",))
        thread.start()
        thread.join()
        return plain(*arguments, **settings)

    monkeypatch.setattr(torch.onnx, "export", export)
    loaded = load_run(again)
    onnx.export_onnx(loaded.network, loaded.info, again / "other.onnx")
    assert capsys.readouterr().out == "from another thread\n", "nothing else, and nothing less"


@pytest.mark.parametrize(("size", "recipe"), [(16, "fast"), (100, "photos")])
def test_a_run_that_is_not_named_is_looked_for_where_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, recipe: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, color in (("red", "red"), ("blue", "blue")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (size + number, size), color).save(tmp_path / "set" / name / f"{number}.png")
    with pytest.raises(RunError, match=f"runs/set-{recipe}-seed0"):
        thirtytwo.train("set", resume=True, show=False)
