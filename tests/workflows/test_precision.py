"""A precision that was timed is recorded, and used by everything that belongs to the run."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thirtytwo.config.resolve import read_recipe
from thirtytwo.rundir import RunDir
from thirtytwo.training.module import ClassifierModule
from thirtytwo.workflows.seeds import train_seeds
from thirtytwo.workflows.train import train
from thirtytwo.workflows.tune import tune

TIMED = re.compile(r"[\d.]+ ms in float32 and [\d.]+ ms in bfloat16")


@pytest.fixture(autouse=True)
def _with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)


@pytest.fixture
def how(tiny: SimpleNamespace) -> dict[str, Any]:
    overrides = {**tiny.overrides, "train.precision": "auto", "data.image_size": 16, "schedule.epochs": 2}
    return {"recipe": "digits", "overrides": overrides, "limit_train": 120, "device": "cpu", "show": False}


def precision_of(run: RunDir) -> dict[str, str]:
    (choice,) = [one for one in run.read_json(run.environment)["choices"] if one["what"] == "precision"]
    return choice


@pytest.mark.long
def test_recorded_and_kept_by_a_resumed_run(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: ClassifierModule, *_: Any) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    run = RunDir(tmp_path / "run")
    with monkeypatch.context() as stopping:
        stopping.setattr(ClassifierModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train("digits", run=run.path, **how)
    before = precision_of(run)
    assert TIMED.search(before["reason"])
    assert run.read_recipe().train.precision == before["value"]
    train("digits", run=run.path, resume=True, **how)  # the recipe named again, whose precision is open
    assert precision_of(run) == before
    assert run.read_recipe().train.precision == before["value"]


@pytest.mark.long
def test_a_cpu_without_bfloat16_times_nothing(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    run = RunDir(train("digits", run=tmp_path / "run", **how).path)
    assert precision_of(run)["value"] == run.read_recipe().train.precision == "float32"
    assert not TIMED.search(precision_of(run)["reason"])


@pytest.mark.long
def test_seeds_and_trials_share_it(how: dict[str, Any], tmp_path: Path) -> None:
    found = train_seeds("digits", seeds=[0, 1], run=tmp_path / "seeds", epochs=1, **how)
    first, second = (RunDir(run.path) for run in found.runs)
    assert TIMED.search(precision_of(first)["reason"])
    assert not TIMED.search(precision_of(second)["reason"])
    assert precision_of(first)["value"] == precision_of(second)["value"]
    where = tmp_path / "tuning"
    for resume in (False, True):
        tune("digits", run=where, trials=1, resume=resume, **how)
    recipes = sorted((where / "trials").glob("*/recipe.toml"))
    assert len(recipes) == 2
    assert len({read_recipe(path).train.precision for path in recipes}) == 1
