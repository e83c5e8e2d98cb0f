"""Tuning on digits with a tiny network: sampling, storage, pruning, resuming and errors."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thirtytwo.config.resolve import read_recipe
from thirtytwo.errors import ArgumentError, RecipeError, RunError, UnknownNameError
from thirtytwo.rundir import RunDir

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")

from thirtytwo.workflows import search_space as spaces  # noqa: E402
from thirtytwo.workflows import study as studies  # noqa: E402
from thirtytwo.workflows import trial as trials_module  # noqa: E402
from thirtytwo.workflows import tune as module  # noqa: E402
from thirtytwo.workflows.train import train  # noqa: E402

tune = module.tune

TINY: dict[str, Any] = {
    "data.image_size": 8,
    "model.options": {"groups": [{"width": 8}]},
    "schedule.epochs": 2,
    "schedule.batch_size": 64,
    "train.precision": "float32",
    "train.compile": "off",
}
SPACE = {"optimizer.lr": {"low": 0.05, "high": 0.8, "log": True}, "augment.translate": {"low": 0, "high": 2}}


def tuned(run: Path, **settings: Any) -> Any:
    how = {"recipe": "digits", "space": SPACE, "overrides": TINY, "limit_train": 400, "seed": 0, "trials": 3}
    return tune("digits", run=run, show=False, device="cpu", **{**how, **settings})


def table(path: Path) -> list[dict[str, str]]:
    with (path / "trials.csv").open(newline="", encoding="utf-8") as file:
        return [{key: cell for key, cell in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Four trials in one go."""
    return tuned(tmp_path_factory.mktemp("four") / "tuning", trials=4, pruner="none")


def test_everything_is_written_and_the_recipe_comes_first(four: Any) -> None:
    rows = table(four.path)
    assert [row["outcome"] for row in rows] == ["done"] * 4
    assert (float(rows[0]["optimizer.lr"]), rows[0]["augment.translate"]) == (0.24, "1")
    assert len({row["optimizer.lr"] for row in rows}) == 4
    assert four.best.value == max(float(row["val_accuracy"]) for row in rows)
    names = {path.name for path in (four.path / "figures").iterdir()}
    assert names == {f"{kind}.{suffix}" for kind in ("history", "importance", "slices") for suffix in ("png", "svg")}
    assert spaces.read_space(four.path / "space.toml").to_dict() == spaces.parse_space(SPACE).to_dict()
    assert not list(four.path.glob("trials/*/checkpoints"))


def test_metrics_of_a_trial_are_those_of_its_last_epoch(four: Any) -> None:
    for trial in four.trials:
        history = RunDir(four.path / "trials" / f"{trial.number:04d}").read_history()
        assert len(history) == 2
        assert trial.value == history[-1]["val_accuracy"]


@pytest.mark.long
def test_best_recipe_reproduces_its_metric(four: Any, tmp_path: Path) -> None:
    recipe = read_recipe(four.recipe)
    assert recipe.name == "digits-tuned"
    assert recipe.optimizer.lr == four.best.drawn["optimizer.lr"]
    run = train("digits", recipe=four.recipe, run=tmp_path / "run", device="cpu", show=False)
    assert RunDir(run.path).read_history()[-1]["val_accuracy"] == four.best.value


@pytest.mark.long
def test_resumed_tuning_equals_uninterrupted(four: Any, tmp_path: Path) -> None:
    run = tmp_path / "a place, with 100 % odd ?#characters"
    tuned(run, trials=2, pruner="none")
    again = tune("digits", trials=2, run=run, resume=True, device="cpu", show=False)
    assert table(again.path) == table(four.path)
    assert again.best.number == four.best.number


