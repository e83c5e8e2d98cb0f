"""Training from start to end: its files, repeating, interrupting, resuming, and failures."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import resource
import shlex
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
from thirtytwo.config.resolve import read_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.errors import (
    DataError,
    DivergedError,
    ExportError,
    OutputError,
    RecipeError,
    RunError,
)
from thirtytwo.inference.model_file import read_info
from thirtytwo.run_paths import default_path
from thirtytwo.rundir import RunDir
from thirtytwo.training.module import ClassifierModule
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.report import write_report
from thirtytwo.workflows.train import train

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
ROWS, HELD = 180, 20
"""Images trained on, and a tenth of both for validation."""
WORKING = importlib.import_module("thirtytwo.workflows.finish")
PAGES = importlib.import_module("thirtytwo.workflows.report")


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
    monkeypatch.setattr(PAGES, "write_page", lambda run, images, **_: run.report.write_text("<html>"))
    monkeypatch.setattr(PAGES, "write_card", lambda run, record: None)


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


# Files of a run


def test_all_files_are_written(finished: Run) -> None:
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


def test_metrics_agree_with_the_predictions(finished: Run) -> None:
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
    found = thirtytwo.load(finished.path).predict(list(digits.test.images[:20]), top=1)
    assert [one.top for one in found] == [test.classes[number] for number in test.predicted[:20]]  # type: ignore[union-attr]


def test_threshold_for_unknown_agrees_with_the_model_file(finished: Run) -> None:
    """The threshold lies where the record says, and model.onnx finds the same images below it as training did."""
    record, run = finished.metrics["unknown"], RunDir(finished.path)
    info, digits = read_info(run.onnx), load_dataset("digits", image_size=16)
    assert digits.test is not None
    assert record["threshold"] == info.unknown_threshold
    assert record["validation"]["called_unknown"] == pytest.approx(1 / HELD), "the lowest of 20 is under 5 % of them"
    found = thirtytwo.load(run.path).predict(list(digits.test.images))
    unknown = sum(not one.known for one in found)  # type: ignore[union-attr]
    assert unknown / len(found) == pytest.approx(record["test"]["called_unknown"]["value"], abs=0.01)
    assert [row["name"] for row in record["against"]] == ["noise", "colours"], "digits are the training data"
    assert [row["name"] for row in record["skipped"]] == ["digits"]
    assert [row["n"] for row in record["against"]] == [1000, 1000]
    assert all(row["source"] for row in record["against"])
    for row in record["against"]:
        assert 0 <= row["fpr95"] <= 1
        assert 0.5 < row["auroc"] <= 1
    assert load_file(run.class_means)["class_means"].shape[0] == 10


@pytest.mark.long
def test_calibration_is_recorded_before_and_after(finished: Run) -> None:
    record = finished.metrics["calibration"]
    assert record["fitted_on"] == HELD
    assert record["after"]["ece"]["value"] == finished.metrics["ece"]["value"]
    assert record["after"]["nll"]["value"] == pytest.approx(finished.metrics["nll"]["value"])
    assert sum(record["before"]["bins"]["counts"]) == finished.metrics["n"]


def test_few_validation_images_calibrate_nothing(
    overrides: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A temperature and a threshold from a dozen images would be chance; the run says that there are none."""
    how = {"overrides": overrides, "limit_train": 120, "epochs": 1}
    run = train("digits", recipe="digits", run=tmp_path / "run", **how)
    record, info = RunDir(run.path), read_info(run.path / "model.onnx")
    assert record.read_json(record.split)["n_val"] == 13
    assert (info.temperature, info.curvature, info.unknown_threshold) == (1.0, 0.0, None)
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    assert all(one.known for one in thirtytwo.load(run.path).predict(list(noise)))  # type: ignore[union-attr]
    assert run.metrics["calibration"]["fitted_on"] == 0
    assert "temperature_only" not in run.metrics["calibration"]
    assert run.metrics["unknown"] is None
    for text in (capsys.readouterr().err, record.report.read_text(), record.card.read_text()):
        words = text.replace("\u00a0", " ")
        assert "13 validation images" in words
        assert "not calibrated" in words
    assert "Hold out at least 20" in record.report.read_text()
    assert "calibrated probabilities" not in record.card.read_text()
    with pytest.raises(RunError, match="20 validation images"):
        evaluate(run.path, ood=["digits"], show=False)


