"""Commands that messages advise: each message is provoked, and the command that it names is run."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from thirtytwo.cli.main import run_command
from thirtytwo.config.resolve import format_override
from thirtytwo.report.gallery import HOW_TO_GET_IMAGES
from thirtytwo.report.run_record import read_run_record, typed_commands
from thirtytwo.rundir import RunDir
from thirtytwo.training.module import ClassifierModule
from thirtytwo.workflows.train import train

FINISHING = importlib.import_module("thirtytwo.workflows.finish")
ENSEMBLE = importlib.import_module("thirtytwo.workflows.ensemble")
COMPARING = importlib.import_module("thirtytwo.workflows.compare")
TUNING = importlib.import_module("thirtytwo.workflows.tune")
PAGES = importlib.import_module("thirtytwo.workflows.report")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        patch.setattr(PAGES, "write_page", lambda run, images, **_: run.report.write_text("<html>"))
        yield


@pytest.fixture(scope="module")
def settings(tiny: SimpleNamespace) -> dict[str, Any]:
    """Settings of short trainings; with fewer than 20 validation images, nothing would be calibrated."""
    rows = {"data.limit_train": 60, "data.val_fraction": 0.3}
    return {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 2, **rows}


@pytest.fixture(scope="module")
def flags(settings: dict[str, Any]) -> list[str]:
    """The same settings for the command line."""
    return [word for key, value in settings.items() for word in ("--set", format_override(key, value))]


@pytest.fixture(scope="module")
def pair(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, `one` and `two`; left as it is."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("one", "two")):
        train("digits", recipe="digits", overrides=settings, seed=seed, run=folder / name, show=False)
    return folder


@pytest.fixture
def runs(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, in which the commands run."""
    copied = shutil.copytree(pair, tmp_path / "my runs")
    monkeypatch.chdir(tmp_path)
    return copied


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that fails or is stopped, and return what it writes to stderr."""

    def run(*words: str, code: int = 2) -> str:
        assert run_command(words) == code, capsys.readouterr().err
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error

    return run


def follow(error: str, **values: str) -> None:
    """Run the command that a message names; `values` replace its placeholders."""
    found = re.findall(r"thirtytwo ((?:train|tune|evaluate|ensemble|compare|report|data|export|predict) .+)", error)
    assert len(found) == 1, error
    words = [values.get(word, word) for word in shlex.split(found[0])]
    assert run_command(words) == 0, words


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def damage(run: RunDir, file: str) -> None:
    (run.path / file).write_bytes(b'{"a": [1, null]}')


def remove(run: RunDir, file: str) -> None:
    (run.path / file).unlink()


@pytest.mark.parametrize("harm", [damage, remove])
@pytest.mark.parametrize(
    "file",
    [
        "metrics.json",
        "split.json",
        "environment.json",
        "weights.safetensors",
        "class_means.safetensors",
        "model.onnx",
        "predictions-val.parquet",
        "predictions-test.parquet",
    ],
)
def test_a_file_of_a_finished_run_is_written_again(
    file: str, harm: Callable[[RunDir, str], None], tiny: SimpleNamespace, runs: Path, terminal: Callable[..., str]
) -> None:
    """Damaged or missing: the message names the file and a command; after it, the run works as before."""
    run = RunDir(runs / "one")
    before = run.read_json(run.metrics)
    compare = ["compare", str(run.path), str(runs / "two"), "--out", str(runs / "compared")]
    evaluate = ["evaluate", str(run.path), "--coverage", "0.5"]
    if file.startswith("class_means"):
        evaluate += ["--ood", str(tiny.folder(runs / "images", 24))]
    words = compare if file in ("metrics.json", "predictions-test.parquet") else evaluate
    harm(run, file)
    if (file, harm) == ("metrics.json", remove):
        assert run_command(words) == 0, "computed from the predictions"
        return
    error = terminal(*words)
    assert file in error or f"predictions for '{file[12:].partition('.')[0]}'" in error
    (run.path / file).unlink(missing_ok=True)
    follow(error, DATA="digits")
    for again in (evaluate, compare):
        assert run_command(again) == 0, again
    after = run.read_json(run.metrics)
    assert after["accuracy"] == before["accuracy"]
    assert after["test_evaluations"] > before["test_evaluations"], "the count is kept"


def test_a_finished_run_without_checkpoint_is_not_trained_again(runs: Path, terminal: Callable[..., str]) -> None:
    run = RunDir(runs / "one")
    shutil.rmtree(run.checkpoints)
    run.split.unlink()
    weights = run.weights.read_bytes()
    for words in (["evaluate", str(run.path)], ["train", "digits", "--resume", "--run", str(run.path)]):
        error = terminal(*words)
        assert "split.json" in error
        assert "from a copy" in error
    assert run.weights.read_bytes() == weights


def test_an_unfinished_run(flags: list[str], runs: Path, terminal: Callable[..., str], monkeypatch: Any) -> None:
    run = str(runs / "new")
    with monkeypatch.context() as patch:
        patch.setattr(FINISHING, "export_onnx", stop)
        interrupted = terminal("train", "digits", "--recipe", "digits", "--run", run, *flags, code=130)
    for words in (["evaluate", run], ["ensemble", run, str(runs / "one")], ["export", run, "--format", "onnx-int8"]):
        assert "--resume" in terminal(*words), words
    follow(interrupted)
    finished = RunDir(Path(run))
    assert finished.read_json(finished.metrics)["test_evaluations"] == 1
    assert run_command(["evaluate", run]) == 0


@pytest.mark.parametrize("soup", [[], ["--soup", "uniform"]], ids=["ensemble", "soup"])
@pytest.mark.parametrize("step", ["score_and_export", "write_pages", "_compare_with_members"])
def test_an_interrupted_ensemble(
    step: str, soup: list[str], runs: Path, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, members = str(runs / "both"), [str(runs / "one"), str(runs / "two")]
    if soup:  # weights of equal shape that start from the same ones
        members[1] = str(shutil.copytree(runs / "one", runs / "same"))
    with monkeypatch.context() as patch:
        patch.setattr(ENSEMBLE, step, stop)
        interrupted = terminal("ensemble", *members, *soup, "--run", both, code=130)
    left = shutil.copytree(both, runs / "left")
    errors = [interrupted, terminal("train", "digits", "--resume", "--run", both)]
    if step == "score_and_export":
        errors += [terminal("evaluate", both), terminal("ensemble", both, members[0])]
    for error in errors:
        shutil.rmtree(both)
        shutil.copytree(left, both)
        follow(error)
        assert run_command(["evaluate", both]) == 0
        assert (Path(both) / "comparison" / "comparison.html").is_file()
    assert "Choose another directory" in terminal("ensemble", *members, *soup, "--run", both), "it is finished now"


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_seeds_stopped_in_the_first_one(
    how: str, flags: list[str], runs: Path, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = runs / "seeds"
    words = ["train", "digits", "--recipe", "digits", "--seeds", "0,1", "--run", str(path), *flags]
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierModule, "on_train_batch_end", stop)
        error = terminal(*words, code=130)
    assert f"--resume --run {shlex.quote(str(path))}\n" in error, "all seeds, not one of them"
    if how == "killed":
        shutil.rmtree(path / "seed0")
        (path / "seed0").mkdir()
    assert "--resume" in terminal(*words)
    follow(error)
    assert json.loads((path / "summary.json").read_text())["figures"]["accuracy"]["n"] == 2


def test_seeds_with_refused_arguments_leave_nothing(runs: Path, terminal: Callable[..., str]) -> None:
    words = ["train", "digits", "--seeds", "0,1", "--run", str(runs / "seeds"), "--set", "optimizer.lr=-1"]
    terminal(*words)
    assert not (runs / "seeds").exists()


def test_a_damaged_summary_of_seeds(flags: list[str], runs: Path, terminal: Callable[..., str]) -> None:
    path = runs / "seeds"
    assert run_command(["train", "digits", "--recipe", "digits", "--seeds", "0,1", "--run", str(path), *flags]) == 0
    (path / "summary.json").write_text("{")
    error = terminal("train", "digits", "--resume", "--run", str(path))
    (path / "summary.json").unlink()
    follow(error)
    assert json.loads((path / "summary.json").read_text())["figures"]["accuracy"]["n"] == 2


@pytest.mark.parametrize("step", ["comparison_text", "render_comparison"])
def test_a_comparison_killed_late_is_written_over(
    step: str, runs: Path, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["compare", str(runs / "one"), str(runs / "two"), "--out", str(runs / "compared")]
    with monkeypatch.context() as patch:
        patch.setattr(COMPARING, step, stop)
        terminal(*words, code=130)
    assert run_command(words) == 0
    assert "--out" in terminal(*words), "a finished one is kept"


def test_metrics_that_do_not_match_the_predictions(runs: Path, terminal: Callable[..., str]) -> None:
    run = RunDir(runs / "one")
    run.write_json(run.metrics, run.read_json(run.metrics) | {"n": 3})
    words = ["compare", str(run.path), str(runs / "two"), "--out", str(runs / "compared")]
    follow(terminal(*words))
    assert run_command(words) == 0


def test_tuning_stopped_in_the_first_trial(
    flags: list[str], runs: Path, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TUNING, "write_tuning_figures", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(TUNING, "run_trial", stop)
        words = ["tune", "digits", "--recipe", "digits", "--trials", "1", "--run", str(runs / "tuned"), *flags]
        error = terminal(*words, code=130).partition("\nInterrupted.")[0]
    follow(error + " --trials 1")


def test_data_that_moved(tiny: SimpleNamespace, flags: list[str], runs: Path, terminal: Callable[..., str]) -> None:
    folder, run = tiny.folder(runs / "images", 24), str(runs / "on images")
    assert run_command(["train", str(folder), "--run", run, "--recipe", "digits", *flags]) == 0
    moved = folder.rename(runs / "moved images")
    follow(terminal("evaluate", run), PATH=str(moved))


def test_a_recipe_of_an_ensemble(runs: Path, terminal: Callable[..., str]) -> None:
    members = [str(runs / "one"), str(runs / "two")]
    assert run_command(["ensemble", *members, "--run", str(runs / "both")]) == 0
    error = terminal("train", "digits", "--recipe", str(runs / "both" / "recipe.toml"))
    assert "thirtytwo ensemble RUN RUN..." in error
    assert run_command(["ensemble", *members, "--run", str(runs / "again")]) == 0


@pytest.mark.parametrize("words", [["train"], ["evaluate", "--splt", "x"], ["data", "doctr"], ["trian"]])
def test_usage(words: list[str], terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    error = terminal(*words)
    assert run_command(shlex.split(error.partition("See: thirtytwo ")[2])) == 0
    assert "Usage" in capsys.readouterr().out


def test_a_model_file_in_place_of_a_run(tiny: SimpleNamespace, runs: Path, terminal: Callable[..., str]) -> None:
    alone = shutil.copy(runs / "one" / "model.onnx", runs / "alone.onnx")
    images = tiny.folder(runs / "images", 6)
    error = terminal("evaluate", str(alone))
    follow(error, IMAGES=str(images))
    error = terminal("evaluate", str(runs / "one" / "model.onnx"))
    assert run_command(["evaluate", shlex.split(error.partition("Give the directory of its run:")[2])[0]]) == 0


def test_unreadable_images_are_listed_by_the_command_that_is_named(
    tiny: SimpleNamespace, runs: Path, terminal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.folder(runs / "my images", 24)
    broken = next(folder.rglob("*.png"))
    broken.write_bytes(b"no image")
    error = terminal("train", str(folder))
    words = shlex.split(re.findall(r"thirtytwo (data doctor .+)", error)[0])
    assert run_command(words) == 3, "there are findings"
    assert broken.name in capsys.readouterr().out


def test_the_use_in_the_model_card(tiny: SimpleNamespace, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(runs / "one")
    (line,) = re.findall(r"^thirtytwo (predict .+)$", run.card.read_text(encoding="utf-8"), re.MULTILINE)
    shutil.copy(next(tiny.folder(runs / "images", 3).rglob("*.png")), run.path / "photo.jpg")
    monkeypatch.chdir(run.path)
    assert run_command(shlex.split(line)) == 0


def weights_of(run: RunDir) -> dict[str, list[float]]:
    return {name: values.flatten().tolist() for name, values in load_file(run.weights).items()}


def test_the_recorded_commands_repeat_a_run(runs: Path) -> None:
    """That from the resolved recipe gives the same weights."""
    run = RunDir(runs / "one")
    record = read_run_record(run)
    repeated = shlex.split(record.command_with(str(run.recipe)).removeprefix("thirtytwo "))
    assert run_command([*repeated, "--run", str(runs / "repeated")]) == 0
    again = RunDir(runs / "repeated")
    assert weights_of(again) == weights_of(run)
    (typed,) = typed_commands(again)
    assert run_command([*shlex.split(typed.removeprefix("thirtytwo ")), "--run", str(runs / "third")]) == 0
    assert weights_of(RunDir(runs / "third")) == weights_of(run)


def test_images_are_included_by_the_command_that_the_report_names(runs: Path) -> None:
    run = RunDir(runs / "one")
    (words,) = re.findall(r"thirtytwo (report RUN)", HOW_TO_GET_IMAGES)
    assert run_command([run.path.as_posix() if word == "RUN" else word for word in words.split()]) == 0


def test_the_next_steps_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["demo"]) == 0
    shown = capsys.readouterr().out
    named = re.findall(r"thirtytwo ((?:predict|app) .+)", shown)
    assert len(named) == 2
    predict, app = (shlex.split(words) for words in named)
    assert run_command(predict) == 0
    assert Path(app[app.index("--model") + 1]).is_dir()


TUNE_TWICE = """
import sys
from thirtytwo.cli.main import run_command
sys.exit(run_command(sys.argv[1:]))
"""


def test_tuning_that_is_continued_twice_at_once(flags: list[str], runs: Path, terminal: Callable[..., str]) -> None:
    """One of the two continues; the other says who has the directory, in one sentence, and changes nothing."""
    path = str(runs / "tuned")
    words = ["tune", "digits", "--recipe", "digits", "--trials", "1", "--run", path, *flags]
    assert run_command(words) == 0
    resumed = [sys.executable, "-c", TUNE_TWICE, "tune", "digits", "--resume", "--run", path, "--trials", "3"]
    both = [subprocess.Popen(resumed, stderr=subprocess.PIPE, text=True, cwd=runs.parent) for _ in range(2)]
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) in ([0, 2], [0, 0]), errors
    assert not any("Traceback" in error for error in errors), errors
    if 2 in codes:
        assert "in use by process" in errors[codes.index(2)]
    with (Path(path) / "trials.csv").open(encoding="utf-8", newline="") as file:
        numbers = [row["trial"] for row in csv.DictReader(file)]
    assert sorted(numbers) == [str(number) for number in range(len(numbers))], "no trial is recorded twice"
    assert len(numbers) == 4
