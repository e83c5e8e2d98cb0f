"""What validation was used to choose is stated beside everything that is calibrated on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.report.run_record import typed_commands
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.ensemble import ensemble
from thirtytwo.workflows.provenance import selections
from thirtytwo.workflows.train import train


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []),
        ({"train__keep": "best"}, ["train.keep"]),
        ({"train__patience": 3}, ["train.patience"]),
        ({"schedule__name": "plateau"}, ["schedule.name"]),
        ({"train__keep": "best", "data__train_on": "all"}, []),
        ({"train__keep": "best", "train__patience": 3}, ["train.keep", "train.patience"]),
    ],
)
def test_choices_of_a_recipe(changes: dict[str, Any], keys: list[str], tiny: SimpleNamespace) -> None:
    found = selections(tiny.recipe(**changes), {})
    assert len(found) == len(keys)
    assert all(key in what for key, what in zip(keys, found, strict=True))


def test_tuning_counts_as_a_choice(tiny: SimpleNamespace) -> None:
    (found,) = selections(tiny.recipe().model_copy(update={"name": "fast-tuned"}), {})
    assert "tune" in found


def test_choices_of_other_runs_count(finished_run: Callable[..., Path], tmp_path: Path, tiny: SimpleNamespace) -> None:
    best = finished_run(tmp_path / "best", settings={"train": {"keep": "best"}})
    here = {"data": {"fingerprint": "abc"}}
    assert selections(tiny.recipe(transfer__pretrained=str(best)), here)
    assert selections(tiny.recipe(train__distill__run=str(best)), here)
    assert selections(tiny.recipe(data__train_on="all", data__calibrate_from=str(best)), here)
    assert not selections(tiny.recipe(transfer__pretrained=str(best)), {"data": {"fingerprint": "other"}})
    assert not selections(tiny.recipe(transfer__pretrained=str(tmp_path / "gone")), here)
    soup = here | {"members": [{"run": str(best)}], "choices": [{"what": "soup", "value": "", "reason": ""}]}
    assert len(selections(tiny.recipe(), soup)) == 2


@pytest.fixture(scope="module")
def runs(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    place = tmp_path_factory.mktemp("runs")

    def trained(keep: str) -> RunDir:
        changes = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 2, "train.keep": keep}
        how = {"recipe": "digits", "overrides": changes, "limit_train": 200, "device": "cpu", "show": False}
        return RunDir(train("digits", run=place / keep, **how).path)

    return {keep: trained(keep) for keep in ("best", "last")}


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "last"])
def test_choices_are_recorded_and_shown(keep: str, runs: dict[str, RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    run, chose = runs[keep], keep == "best"
    assert run_command(["evaluate", str(run.path), "--coverage", "0.8", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    page, card = run.report.read_text(encoding="utf-8"), run.card.read_text(encoding="utf-8")
    for entry in ("calibration", "conformal"):
        assert metrics[entry]["selected_on_validation"] is chose
        assert bool(metrics[entry]["validation_chose"]) is chose
    for text in (out, page, card):
        assert ("(train.keep)" in text) is chose
        assert "temperature and curvature" in text, "temperature is fitted on them in any case"
    assert run_command(["evaluate", str(run.path), "--split", "val", "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "optimistic" in err
    assert ("(train.keep)" in err) is chose


@pytest.mark.long
def test_choices_of_members_count_for_an_ensemble(runs: dict[str, RunDir], tmp_path: Path) -> None:
    members = [run.path for run in runs.values()]
    record = ensemble(members, run=tmp_path / "both", device="cpu", show=False).metrics["calibration"]
    assert record["selected_on_validation"] is True
    (what,) = record["validation_chose"]
    assert "train.keep" in what


def test_a_run_at_the_place_of_one_that_it_was_made_from(finished_run: Callable[..., Path], tmp_path: Path) -> None:
    """As after `mv runs/model old; mv runs/next runs/model`, where `runs/next` started from `runs/model`."""
    run = RunDir(finished_run(tmp_path / "model"))
    recipe = run.read_recipe()
    run.write_recipe(
        recipe.model_copy(update={"transfer": recipe.transfer.model_copy(update={"pretrained": str(run.path)})})
    )
    environment = run.read_json(run.environment)
    assert selections(run.read_recipe(), environment) == selections(recipe, environment)
    run.write_json(run.environment, environment | {"command": "thirtytwo train data"})
    assert typed_commands(run) == ["thirtytwo train data"]