def test_validation_is_separate_from_training(finished: Run) -> None:
    split = json.loads((finished.path / "split.json").read_text())
    assert (split["n_train"], split["n_val"]) == (ROWS, HELD)
    assert split["n_val"] == len(set(split["val_rows"]))
    assert split["train_on"] == "train"
    assert split["test_evaluations"] == 1
    val = RunDir(finished.path).read_predictions("val")
    assert val.rows.tolist() == split["val_rows"]
    parts = importlib.import_module("thirtytwo.data.split")
    divided = parts.divide(load_dataset("digits", image_size=16), read_recipe(finished.path))
    assert divided.val.rows.tolist() == split["val_rows"]
    assert not set(split["val_rows"]) & set(divided.train.rows.tolist())
    assert len(divided.train) == split["n_train"]


def test_predicting_with_all_views_gives_the_accuracy_with_them(finished: Run) -> None:
    classifier, run = thirtytwo.load(finished.path), RunDir(finished.path)
    test = importlib.import_module("thirtytwo.data.run_data").load_run_data(run).parts.test
    found = classifier.classify(test.images, top=1, tta="all")
    right = [result.top == test.classes[label] for result, label in zip(found, test.labels, strict=True)]
    assert np.mean(right) == pytest.approx(finished.metrics["accuracy_tta"]["value"], abs=1.5 / len(test))
    assert classifier.info.tta is not None
    assert classifier.info.tta.shift == run.read_recipe().evaluate.tta_shift
    val = importlib.import_module("thirtytwo.data.run_data").load_run_data(run).parts.val
    single, full = (
        sum(
            one.top == val.classes[label]
            for one, label in zip(classifier.classify(val.images, tta=tta), val.labels, strict=True)
        )
        for tta in ("off", "all")
    )
    assert (classifier.info.tta.threshold > 0.1) == (full >= single)


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


@pytest.mark.long
def test_recipe_file_repeats_the_run(finished: Run, tmp_path: Path, no_report: None) -> None:
    repeated = train("digits", recipe=finished.path / "recipe.toml", run=tmp_path / "run", show=False)
    assert repeated.metrics == finished.metrics
    assert same_weights(repeated.path, finished.path)
    assert read_recipe(repeated.path) == read_recipe(finished.path)


@pytest.mark.long
def test_another_seed_is_another_run(finished: Run, small: Callable[..., Run]) -> None:
    other = small(seed=1, epochs=1)
    assert not same_weights(other.path, finished.path)
    ours, theirs = (json.loads((path / "split.json").read_text()) for path in (other.path, finished.path))
    assert ours["val_rows"] == theirs["val_rows"], "the split has a seed of its own"
    assert len(epochs(other.path)) == 1


# Evaluating again


@pytest.mark.slow
def test_evaluating_test_is_counted(again: RunDir, finished: Run) -> None:
    before = again.report.stat().st_mtime_ns
    metrics = evaluate(again.path, show=False)
    assert metrics["test_evaluations"] == 2
    assert untouched(metrics) == untouched(finished.metrics), "with test-time augmentation as it was measured before"
    assert again.read_json(again.metrics) == metrics
    assert again.read_json(again.split)["test_evaluations"] == 2
    assert again.report.stat().st_mtime_ns > before


def test_evaluating_validation_does_not_use_test(again: RunDir, finished: Run) -> None:
    again.predictions("val").unlink()
    metrics = evaluate(again.path, split="val", tta=True, show=False)
    assert (metrics["split"], metrics["n"]) == ("val", HELD)
    assert metrics["accuracy_tta"] is not None
    assert again.read_predictions("val").rows.tolist() == again.read_json(again.split)["val_rows"]
    assert again.read_json(again.metrics) == finished.metrics
    assert again.read_json(again.split)["test_evaluations"] == 1


def color_folder(root: Path, classes: dict[str, tuple[int, int, int]], splits: dict[str, int]) -> Path:
    """`splits` images of each class, of several sizes, close to the color of the class."""
    random = np.random.default_rng(0)
    for split, count in splits.items():
        for name, color in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-30, 30, (20 + number, 24, 3))
                pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


