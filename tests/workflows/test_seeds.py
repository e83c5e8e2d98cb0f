"""Several seeds of one recipe: what is written, what is gone on with, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import ArgumentError, RecipeError, RunError
from thirtytwo.report.seeds import summary_text
from thirtytwo.rundir import RunDir
from thirtytwo.text import percent

seeds = pytest.importorskip("thirtytwo.workflows.seeds")
series = pytest.importorskip("thirtytwo.workflows.series")


class Training:
    """Stands in for `train`: writes a finished run at once, or stops at a given seed."""

    def __init__(self, finished_run: Callable[..., Path]) -> None:
        self.finished_run = finished_run
        self.calls: list[tuple[str, bool]] = []
        self.stops_at: int | None = None

    def __call__(self, data: str, *, run: Path, resume: bool = False, **settings: Any) -> Any:
        self.calls.append((run.name, resume))
        directory = RunDir(run)
        seed = int(run.name.removeprefix("seed"))
        if resume and directory.metrics.is_file():
            return seeds.Run(run, directory.read_json(directory.metrics))
        if resume:
            epochs = directory.read_recipe().schedule.epochs
            directory.recipe.unlink()
        else:
            assert settings["seed"] == seed
            epochs = settings["overrides"].get("schedule.epochs", 8)
        schedule = {"epochs": epochs}
        if self.stops_at == seed:
            recipe = {"name": "fast", "model": {"name": "fastnet"}, "schedule": schedule}
            directory.write_recipe(Recipe.model_validate(recipe))
            raise KeyboardInterrupt
        self.finished_run(run, seed=seed, settings={"schedule": schedule})
        return seeds.Run(run, directory.read_json(directory.metrics))


@pytest.fixture
def training(finished_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Training:
    stand_in = Training(finished_run)
    monkeypatch.setattr(series, "train", stand_in)
    monkeypatch.chdir(tmp_path)
    return stand_in


def test_every_seed_is_a_run_and_summary_has_mean_std_and_n(training: Training) -> None:
    found = seeds.train_seeds("colours", recipe="fast", seeds=[0, 2, 5], show=False)
    assert found.path == Path("runs/colours-fast-seeds")
    assert sorted(path.name for path in found.path.iterdir()) == [
        "seed0",
        "seed2",
        "seed5",
        "summary.json",
        "summary.md",
    ]
    assert json.loads((found.path / "summary.json").read_text()) == found.summary
    values = [run.metrics["accuracy"]["value"] for run in found.runs]
    assert len(set(values)) > 1
    accuracy = found.summary["figures"]["accuracy"]
    assert (accuracy["mean"], accuracy["std"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (accuracy["n"], accuracy["min"], accuracy["max"]) == (3, min(values), max(values))
    assert found.summary["seconds_train"]["mean"] == pytest.approx(102 + 1 / 3)
    text = (found.path / "summary.md").read_text()
    assert f"| Accuracy | {percent(np.mean(values))} | {percent(np.std(values, ddof=1), 2)} | 3 |" in text
    assert "| seed5 |" in text


def test_names_are_escaped_in_the_summary() -> None:
    run = {"directory": "a|b*c*", "seed": 0, "accuracy": 0.5, "accuracy_ci95": [0.4, 0.6], "seconds_train": 1.0}
    content = {"data": "<b>_x_", "asked": {}, "planned": [0], "split": "test", "runs": [run], "figures": {}}
    text = summary_text(content)
    assert text.startswith(r"# &lt;b&gt;\_x\_, recipe chosen by the data: 1 seed")
    assert r"| a\|b\*c\* |" in text


def test_second_call_without_run_uses_a_new_directory(training: Training) -> None:
    first, second = (seeds.train_seeds("colours", recipe="fast", seeds=[0], show=False) for _ in range(2))
    assert second.path == first.path.with_name(first.path.name + "-2")
    assert first.summary["figures"]["accuracy"]["std"] is None


def test_interrupted_seeds_resume(training: Training) -> None:
    training.stops_at = 1
    with pytest.raises(KeyboardInterrupt):
        seeds.train_seeds("colours", seeds=[0, 1, 2], run="both", epochs=3, show=False)
    left = json.loads(Path("both/summary.json").read_text())
    assert [run["seed"] for run in left["runs"]] == [0]
    assert left["planned"] == [0, 1, 2]
    assert "Not finished yet: seed 1, 2." in Path("both/summary.md").read_text()
    training.stops_at, training.calls = None, []
    found = seeds.train_seeds("colours", run="both", resume=True, show=False)
    assert training.calls == [("seed0", True), ("seed1", True), ("seed2", False)]
    assert {RunDir(run.path).read_recipe().schedule.epochs for run in found.runs} == {3}
    assert found.summary["figures"]["accuracy"]["n"] == 3
    assert "Not finished" not in Path("both/summary.md").read_text()


def test_runs_of_another_recipe_are_refused(training: Training, finished_run: Callable[..., Path]) -> None:
    seeds.train_seeds("colours", seeds=[0], run="both", show=False)
    finished_run(Path("both/seed1"), seed=1, settings={"schedule": {"epochs": 99}})
    with pytest.raises(RunError, match=r"both/seed1 .* recipe .*both/seed0"):
        seeds.train_seeds("colours", seeds=[1], run="both", resume=True, show=False)


def test_resuming_adds_seeds_with_the_original_settings(training: Training) -> None:
    seeds.train_seeds("colours", seeds=[0], run="both", epochs=3, show=False)
    training.calls = []
    found = seeds.train_seeds("colours", seeds=[0, 4], run="both", resume=True, show=False)
    assert training.calls == [("seed0", True), ("seed4", False)]
    assert found.summary["planned"] == [0, 4]
    assert {RunDir(run.path).read_recipe().schedule.epochs for run in found.runs} == {3}


def test_killed_before_the_first_summary(training: Training) -> None:
    seeds.train_seeds("colours", seeds=[0], run="both", show=False)
    Path("both/summary.json").unlink()
    found = seeds.train_seeds("colours", seeds=[0, 1], run="both", resume=True, show=False)
    assert [run["seed"] for run in found.summary["runs"]] == [0, 1]


@pytest.mark.parametrize(
    ("settings", "kind", "named"),
    [
        ({"seeds": []}, RecipeError, "seeds"),
        ({"seeds": [0, 1, 0]}, RecipeError, "Seed 0"),
        ({"seeds": [0, -1]}, ArgumentError, "seed must be at least 0; found -1"),
        ({"seeds": [0, 1.5]}, ArgumentError, "seed must be an integer of at least 0; found 1.5"),
        ({"seeds": [0, None]}, ArgumentError, "seeds must be integers, such as [0, 1, 2]; found [0, None]"),
        ({"seeds": 5}, ArgumentError, "seeds must be integers, such as [0, 1, 2]; found 5"),
        ({"seeds": "12"}, ArgumentError, "seed must be an integer of at least 0; found '1'"),
        ({"seeds": [0], "overrides": {"seed": 3}}, RecipeError, "'seed'"),
        ({"seeds": [0], "run": "full"}, RunError, "full "),
        ({"seeds": [0], "resume": True}, RunError, "--run"),
        ({"seeds": [0], "resume": True, "run": "none"}, RunError, "none "),
        ({"resume": True, "run": "full"}, RunError, "full "),
        ({"resume": True, "run": "one"}, RunError, "one "),
        ({"resume": True, "run": "several", "epochs": 9}, RunError, "schedule.epochs (was None, now 9)"),
        ({"resume": True, "run": "several", "recipe": "digits"}, RunError, "recipe (was None, now 'digits')"),
    ],
)
def test_invalid_arguments_are_refused_before_training(
    settings: dict[str, Any], kind: type[Exception], named: str, training: Training, finished_run: Callable[..., Path]
) -> None:
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("mine")
    finished_run(Path("one"))
    seeds.train_seeds("colours", seeds=[0], run="several", show=False)
    training.calls = []
    with pytest.raises(kind) as caught:
        seeds.train_seeds("colours", show=False, **settings)
    assert named in str(caught.value)
    assert training.calls == []


def test_other_data_is_refused(training: Training) -> None:
    seeds.train_seeds("colours", seeds=[0], run="several", show=False)
    with pytest.raises(RunError, match=r"data \(was 'colours', now 'shapes'\)") as caught:
        seeds.train_seeds("shapes", run="several", resume=True, show=False)
    assert (caught.value.fix or "").endswith(": thirtytwo train colours --resume --run several")


@pytest.mark.parametrize("content", ["{", "[]", '{"data": "colours"}'])
def test_damaged_summary_is_named(content: str, training: Training) -> None:
    seeds.train_seeds("colours", seeds=[0], run="several", show=False)
    Path("several/summary.json").write_text(content)
    with pytest.raises(RunError, match=r"summary\.json"):
        seeds.train_seeds("colours", run="several", resume=True, show=False)


def test_directory_of_seeds_is_not_a_run(training: Training) -> None:
    seeds.train_seeds("colours", seeds=[0, 1], run="several", show=False)
    with pytest.raises(RunError, match="several "):
        RunDir.open("several")


@pytest.mark.long
def test_seeds_are_really_trained(tmp_path: Path) -> None:
    """Two seeds differ; one that is trained again by itself is the same."""
    import thirtytwo

    how: dict[str, Any] = {"recipe": "digits", "epochs": 1, "device": "cpu", "limit_train": 300, "show": False}
    found = thirtytwo.train_seeds("digits", seeds=[0, 1], run=tmp_path / "several", **how)
    alone = thirtytwo.train("digits", seed=1, run=tmp_path / "alone", **how)
    first, second = (RunDir(run.path).weights.read_bytes() for run in found.runs)
    assert first != second
    assert RunDir(alone.path).weights.read_bytes() == second
    compared = thirtytwo.compare([tmp_path / "several"], out=tmp_path / "out")
    assert [group.statistics["accuracy"].n for group in compared.groups] == [2]
    assert compared.images is not None
