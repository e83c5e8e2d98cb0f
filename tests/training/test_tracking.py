"""Experiment trackers: nothing by default, names of the run's files, and no training that ends because of one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers.logger import Logger

import thirtytwo
from thirtytwo.errors import MissingExtraError, OutputError, RecipeError
from thirtytwo.rundir import RunDir
from thirtytwo.training.tracking import Trackers, tracked


class Stub(Logger):
    """A tracker that keeps what it is given, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails, self.values, self.status = fails, [], ""  # type: ignore[var-annotated]

    @property
    def name(self) -> str:
        return "stub"

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.fails:
            raise ConnectionError("the server is gone\nsecond line")
        self.values.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def finalize(self, status: str) -> None:
        self.status = status


def test_metrics_have_the_names_of_their_file() -> None:
    stub = Stub()
    score = {"value": 0.5, "ci95": [0.4, 0.6]}
    content = {"split": "test", "n": 9, "accuracy": score, "accuracy_tta": None, "ece": {"value": None, "ci95": None}}
    trackers = Trackers({"mlflow": stub})
    trackers.log_metrics(content, 7)
    trackers.close("success")
    assert stub.values == [(7, {"test_accuracy": 0.5})]
    assert stub.status == "success"


def test_a_tracker_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    working, broken = Stub(), Stub(fails=True)
    trackers = Trackers({"mlflow": broken, "tensorboard": working})
    with caplog.at_level(logging.WARNING):
        trackers.log({"val_loss": 1.0}, 1)
        trackers.log({"val_loss": 0.5}, 2)
    assert caplog.messages == ["nothing more is logged to mlflow: the server is gone"]
    assert working.values == [(1, {"val_loss": 1.0}), (2, {"val_loss": 0.5})]


def test_unknown_tracker(tiny: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.log"):
        thirtytwo.train(str(tiny.folder(tmp_path / "set", 12)), recipe="fast", overrides={"train.log": ["neptune"]})


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_missing_library_is_named_before_the_data_is_read(
    name: str, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    data = str(tiny.folder(tmp_path / "set", 12))
    with pytest.raises(MissingExtraError) as caught:
        thirtytwo.train(data, recipe="fast", overrides={"train.log": [name]}, run=tmp_path / "run", show=False)
    assert 'pip install "thirtytwo[track]"' in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_mlflow(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/store.db")
    overrides = tiny.overrides | {"train.log": ["mlflow"], "schedule.epochs": 2}
    done = thirtytwo.train(str(tiny.folder(tmp_path / "set", 60)), recipe="fast", overrides=overrides, show=False)
    run = RunDir(done.path)
    entry = run.read_json(run.tracking)["mlflow"]
    stored = mlflow.MlflowClient(entry["uri"]).get_run(entry["run_id"])
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == done.path.name
    assert stored.data.params["schedule.epochs"] == "2"
    assert stored.data.metrics["test_accuracy"] == pytest.approx(done.metrics["accuracy"]["value"])
    steps = mlflow.MlflowClient(entry["uri"]).get_metric_history(entry["run_id"], "val_loss")
    assert [one.step for one in steps] == [row["step"] for row in run.read_history()]
    with tracked(run.read_recipe(), run) as again:
        again.log({"val_loss": 0.0}, 99)
    assert run.read_json(run.tracking)["mlflow"] == entry


@pytest.mark.long
def test_wandb_is_offline_by_default(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = RunDir.create(tmp_path / "run")
    recipe = tiny.recipe(train__log=["wandb"])
    with tracked(recipe, run) as trackers:
        trackers.log({"val_loss": 1.0}, 1)
    known = run.read_json(run.tracking)["wandb"]["id"]
    (stored,) = (run.path / "wandb").glob(f"offline-run-*-{known}")
    assert any(stored.glob("*.wandb"))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(OutputError), tracked(recipe, run):
        pass