COLORS = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (50, 50, 220)}


def test_other_data_with_other_classes(again: RunDir, finished: Run, tmp_path: Path) -> None:
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 2, "test": 2})
    with pytest.raises(DataError) as caught:
        evaluate(again.path, data=str(folder), show=False)
    assert all(name in caught.value.message for name in ("blue", "green", "red"))
    assert "0, 1, 2" in (caught.value.fix or "")
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
    predictions = again.read_predictions("digits-test")
    test = RunDir(finished.path).read_predictions("test")
    assert predictions.classes == test.classes, "in the model's order"
    for file, truth, row in zip(predictions.files or (), predictions.truth, predictions.probabilities, strict=True):
        assert file.split("/")[-2] == predictions.classes[truth]
        np.testing.assert_allclose(row, test.probabilities[int(Path(file).stem)], atol=1e-4)
    assert again.read_json(again.metrics) == finished.metrics
    assert again.read_json(again.split)["test_evaluations"] == 1


@pytest.mark.parametrize("missing", ["weights.safetensors", "model.onnx", "environment.json", "recipe.toml"])
def test_evaluating_an_unfinished_run(missing: str, again: RunDir) -> None:
    (again.path / missing).unlink()
    with pytest.raises(RunError) as caught:
        evaluate(again.path, show=False)
    assert missing in caught.value.message


def test_evaluating_damaged_weights(again: RunDir) -> None:
    again.weights.write_bytes(again.weights.read_bytes()[:500])
    with pytest.raises(RunError) as caught:
        evaluate(again.path, show=False)
    assert str(again.weights) in caught.value.message


@pytest.mark.slow
def test_report_again(again: RunDir) -> None:
    again.report.unlink()
    again.card.unlink()
    assert write_report(again.path) == again.report
    assert again.report.stat().st_size > 10_000
    assert again.card.is_file()


@pytest.mark.slow
def test_shared_report_has_no_images(again: RunDir, tmp_path: Path) -> None:
    before = again.report.read_bytes()
    page = tmp_path / "page.html"
    assert write_report(again.path, images=False, out=page) == page
    assert again.report.read_bytes() == before
    assert b"data:image" in before
    assert b"data:image" not in page.read_bytes()
    for named in (str(again.path), str(Path.cwd()), str(tmp_path)):
        assert named not in page.read_text(encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        write_report(again.path, out=page)
    assert str(page) in caught.value.message
    assert write_report(again.path, out=page, force=True) == page
    assert page.stat().st_size > 10_000
    assert write_report(again.path, images=False) == again.report
    assert b"data:image" not in again.report.read_bytes()


# Training on everything


@pytest.mark.long
def test_all_of_train_is_calibrated_by_another_run(small: Callable[..., Run], finished: Run) -> None:
    run = small(more={"data.train_on": "all", "data.calibrate_from": str(finished.path)}, epochs=1)
    split = json.loads((run.path / "split.json").read_text())
    assert (split["train_on"], split["n_train"], split["n_val"], split["val_rows"]) == ("all", ROWS, 0, [])
    ours, theirs = read_info(run.path / "model.onnx"), read_info(finished.path / "model.onnx")
    borrowed = ("temperature", "curvature", "unknown_threshold")
    assert [getattr(ours, key) for key in borrowed] == [getattr(theirs, key) for key in borrowed]
    assert not (run.path / "predictions-val.parquet").exists()
    assert "val_loss" not in RunDir(run.path).read_history()[0]
    with pytest.raises(DataError) as caught:
        evaluate(run.path, split="val", show=False)
    assert str(run.path) in caught.value.message
    assert "--split test" in (caught.value.fix or "")
    with pytest.raises(RecipeError) as refused:
        small(run="other", more={"data.train_on": "all", "data.calibrate_from": str(run.path)})
    assert str(run.path) in refused.value.message


def test_calibration_run_of_other_data(finished: Run, overrides: dict[str, Any], tmp_path: Path) -> None:
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 4, "test": 2})
    more = {"data.train_on": "all", "data.calibrate_from": str(finished.path)}
    with pytest.raises(RecipeError) as caught:
        train(folder, recipe="digits", overrides=overrides | more, run=tmp_path / "run", show=False)
    assert all(name in caught.value.message for name in ("data.calibrate_from", "digits", "colours"))


