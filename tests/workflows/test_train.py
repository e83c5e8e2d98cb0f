"""The whole job at once: what it leaves behind, how it is repeated, stopped and resumed, and how it fails."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.recipe import read_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import (
    DataError,
    ExportError,
    OutputError,
    RecipeError,
    RunError,
    ThirtytwoError,
    UnknownNameError,
)
from thirtytwo.inference.model_file import read_info
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import Loop
from thirtytwo.workflows import Run, evaluate, report, train

METRICS = [
    "dataset",
    "split",
    "n",
    "accuracy",
    "accuracy_tta",
    "top5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "nll",
    "brier",
    "ece",
    "per_class",
    "confusions",
    "superclass_accuracy",
    "test_evaluations",
]
ENVIRONMENT = {
    "command",
    "started",
    "finished",
    "seconds",
    "versions",
    "hardware",
    "device",
    "parameters",
    "flops",
    "choices",
    "data",
    "peak_memory_mb",
    "peak_memory_measured",
    "sessions",
    "interrupted",
}
ARTEFACTS = {
    "recipe.toml",
    "environment.json",
    "split.json",
    "history.csv",
    "weights.safetensors",
    "class_means.safetensors",
    "checkpoints",
    "predictions-test.parquet",
    "predictions-val.parquet",
    "metrics.json",
    "model.onnx",
    "report.html",
    "figures",
    "README.md",
}
ROWS, HELD = 120, 13
"""Images trained on, and a tenth of both for validation."""
WORKING = importlib.import_module("thirtytwo.workflows.finish")


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def overrides(tiny: SimpleNamespace) -> dict[str, Any]:
    return {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 4}


@pytest.fixture(scope="module")
def finished(overrides: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on digits with everything on; left as it is."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    return train("digits", recipe="digits", overrides=overrides, run=path, limit_train=ROWS, show=False)


@pytest.fixture
def again(finished: Run, tmp_path: Path) -> RunDir:
    """A copy of that run, to do things with."""
    shutil.copytree(finished.path, tmp_path / "copy")
    return RunDir(tmp_path / "copy")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without report and card, which cost most of a small run."""
    monkeypatch.setattr(WORKING, "write_report", lambda run, pictures, **_: run.report.write_text("<html>"))
    monkeypatch.setattr(WORKING, "write_card", lambda run: None)