class Untouchable:
    """Test images that must not be read."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"test was read: {name}")


@pytest.mark.long
def test_another_number_of_threads_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    tuned(tmp_path / "tuning", trials=1)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        tune("digits", run=tmp_path / "tuning", resume=True, trials=1, device="cpu")
    finally:
        torch.set_num_threads(before)
    assert f"CPU threads (was {before}, now {before + 1})" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    "step", ["write_text", "create_study", "set_user_attr", "enqueue_trial", "rename", "run_trial"]
)
def test_killed_before_the_first_trial_and_run_again(
    step: str, four: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is killed, what the message advises continues it."""
    where = {
        "write_text": (module, "write_text"),
        "create_study": (optuna, "create_study"),
        "set_user_attr": (optuna.Study, "set_user_attr"),
        "enqueue_trial": (optuna.Study, "enqueue_trial"),
        "rename": (Path, "replace"),
        "run_trial": (module, "run_trial"),
    }[step]
    path = tmp_path / "tuning"
    process = os.fork()
    if not process:
        monkeypatch.setattr(*where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        tuned(path, trials=4, pruner="none")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    written = step in ("write_text", "run_trial")
    assert (path / "study.db").is_file() == written
    if written:
        with pytest.raises(RunError) as caught:
            tuned(path, trials=4, pruner="none")
        assert "--resume" in (caught.value.fix or "")
        found = tune("digits", run=path, resume=True, trials=4, show=False, device="cpu")
    else:
        found = tuned(path, trials=4, pruner="none")
    rows, expected = table(found.path), table(four.path)
    if step == "run_trial":
        assert rows.pop(0)["outcome"] == "stopped"
        assert (len(rows), rows[0] | {"trial": "0"}) == (4, expected[0]), "the recipe itself is trained again"
    else:
        assert rows == expected
    assert not list(path.glob(".*"))
    assert (path / "base.toml").is_file()


def test_resuming_a_directory_in_which_nothing_was_written(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with pytest.raises(RunError) as caught:
        tune("digits", run=tmp_path, resume=True, show=False)
    assert "without --resume" in (caught.value.fix or "")


@pytest.mark.slow
def test_test_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepare = module.prepare

    def without_test(*arguments: Any) -> Any:
        plan = prepare(*arguments)
        return replace(plan, parts=replace(plan.parts, test=Untouchable()))

    for one in (module, trials_module):
        monkeypatch.setattr(one, "prepare", without_test)
    assert tuned(tmp_path / "tuning", trials=1).best.value is not None
    assert not list(tmp_path.rglob("predictions-*"))


@pytest.mark.long
def test_failed_trial_is_recorded(tmp_path: Path) -> None:
    space = {
        "train.class_weights": {"choices": ["none", "balanced"]},
        "train.sampler": {"choices": ["shuffle", "balanced"]},
    }
    found = tuned(tmp_path / "tuning", space=space, trials=8, limit_train=200, epochs=1)
    both = [trial for trial in found.trials if set(trial.drawn.values()) == {"balanced"}]
    assert both
    assert {trial.outcome for trial in both} == {"failed"}
    assert both[0].reason
    assert [row["reason"] for row in table(found.path)][both[0].number] == both[0].reason


@pytest.mark.slow
def test_no_completed_trial_is_an_error(tmp_path: Path) -> None:
    space = {"optimizer.weight_decay": {"choices": [900, 1000]}}
    with pytest.raises(RunError) as caught:
        tuned(tmp_path / "tuning", space=space, trials=2, limit_train=200)
    assert str(tmp_path / "tuning" / "trials.csv") in caught.value.message
    assert "--resume" in (caught.value.fix or "")
    assert [row["outcome"] for row in table(tmp_path / "tuning")] == ["diverged"] * 2


def test_space_in_the_docs_is_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "tuning.md"
    text = page.read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    assert len(spaces.parse_space(tomllib.loads(text)).axes) == 4


@pytest.mark.long
def test_hopeless_learning_rate_is_pruned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "STARTUP", 1)
    space = {"optimizer.lr_head": {"choices": [0.67, 1e-9]}, "optimizer.lr_rest": {"choices": [0.053, 1e-9]}}
    space["optimizer.lr"] = {"choices": [0.24, 1e-9]}
    found = tuned(tmp_path / "tuning", space=space, trials=8, limit_train=800)
    hopeless = [t for t in found.trials if t.drawn["optimizer.lr_head"] == "1e-09" and t.number > 0]
    assert hopeless
    assert {trial.outcome for trial in hopeless} == {"pruned"}
    assert {trial.epochs for trial in hopeless} == {1}
    assert found.best.drawn["optimizer.lr_head"] == "0.67"


@pytest.mark.long
def test_ctrl_c_keeps_completed_trials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit, calls = trials_module.fit, []

    def stopped(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **settings)

    monkeypatch.setattr(trials_module, "fit", stopped)
    run = tmp_path / "tuning"
    with pytest.raises(KeyboardInterrupt):
        tune("digits", recipe="digits", space=SPACE, overrides=TINY, limit_train=200, run=run, device="cpu")
    assert f"thirtytwo tune digits --resume --run {run}" in capsys.readouterr().err
    assert [row["outcome"] for row in table(run)] == ["done", "stopped"]
    assert (run / "best.toml").is_file()
    again = tune("digits", trials=1, run=run, resume=True, device="cpu", show=False)
    assert [trial.outcome for trial in again.trials] == ["done", "stopped", "done"]
    assert again.trials[2].drawn == again.trials[1].drawn


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"optimizer": {"lt": {"low": 1, "high": 2}}}, ["'optimizer.lt'", "'optimizer.lr'"]),
        ({"model": {"low": 1, "high": 2}}, ["'model'"]),
        ({"optimizer.lr": {"low": 1, "high": 0.1}}, ["'optimizer.lr'", "low", "high", "1 and 0.1"]),
        ({"optimizer.lr": {"low": 0.1}}, ["'optimizer.lr'", "low", "high", "choices"]),
        ({"optimizer.lr": {"low": 0.1, "hihg": 1}}, ["'hihg'", "'high'"]),
        ({"optimizer.lr": {"low": "a", "high": 1}}, ["'low'"]),
        ({"optimizer.lr": 0.1}, ["'optimizer.lr'", "0.1"]),
        ({"optimizer.lr": {"low": 0, "high": 1, "log": True}}, ["log", "low", "found 0"]),
        ({"optimizer.lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, ["log", "step"]),
        ({"optimizer.lr": {"low": 0.1, "high": 1, "step": 0.4}}, ["high", "0.4", "low"]),
        ({"optimizer.lr": {"low": -1, "high": 1}}, ["'lr'", "-1.0"]),
        ({"optimizer.momentum": {"low": 0.5, "high": 1}}, ["'momentum'", "1.0"]),
        ({"augment.cutout": {"low": 0.5, "high": 8}}, ["'augment.cutout'", "integer"]),
        ({"augment.flip": {"low": 0, "high": 1}}, ["'augment.flip'", "choices"]),
        ({"augment.flip": {"choices": ["none", "sideways"]}}, ["'sideways'"]),
        ({"augment.flip": {"choices": ["none"]}}, ["'augment.flip'", "choices"]),
        ({"augment.flip": {"choices": ["none", "random"], "step": 1}}, ["choices", "step"]),
        ({"seed": {"low": 0, "high": 9}}, ["'seed'"]),
        ({"evaluate.tta_shift": {"low": 0, "high": 2}}, ["'evaluate.tta_shift'"]),
        ({}, ["Space"]),
    ],
)
def test_invalid_spaces(space: Mapping[str, Any], named: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        spaces.parse_space(space)
    assert all(name in str(error.value) for name in named)


def test_all_errors_of_a_space_are_reported() -> None:
    with pytest.raises(RecipeError, match=r"'optimizer.lt'.*'augment.flip'"):
        spaces.parse_space({"optimizer.lt": {"low": 1, "high": 2}, "augment.flip": {"low": 0, "high": 1}})


def test_ranges_take_the_kind_of_their_key() -> None:
    space = spaces.parse_space(
        {"optimizer.lr": {"low": 1, "high": 2}, "augment.cutout": {"low": 0, "high": 8, "step": 4}}
    )
    assert isinstance(space.axes["optimizer.lr"].low, float)
    assert isinstance(space.axes["augment.cutout"].low, int)
    options = spaces.parse_space({"model.options.width": {"low": 8, "high": 16}})
    assert isinstance(options.axes["model.options.width"].low, int)


def test_choices_of_any_kind_round_trip() -> None:
    choices = [["autoaugment"], "none", "true"]
    space = spaces.parse_space({"augment.policy": {"choices": choices}})
    for choice in choices:
        assert space.values({"augment.policy": spaces.label(choice)}) == {"augment.policy": choice}


@pytest.mark.parametrize("name", ["fast", "digits"])
def test_default_space_contains_the_recipe(name: str) -> None:
    recipe = read_recipe(name)
    sampled = spaces.default_space(recipe).parameters_of(recipe)
    assert sampled is not None
    assert sampled["optimizer.lr"] == recipe.optimizer.lr


def foreign(path: Path) -> None:
    with sqlite3.connect(path / "study.db") as connection:
        connection.execute("create table images (name text)")
    connection.close()


def other_study(path: Path) -> None:
    study = optuna.create_study(storage=studies._storage(path / "study.db"))
    studies.close(study)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda path: None,
        lambda path: (path / "study.db").write_bytes(b"no database" * 100),
        foreign,
        other_study,
    ],
)
def test_directory_without_a_study_is_refused(prepare: Callable[[Path], Any], tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(RunError) as caught:
        tune("digits", run=tmp_path, resume=True, show=False)
    assert str(tmp_path) in caught.value.message
    assert "study.db" in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        ({"metric": "val_loss"}, "--metric (was 'val_accuracy', now 'val_loss')"),
        ({"seed": 3}, "seed (was 0, now 3)"),
        ({"recipe": "fast"}, "--recipe"),
        ({"space": {"optimizer.lr": {"low": 0.1, "high": 0.2}}}, "--space"),
    ],
)
def test_resuming_with_other_arguments_is_refused(arguments: dict[str, Any], change: str, four: Any) -> None:
    with pytest.raises(RunError) as caught:
        tune("digits", run=four.path, resume=True, show=False, **arguments)
    assert change in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"metric": "val_acuracy"}, UnknownNameError, "'val_accuracy'"),
        ({"pruner": "medium"}, UnknownNameError, "'median'"),
        ({"trials": 0}, ArgumentError, "trials must be at least 1; found 0"),
        ({"trials": "5"}, ArgumentError, "trials must be an integer of at least 1; found '5'"),
        ({"overrides": {**TINY, "data.val_fraction": 0}}, RecipeError, "data.val_fraction"),
        ({"space": "gone.toml"}, RecipeError, "'gone.toml'"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    arguments: dict[str, Any], error: type[Exception], named: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        tuned(tmp_path / "tuning", **arguments)
    assert named in str(caught.value)
    assert not (tmp_path / "tuning").exists()


@pytest.mark.slow
def test_the_command_prints_the_recipe_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from thirtytwo.cli.main import run_command

    (tmp_path / "space.toml").write_text("optimizer.lr = { low = 0.1, high = 0.4, log = true }\n")
    words = ["tune", "digits", "--recipe", "digits", "--trials", "2", "--epochs", "1", "--limit-train", "200"]
    words += ["--space", str(tmp_path / "space.toml"), "--run", str(tmp_path / "tuning"), "--device", "cpu"]
    settings = {key: json.dumps(value) for key, value in TINY.items() if isinstance(value, (int, str))}
    settings["model.options"] = "{ groups = [{ width = 8 }] }"
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    assert run_command(words) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "tuning" / "best.toml")