# Where a run goes


def test_directory_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert run_command(["train", "no-such-data", "--run", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"thirtytwo: {tmp_path} ")
    assert err.count("\n") == 1
    assert "--resume" in err
    assert "--run" in err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_directory_of_its_own(small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = default_path("data/my pets", "own", "seed3")
    assert path == Path("runs/my-pets-own-seed3")
    with RunDir.create_locked(None, path) as run:
        assert run.path == path
        run.card.write_text("mine")
    with RunDir.create_locked(None, path) as run:
        assert run.path == Path("runs/my-pets-own-seed3-2")


# Resuming


def test_resuming_a_finished_run_changes_nothing(again: RunDir, finished: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in again.path.rglob("*")}
    run = train("digits", run=again.path, resume=True, show=False)
    assert run.metrics == finished.metrics
    assert {path: path.stat().st_mtime_ns for path in again.path.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        ({"seed": 5}, "seed (was 0, now 5)"),
        ({"epochs": 9}, "schedule.epochs (was 4, now 9)"),
        ({"overrides": {"augment.cutout": 4}}, "augment.cutout (was 0, now 4)"),
        ({"recipe": "digits"}, "schedule.batch_size (was 16, now "),
    ],
)
def test_resuming_with_another_recipe(arguments: dict[str, Any], change: str, again: RunDir) -> None:
    again.report.unlink()
    with pytest.raises(RunError) as caught:
        train("digits", run=again.path, resume=True, show=False, **arguments)
    assert change in caught.value.message
    assert (caught.value.fix or "").endswith(f": thirtytwo train digits --resume --run {again.path}")


def test_resuming_with_other_data(again: RunDir, tmp_path: Path) -> None:
    again.report.unlink()
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 40, "test": 2})
    with pytest.raises(RunError) as caught:
        train(str(folder), run=again.path, resume=True, show=False)
    assert "'digits'" in caught.value.message
    assert str(folder) in caught.value.message


@pytest.mark.long
def test_resuming_after_the_folder_changed(small: Callable[..., Run], tmp_path: Path) -> None:
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 12, "test": 4})
    run = small(data=str(folder), limit_train=None, epochs=1)
    (run.path / "report.html").unlink()
    gone = next((folder / "train").rglob("*.png"))
    image = Image.open(gone).rotate(90)
    image.putpixel((0, 0), (1, 2, 3))
    gone.unlink()
    image.save(gone.with_name("added.png"))
    with pytest.raises(RunError) as caught:
        small(data=str(folder), limit_train=None, epochs=1, resume=True)
    place = gone.parent.relative_to(folder).as_posix()
    expected = f"1 image missing, such as {place}/{gone.name}; 1 image new, such as {place}/added.png"
    assert expected in caught.value.message