@pytest.fixture
def small(overrides: dict[str, Any], tmp_path: Path, no_report: None) -> Callable[..., Run]:
    """`small(run="name", …)` trains digits like `finished`, but without a report."""

    def small_train(*, data: str = "digits", run: str = "run", more: dict[str, Any] | None = None, **rest: Any) -> Run:
        settings = {"recipe": "digits", "limit_train": ROWS, "overrides": overrides | (more or {})} | rest
        return train(data, run=tmp_path / run, show=False, **settings)

    return small_train


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "weights.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def epochs(path: Path) -> list[dict[str, str]]:
    """History without what a clock says."""
    with (path / "history.csv").open(newline="") as file:
        return [
            {key: cell for key, cell in row.items() if key not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


def untouched(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key != "test_evaluations"}


# What a run leaves behind


def test_every_artefact(finished: Run) -> None:
    assert {path.name for path in finished.path.iterdir()} == ARTEFACTS
    assert [path.name for path in (finished.path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not [path for path in finished.path.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]
    assert len(epochs(finished.path)) == 4


def test_metrics_are_the_fixed_keys(finished: Run) -> None:
    metrics = json.loads((finished.path / "metrics.json").read_text())
    assert metrics == finished.metrics
    assert [key for key in metrics if key in METRICS] == METRICS
    assert set(metrics) - set(METRICS) == {"ece_bins", "mistake_severity", "calibration", "unknown"}
    assert (metrics["dataset"], metrics["split"], metrics["n"]) == ("digits", "test", 358)
    assert metrics["test_evaluations"] == 1
    assert metrics["superclass_accuracy"] is None
    for key in METRICS[3:12]:
        low, high = metrics[key]["ci95"]
        assert low <= metrics[key]["value"] <= high, key
    assert set(metrics["per_class"][0]) == {"class", "precision", "recall", "f1", "support"}
    assert set(metrics["confusions"][0]) == {"true", "predicted", "count"}


def test_figures_agree_with_the_predictions(finished: Run) -> None:
    run = RunDir(finished.path)
    test = run.read_predictions("test")
    digits = load_dataset("digits", image_size=16)
    assert digits.test is not None
    np.testing.assert_array_equal(test.truth, digits.test.labels)
    np.testing.assert_array_equal(test.rows, digits.test.rows)
    np.testing.assert_allclose(test.probabilities.sum(axis=1), 1, atol=1e-5)
    assert finished.metrics["accuracy"]["value"] == pytest.approx((test.predicted == test.truth).mean())
    info = read_info(run.onnx)
    assert info.accuracy == finished.metrics["accuracy"]["value"]
    assert info.dataset == "digits"
    assert info.unknown_threshold is not None
    assert info.unknown_score == "class_mean"
    said = thirtytwo.load(finished.path).predict(list(digits.test.images[:20]), top=1)
    assert [one.top for one in said] == [test.classes[number] for number in test.predicted[:20]]  # type: ignore[union-attr]


def test_unknown_is_what_training_called_unknown(finished: Run) -> None:
    """The threshold lies where the record says, and model.onnx finds the same pictures below it as training did."""
    record, run = finished.metrics["unknown"], RunDir(finished.path)
    info, digits = read_info(run.onnx), load_dataset("digits", image_size=16)
    assert digits.test is not None
    assert record["threshold"] == info.unknown_threshold
    assert record["validation"]["called_unknown"] == pytest.approx(1 / HELD), "the lowest of 13 is under 5 % of them"
    said = thirtytwo.load(run.path).predict(list(digits.test.images))
    unknown = sum(not one.known for one in said)  # type: ignore[union-attr]
    assert unknown / len(said) == pytest.approx(record["test"]["called_unknown"]["value"], abs=0.01)
    assert [row["name"] for row in record["against"]] == ["noise", "colours"], "digits are no strangers here"
    assert [row["name"] for row in record["skipped"]] == ["digits"]
    assert [row["n"] for row in record["against"]] == [1000, 1000]
    assert all(row["source"] for row in record["against"])
    for row in record["against"]:
        assert 0 <= row["fpr95"] <= 1
        assert 0.5 < row["auroc"] <= 1
    assert load_file(run.class_means)["class_means"].shape[0] == 10


def test_calibration_is_told_before_and_after(finished: Run) -> None:
    record = finished.metrics["calibration"]
    assert record["fitted_on"] == HELD
    assert record["after"]["ece"]["value"] == finished.metrics["ece"]["value"]
    assert record["after"]["nll"]["value"] == pytest.approx(finished.metrics["nll"]["value"])
    assert sum(record["before"]["bins"]["counts"]) == finished.metrics["n"]


def test_validation_is_apart_from_training(finished: Run) -> None:
    split = json.loads((finished.path / "split.json").read_text())
    assert (split["n_train"], split["n_val"]) == (ROWS, HELD)
    assert split["n_val"] == len(set(split["val_rows"]))
    assert split["train_on"] == "train"
    assert split["test_evaluations"] == 1
    val = RunDir(finished.path).read_predictions("val")
    assert val.rows.tolist() == split["val_rows"]
    parts = importlib.import_module("thirtytwo.data.parts")
    divided = parts.divide(load_dataset("digits", image_size=16), read_recipe(finished.path))
    assert divided.val.rows.tolist() == split["val_rows"]
    assert not set(split["val_rows"]) & set(divided.train.rows.tolist())
    assert len(divided.train) == split["n_train"]


def test_environment_is_complete(finished: Run) -> None:
    environment = json.loads((finished.path / "environment.json").read_text())
    assert set(environment) >= ENVIRONMENT
    assert environment["interrupted"] is False
    assert environment["command"].startswith("thirtytwo train digits --recipe digits --set ")
    assert environment["started"] < environment["finished"]
    assert 0 < environment["seconds"]["train"] <= environment["seconds"]["total"]
    assert {"thirtytwo", "torch", "lightning", "onnxruntime", "python"} <= set(environment["versions"])
    data = environment["data"]
    assert (data["spec"], data["train"], data["val"], data["test"]) == ("digits", ROWS, HELD, 358)
    assert all(set(choice) == {"what", "value", "reason"} for choice in environment["choices"])
    assert environment["parameters"] == sum(
        value.numel() for name, value in weights(finished.path).items() if not name.endswith(BUFFERS)
    )
    assert environment["flops"] > 1000


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def test_recipe_file_repeats_the_run(finished: Run, tmp_path: Path, no_report: None) -> None:
    repeated = train("digits", recipe=finished.path / "recipe.toml", run=tmp_path / "run", show=False)
    assert repeated.metrics == finished.metrics
    assert same_weights(repeated.path, finished.path)
    assert read_recipe(repeated.path) == read_recipe(finished.path)


def test_another_seed_is_another_run(finished: Run, small: Callable[..., Run]) -> None:
    other = small(seed=1, epochs=1)
    assert not same_weights(other.path, finished.path)
    ours, theirs = (json.loads((path / "split.json").read_text()) for path in (other.path, finished.path))
    assert ours["val_rows"] == theirs["val_rows"], "the split has a seed of its own"
    assert len(epochs(other.path)) == 1


# Scoring again


def test_evaluating_test_counts_the_touch(again: RunDir, finished: Run) -> None:
    before = again.report.stat().st_mtime_ns
    metrics = evaluate(again.path, show=False)
    assert metrics["test_evaluations"] == 2
    assert untouched(metrics) == untouched(finished.metrics), "with the averaged figure as it was measured before"
    assert again.read_json(again.metrics) == metrics
    assert again.read_json(again.split)["test_evaluations"] == 2
    assert again.report.stat().st_mtime_ns > before


def test_evaluating_validation_leaves_test_alone(again: RunDir, finished: Run) -> None:
    again.predictions("val").unlink()
    metrics = evaluate(again.path, split="val", tta=True, show=False)
    assert (metrics["split"], metrics["n"]) == ("val", HELD)
    assert metrics["accuracy_tta"] is not None
    assert again.read_predictions("val").rows.tolist() == again.read_json(again.split)["val_rows"]
    assert again.read_json(again.metrics) == finished.metrics
    assert again.read_json(again.split)["test_evaluations"] == 1


def coloured_folder(root: Path, classes: dict[str, tuple[int, int, int]], splits: dict[str, int]) -> Path:
    """`splits` pictures of each class, of several sizes, nearly of the class's colour."""
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for name, colour in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-30, 30, (20 + number, 24, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


COLOURS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (50, 50, 220)}


def test_other_data_with_other_classes(again: RunDir, finished: Run, tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "colours", COLOURS, {"train": 2, "test": 2})
    with pytest.raises(DataError, match="has classes the model was not trained on: blue, green, red"):
        evaluate(again.path, data=str(folder), show=False)
    assert again.read_json(again.metrics) == finished.metrics


def test_other_data_with_some_of_the_classes(again: RunDir, finished: Run, tmp_path: Path) -> None:
    digits = load_dataset("digits", image_size=16).test
    assert digits is not None
    for name in ("7", "3"):
        for split in ("train", "test"):
            (tmp_path / "digits" / split / name).mkdir(parents=True)
            for number in np.flatnonzero(digits.labels == int(name))[:6]:
                Image.fromarray(digits.images[number]).save(tmp_path / "digits" / split / name / f"{number}.png")
    metrics = evaluate(again.path, data=str(tmp_path / "digits"), show=False)
    assert metrics["n"] == 12
    told = again.read_predictions("digits-test")
    test = RunDir(finished.path).read_predictions("test")
    assert told.classes == test.classes, "in the model's order"
    for file, truth, row in zip(told.files or (), told.truth, told.probabilities, strict=True):
        assert file.split("/")[-2] == told.classes[truth]
        np.testing.assert_allclose(row, test.probabilities[int(Path(file).stem)], atol=1e-4)
    assert again.read_json(again.metrics) == finished.metrics
    assert again.read_json(again.split)["test_evaluations"] == 1


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("weights.safetensors", "has no weights.safetensors: its training did not finish."),
        ("model.onnx", "has no model.onnx: its training did not finish."),
        ("environment.json", "has no environment.json"),
        ("recipe.toml", "it has no recipe.toml"),
    ],
)
def test_evaluating_an_unfinished_run(missing: str, says: str, again: RunDir) -> None:
    (again.path / missing).unlink()
    with pytest.raises(RunError) as caught:
        evaluate(again.path, show=False)
    assert says in caught.value.message


def test_evaluating_damaged_weights(again: RunDir) -> None:
    again.weights.write_bytes(again.weights.read_bytes()[:500])
    with pytest.raises(RunError, match=r"weights\.safetensors does not fit the run's recipe or is damaged"):
        evaluate(again.path, show=False)


def test_report_again(again: RunDir) -> None:
    again.report.unlink()
    again.card.unlink()
    assert report(again.path) == again.report
    assert again.report.stat().st_size > 10_000
    assert again.card.is_file()


def test_report_for_others_has_no_pictures(again: RunDir, tmp_path: Path) -> None:
    before = again.report.read_bytes()
    page = tmp_path / "page.html"
    assert report(again.path, pictures=False, out=page) == page
    assert again.report.read_bytes() == before
    assert b"data:image" in before
    assert b"data:image" not in page.read_bytes()
    for named in (str(again.path), str(Path.cwd()), str(tmp_path)):
        assert named not in page.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="exists already"):
        report(again.path, out=page)
    assert report(again.path, out=page, force=True) == page
    assert page.stat().st_size > 10_000
    assert report(again.path, pictures=False) == again.report
    assert b"data:image" not in again.report.read_bytes()


# Training on everything


def test_all_of_train_takes_its_calibration_from_the_twin(small: Callable[..., Run], finished: Run) -> None:
    run = small(more={"data.train_on": "all", "data.calibrate_from": str(finished.path)}, epochs=1)
    split = json.loads((run.path / "split.json").read_text())
    assert (split["train_on"], split["n_train"], split["n_val"], split["val_rows"]) == ("all", ROWS, 0, [])
    ours, twins = read_info(run.path / "model.onnx"), read_info(finished.path / "model.onnx")
    borrowed = ("temperature", "curvature", "unknown_threshold")
    assert [getattr(ours, key) for key in borrowed] == [getattr(twins, key) for key in borrowed]
    assert not (run.path / "predictions-val.parquet").exists()
    assert "val_loss" not in RunDir(run.path).read_history()[0]
    with pytest.raises(DataError, match="was trained on all of digits, so no validation pictures are left"):
        evaluate(run.path, split="val", show=False)
    with pytest.raises(RecipeError, match="which held nothing out either"):
        small(run="other", more={"data.train_on": "all", "data.calibrate_from": str(run.path)})


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        ({"data.train_on": "all"}, RecipeError, "name that run in data.calibrate_from"),
        ({"data.train_on": "all", "data.calibrate_from": "none"}, RunError, "There is no run directory 'none'"),
        ({"model.name": "fastnett"}, UnknownNameError, "Unknown model 'fastnett'. Did you mean 'fastnet' or"),
        ({"model.options": {"group": []}}, RecipeError, "Did you mean 'groups'?"),
        ({"schedule.epoch": 3}, RecipeError, "Did you mean 'epochs'?"),
        ({"data.image_size": 8, "model.options": {}}, RecipeError, "Pictures of 8×8 pixels are too small"),
        (
            {"model.options": {}, "schedule.resolution": [{"size": 8, "until": 0.5}]},
            RecipeError,
            "Pictures of 8×8 pixels are too small",
        ),
        ({"train.precision": "float16"}, RecipeError, "float16"),
        ({"data.limit_train": 5}, DataError, "5 images cannot cover 10 classes"),
    ],
)
def test_refused_before_anything_is_written(
    more: dict[str, Any], kind: type[ThirtytwoError], says: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        train("digits", recipe="digits", overrides=overrides | more, run=tmp_path / "run", device="cpu", show=False)
    assert says in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_twin_of_other_data(finished: Run, overrides: dict[str, Any], tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "colours", COLOURS, {"train": 4, "test": 2})
    more = {"data.train_on": "all", "data.calibrate_from": str(finished.path)}
    with pytest.raises(RecipeError, match="names a run on digits with other classes than colours"):
        train(str(folder), recipe="digits", overrides=overrides | more, run=tmp_path / "run", show=False)


# Where a run goes


def test_directory_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run_command(["train", "no-such-data", "--run", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"thirtytwo: {tmp_path} exists and is not empty. "
        "Continue that run with --resume, or choose another directory with --run.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_directory_of_its_own(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = importlib.import_module("thirtytwo.workflows.records")
    monkeypatch.chdir(tmp_path)
    path = parts.default_path("data/my pets", "recipes/own.toml", 3)
    assert path == Path("runs/my-pets-own-seed3")
    with RunDir.begun(None, path) as run:
        assert run.path == path
        run.card.write_text("mine")
    with RunDir.begun(None, path) as run:
        assert run.path == Path("runs/my-pets-own-seed3-2")


# Going on


def test_resuming_a_finished_run_changes_nothing(again: RunDir, finished: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in again.path.rglob("*")}
    run = train("digits", run=again.path, resume=True, show=False)
    assert run.metrics == finished.metrics
    assert {path: path.stat().st_mtime_ns for path in again.path.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seed": 5}, "seed (was 0, now 5)"),
        ({"epochs": 9}, "schedule.epochs (was 4, now 9)"),
        ({"overrides": {"augment.cutout": 4}}, "augment.cutout (was 0, now 4)"),
        ({"recipe": "digits"}, "schedule.batch_size (was 16, now "),
    ],
)
def test_resuming_with_another_recipe(arguments: dict[str, Any], says: str, again: RunDir) -> None:
    again.report.unlink()
    with pytest.raises(RunError, match="was begun with another recipe") as caught:
        train("digits", run=again.path, resume=True, show=False, **arguments)
    assert says in str(caught.value)


def test_resuming_with_other_data(again: RunDir, tmp_path: Path) -> None:
    again.report.unlink()
    folder = coloured_folder(tmp_path / "colours", COLOURS, {"train": 40, "test": 2})
    with pytest.raises(RunError, match="was begun on other data: .*'digits'") as caught:
        train(str(folder), run=again.path, resume=True, show=False)
    assert str(folder) in caught.value.message


def test_resuming_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run directory"):
        train("digits", run=tmp_path / "none", resume=True, show=False)


def test_resuming_what_had_hardly_begun(again: RunDir, finished: Run, no_report: None) -> None:
    for path in again.path.iterdir():
        if path.name != "recipe.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = train("digits", run=again.path, resume=True, show=False)
    assert run.metrics == finished.metrics
    assert same_weights(run.path, finished.path)
    assert again.read_json(again.split) == RunDir(finished.path).read_json(finished.path / "split.json")


MODULE = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background ignore it, and so would this
runpy.run_module("thirtytwo", run_name="__main__", alter_sys=True)
"""
"""What `python -m thirtytwo` does."""


class Started:
    """`thirtytwo train digits …` as a process of its own."""

    def __init__(self, path: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", MODULE, "train", "digits", "--run", str(path), *arguments]
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self._old = self._written()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def _written(self) -> int | None:
        return self.checkpoint.stat().st_mtime_ns if self.checkpoint.exists() else None

    def stopped_by(self, which: signal.Signals) -> tuple[int, str]:
        """Exit code and stderr when `which` is sent as soon as an epoch is kept."""
        end = time.monotonic() + 240
        while self._written() == self._old and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        assert self.process.poll() is None, self.process.communicate()
        self.process.send_signal(which)
        _, err = self.process.communicate(timeout=240)
        return self.process.returncode, err


def test_stopped_by_ctrl_c_and_killed_and_resumed(
    overrides: dict[str, Any], tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    longer = overrides | {"schedule.batch_size": 4, "schedule.epochs": 6, "augment.cutout": 3}
    settings = [word for key, value in longer.items() for word in ("--set", f"{key}={toml(value)}")]
    code, err = Started(path, "--recipe", "digits", "--limit-train", "300", *settings).stopped_by(signal.SIGINT)
    assert code == 130, err
    assert f"Go on with: thirtytwo train digits --resume --run {path}" in err
    assert "Traceback" not in err
    stopped = len(epochs(path))
    assert 1 <= stopped < 6

    code, err = Started(path, "--resume").stopped_by(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert stopped < len(epochs(path)) < 6
    assert not (path / "weights.safetensors").exists()

    assert run_command(["train", "digits", "--resume", "--run", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    straight = train(
        "digits", recipe="digits", overrides=longer, limit_train=300, run=tmp_path / "straight", show=False
    )
    assert same_weights(path, straight.path)
    assert epochs(path) == epochs(straight.path)
    assert json.loads((path / "metrics.json").read_text()) == straight.metrics
    begun = json.loads((path / "environment.json").read_text())
    assert "--recipe digits" in begun["command"], "the command that began it"
    assert not begun["interrupted"]


def toml(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


# Other data


def test_a_folder_of_pictures(small: Callable[..., Run], tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "colours", COLOURS, {"train": 20, "test": 4})
    (folder / "train" / "red" / "Thumbs.db").write_bytes(b"junk")
    run = small(data=str(folder), limit_train=30, more={"data.image_size": "auto", "schedule.batch_size": 8})
    assert run.metrics["dataset"] == "colours"
    assert run.metrics["top5_accuracy"] is None
    assert run.metrics["accuracy"]["value"] > 0.9
    told = RunDir(run.path).read_predictions("test")
    assert told.classes == ("blue", "green", "red")
    assert told.files is not None
    assert "test/blue/0.png" in told.files
    environment = json.loads((run.path / "environment.json").read_text())
    assert (environment["data"]["train"], environment["data"]["val"]) == (30, 3)
    assert any("Thumbs.db" in name for name in environment["data"]["skipped"])
    (said,) = thirtytwo.load(run.path).predict(folder / "test" / "green" / "1.png")
    assert said.top == "green"  # type: ignore[union-attr]
    assert evaluate(run.path, split="val", show=False)["n"] == 3


def test_a_folder_with_its_own_validation(small: Callable[..., Run], tmp_path: Path) -> None:
    folder = coloured_folder(tmp_path / "colours", COLOURS, {"train": 8, "val": 3, "test": 2})
    run = small(data=str(folder), limit_train=None, epochs=1, more={"schedule.batch_size": 500})
    split = json.loads((run.path / "split.json").read_text())
    assert (split["n_train"], split["n_val"]) == (24, 9)
    assert read_recipe(run.path).schedule.batch_size == 24
    choices = json.loads((run.path / "environment.json").read_text())["choices"]
    assert {"what": "batch size", "value": "24", "reason": "there are only 24 training pictures"} in choices


# When something goes wrong


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("size", "artefact"), [(100, "recipe.toml"), (60_000, "last.ckpt")])
def test_full_disk(
    size: int, artefact: str, overrides: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    settings = [word for key, value in overrides.items() for word in ("--set", f"{key}={toml(value)}")]
    arguments = ["train", "digits", "--recipe", "digits", "--limit-train", "60", "--epochs", "1", "--run", str(path)]
    with largest_file(size):
        code = run_command([*arguments, *settings])
    told = capsys.readouterr().err.splitlines()[-1]
    assert code == 2, told
    file = rf"{re.escape(str(path))}/(checkpoints/)?({artefact})"
    assert re.fullmatch(rf"thirtytwo: {file} could not be written: File too large\. .*", told)
    assert not list(path.rglob(".*")), "nothing half-written"


@pytest.mark.parametrize(("step", "artefact"), [("save_weights", "weights.safetensors"), ("export_onnx", "model.onnx")])
def test_full_disk_later_and_resumed(
    step: str, artefact: str, small: Callable[..., Run], finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = getattr(WORKING, step)

    def cramped(*arguments: Any) -> None:
        with largest_file(1000):
            plain(*arguments)

    with monkeypatch.context() as full:
        full.setattr(WORKING, step, cramped)
        with pytest.raises(OutputError, match=rf"run/{artefact} could not be written: File too large\."):
            small()
    assert not list((tmp_path / "run").rglob(".*")), "nothing half-written"
    run = small(resume=True)
    assert untouched(run.metrics) == untouched(finished.metrics)
    looks = 2 if step == "export_onnx" else 1
    assert run.metrics["test_evaluations"] == looks, "a second look at test is said"


def test_diverged(small: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ThirtytwoError, match="Training diverged") as caught:
        small(more={"optimizer.lr_head": 1e30, "optimizer.lr_rest": 1e30})
    assert caught.value.fix
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_export_that_disagrees_leaves_no_model(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing = importlib.import_module("thirtytwo.workflows.finish")
    export = finishing.export_onnx

    def damaged(net: Any, info: Any, path: Path, means: Any) -> None:
        """The file of a network with other features; its known_score alone is moved out of its place."""
        export(net, info, path, np.roll(means, 1, axis=1))

    monkeypatch.setattr(finishing, "export_onnx", damaged)
    with pytest.raises(ExportError, match="known_score"):
        small(epochs=1)
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_ctrl_c_in_python(small: Callable[..., Run], finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Loop, *_: Any) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(Loop, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            small()
    assert len(epochs(finished.path)) == 4
    run = small(resume=True)
    assert same_weights(run.path, finished.path)
    assert run.metrics == finished.metrics
    assert os.fspath(run.path).endswith("run")