def test_the_command_knows_every_metric() -> None:
    from thirtytwo.cli.train import Metric
    from thirtytwo.config.recipe import Monitor

    assert Metric == Monitor


def test_a_space_that_windows_wrote(tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_bytes("optimizer.lr = { low = 0.1, high = 0.2 }\r\n".encode("utf-8-sig"))
    assert list(spaces.read_space(tmp_path / "space.toml").axes) == ["optimizer.lr"]


@pytest.mark.long
def test_a_trial_that_needs_too_much_memory_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trials_module._fit_trial

    def fit(job: Any, *rest: Any) -> None:
        if job.number == 1:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        real(job, *rest)

    monkeypatch.setattr(trials_module, "_fit_trial", fit)
    tuned(tmp_path / "run")
    assert [row["outcome"] for row in table(tmp_path / "run")] == ["done", "failed", "done"]


def test_settings_that_end_the_process_each_time_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """What no code of the tuning handles."""

    tuned(tmp_path / "run", trials=1)
    real, tried = trials_module._fit_trial, []

    def fit(job: Any, *rest: Any) -> None:
        tried.append(job.sampled)
        if job.sampled == tried[0]:
            raise Killed
        real(job, *rest)

    monkeypatch.setattr(trials_module, "_fit_trial", fit)
    for _ in range(module.MOST_TRIES):
        with pytest.raises(Killed):
            tuned(tmp_path / "run", resume=True, trials=1)
    tuned(tmp_path / "run", resume=True, trials=1)
    assert tried[: module.MOST_TRIES] == [tried[0]] * module.MOST_TRIES
    assert tried[-1] != tried[0]