def test_resuming_a_missing_run(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        train("digits", run=tmp_path / "none", resume=True, show=False)
    assert str(tmp_path / "none") in caught.value.message


@pytest.mark.long
def test_resuming_a_run_that_has_only_its_recipe(again: RunDir, finished: Run, no_report: None) -> None:
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


@pytest.mark.long
def test_stopped_by_ctrl_c_and_killed_and_resumed(
    overrides: dict[str, Any], tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    longer = overrides | {"schedule.batch_size": 4, "schedule.epochs": 6, "augment.cutout": 3}
    settings = [word for key, value in longer.items() for word in ("--set", f"{key}={toml(value)}")]
    code, err = Started(path, "--recipe", "digits", "--limit-train", "300", *settings).stopped_by(signal.SIGINT)
    assert code == 130, err
    assert f"thirtytwo train digits --resume --run {path}" in err
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
    environment = json.loads((path / "environment.json").read_text())
    assert "--recipe digits" in environment["command"], "the original command"
    assert not environment["interrupted"]


def toml(value: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


# Other data


@pytest.mark.long
def test_a_folder_of_images(small: Callable[..., Run], tmp_path: Path) -> None:
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 20, "test": 4})
    (folder / "train" / "red" / "Thumbs.db").write_bytes(b"junk")
    run = small(data=str(folder), limit_train=30, more={"data.image_size": "auto", "schedule.batch_size": 8})
    assert run.metrics["dataset"] == "colours"
    assert run.metrics["top5_accuracy"] is None
    assert run.metrics["accuracy"]["value"] > 0.9
    predictions = RunDir(run.path).read_predictions("test")
    assert predictions.classes == ("blue", "green", "red")
    assert predictions.files is not None
    assert "test/blue/0.png" in predictions.files
    environment = json.loads((run.path / "environment.json").read_text())
    assert (environment["data"]["train"], environment["data"]["val"]) == (30, 3)
    assert any("Thumbs.db" in name for name in environment["data"]["skipped"])
    (answer,) = thirtytwo.load(run.path).predict(folder / "test" / "green" / "1.png")
    assert answer.top == "green"  # type: ignore[union-attr]
    assert evaluate(run.path, split="val", show=False)["n"] == 3


@pytest.mark.long
def test_a_folder_with_its_own_validation(small: Callable[..., Run], tmp_path: Path) -> None:
    folder = color_folder(tmp_path / "colours", COLORS, {"train": 8, "val": 3, "test": 2})
    run = small(data=str(folder), limit_train=None, epochs=1, more={"schedule.batch_size": 500})
    split = json.loads((run.path / "split.json").read_text())
    assert (split["n_train"], split["n_val"]) == (24, 9)
    assert read_recipe(run.path).schedule.batch_size == 24
    choices = json.loads((run.path / "environment.json").read_text())["choices"]
    assert ("batch size", "24") in [(choice["what"], choice["value"]) for choice in choices]


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
    err = capsys.readouterr().err.splitlines()[-1]
    assert code == 2, err
    file = rf"{re.escape(str(path))}/(checkpoints/)?({artefact})"
    assert re.match(rf"thirtytwo: {file} .*File too large", err)
    assert not list(path.rglob(".*")), "nothing half-written"
    if artefact == "last.ckpt":
        command = err.partition("Free disk space, then continue with: ")[2]
        assert run_command(shlex.split(command)[1:]) == 0
    else:
        assert run_command([*arguments, *settings]) == 0
    assert (path / "report.html").is_file()


@pytest.mark.parametrize(("step", "artefact"), [("save_weights", "weights.safetensors"), ("export_onnx", "model.onnx")])
@pytest.mark.long
def test_full_disk_later_and_resumed(
    step: str, artefact: str, small: Callable[..., Run], finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = getattr(WORKING, step)

    def cramped(*arguments: Any) -> None:
        with largest_file(1000):
            plain(*arguments)

    with monkeypatch.context() as full:
        full.setattr(WORKING, step, cramped)
        with pytest.raises(OutputError) as caught:
            small()
        assert f"run/{artefact} " in caught.value.message
    assert not list((tmp_path / "run").rglob(".*")), "nothing half-written"
    run = small(resume=True)
    assert untouched(run.metrics) == untouched(finished.metrics)
    assert run.metrics["test_evaluations"] == 1, "the same evaluation, repeated"


def test_diverged(small: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        small(more={"optimizer.weight_decay": 1000})
    assert caught.value.fix
    assert not (tmp_path / "run" / "model.onnx").exists()


@pytest.mark.long
def test_export_that_disagrees_leaves_no_model(
    small: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing = importlib.import_module("thirtytwo.workflows.finish")
    export = finishing.export_onnx

    def damaged(net: Any, info: Any, path: Path, means: Any) -> None:
        """The file of a network with other features; its known_score alone is moved out of its place."""
        export(net, info, path, np.roll(means, 1, axis=1))

    monkeypatch.setattr(finishing, "export_onnx", damaged)
    with pytest.raises(ExportError) as caught:
        small(epochs=1)
    assert "known_score" in caught.value.message
    assert (tmp_path / "run" / "weights.safetensors").is_file()
    assert not (tmp_path / "run" / "model.onnx").exists()


@pytest.mark.long
def test_ctrl_c_in_python(small: Callable[..., Run], finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: ClassifierModule, *_: Any) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(ClassifierModule, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            small()
    assert len(epochs(finished.path)) == 4
    run = small(resume=True)
    assert same_weights(run.path, finished.path)
    assert run.metrics == finished.metrics
    assert os.fspath(run.path).endswith("run")
