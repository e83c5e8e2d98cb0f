"""Cross-validation: one run for each fold, predictions of every image, resuming, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import Fix, FixPlan, write_fix_plan
from thirtytwo.data.run_data import load_out_of_fold
from thirtytwo.doctor import diagnose
from thirtytwo.errors import ArgumentError, DataError, RecipeError, RunError
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.report.gallery import locate
from thirtytwo.rundir import RunDir

folds = pytest.importorskip("thirtytwo.workflows.folds")
train_folds = folds.train_folds


@pytest.fixture(scope="module")
def how(tiny: SimpleNamespace) -> dict[str, Any]:
    overrides = tiny.overrides | {"schedule.epochs": 1, "model.name": "fastnet"}
    return {"recipe": "fast", "overrides": overrides, "device": "cpu", "show": False}


@pytest.fixture(scope="module")
def folder(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of three classes."""
    return Path(tiny.folder(tmp_path_factory.mktemp("data") / "set", 60))


@pytest.fixture(scope="module")
def trained(folder: Path, how: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_folds(str(folder), folds=3, run=tmp_path_factory.mktemp("runs") / "folds", **how)


def test_every_image_is_predicted_by_a_run_that_did_not_see_it(trained: Any, folder: Path) -> None:
    found = trained.predictions
    assert found.rows.tolist() == list(range(60))
    assert set(found.files) == {str(file.relative_to(folder)) for file in folder.rglob("*.png")}
    for run in trained.runs:
        split = json.loads((run.path / "split.json").read_text())
        held, seen = (set(split[part]["rows"]) for part in ("test", "train"))
        assert len(held) == 20
        assert not held & (seen | set(split["val"]["rows"]))
        assert len(held | seen | set(split["val"]["rows"])) == 60
        own = RunDir(run.path).read_predictions("test")
        assert np.array_equal(own.probabilities, found.probabilities[own.rows])


def test_images_are_found_again_for_all_predictions(trained: Any) -> None:
    images = load_out_of_fold([RunDir(run.path) for run in trained.runs])
    places, problem = locate(trained.predictions, images, np.arange(60))
    assert problem == ""
    assert places is not None
    assert [images.name_of(place) for place in places] == list(trained.predictions.files)


def test_summary_has_both_intervals(trained: Any) -> None:
    summary = json.loads((trained.path / "summary.json").read_text())
    assert summary == trained.summary
    values = [run["accuracy"] for run in summary["runs"]]
    mean = summary["cross_validation"]["mean_accuracy"]
    assert mean["value"] == pytest.approx(np.mean(values))
    half = 4.302653 * np.std(values, ddof=1) / 3**0.5
    low, high = max(0.0, mean["value"] - half), min(1.0, mean["value"] + half)
    assert mean["ci95"] == pytest.approx([low, high], abs=1e-6)
    every, right = summary["cross_validation"]["out_of_fold"], int(trained.predictions.correct.sum())
    assert every["n"] == 60
    assert every["accuracy"] == {"value": right / 60, "ci95": list(wilson(right, 60))}
    text = (trained.path / "summary.md").read_text()
    assert "3 folds" in text
    assert "Wilson" in text
    page = (trained.path / "report.html").read_text()
    assert "Fold 3" in page
    assert "class 2" in page


@pytest.mark.long
def test_interrupted_folds_resume_to_the_same_result(
    trained: Any, folder: Path, how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thirtytwo.workflows import series

    real, done = series.train, []

    def stops(*arguments: Any, **options: Any) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(series, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        train_folds(str(folder), folds=3, run=tmp_path / "folds", **how)
    left = json.loads((tmp_path / "folds/summary.json").read_text())
    assert [run["fold"] for run in left["runs"]] == [1]
    assert "cross_validation" not in left
    with pytest.raises(RunError, match="not finished"):
        thirtytwo.compare([tmp_path / "folds", trained.path], out=tmp_path / "compared")
    monkeypatch.setattr(series, "train", real)
    with pytest.raises(RunError, match="folds"):
        train_folds(str(folder), folds=4, run=tmp_path / "folds", resume=True, show=False)
    again = train_folds(str(folder), run=tmp_path / "folds", resume=True, show=False)
    assert np.array_equal(again.predictions.probabilities, trained.predictions.probabilities)
    compared = thirtytwo.compare([trained.path, tmp_path / "folds"], out=tmp_path / "compared")
    assert compared.count == 60
    assert compared.pairs[0].test.difference == 0


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"folds": 1}, ArgumentError),
        ({"folds": 101}, RecipeError),
        ({}, RecipeError),
        ({"folds": 21}, DataError),
        ({"folds": 3, "overrides": {"data.fold": 1}}, RecipeError),
        ({"folds": 3, "resume": True}, RunError),
    ],
)
def test_invalid_arguments(settings: dict[str, Any], kind: type[Exception], folder: Path, tmp_path: Path) -> None:
    run = {} if settings.get("resume") else {"run": tmp_path / "run"}
    with pytest.raises(kind):
        train_folds(str(folder), recipe="fast", show=False, **run, **settings)
    assert not (tmp_path / "run").exists()


def test_folds_are_neither_seeds_nor_combined(trained: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds folds"):
        thirtytwo.train_seeds(str(folder), seeds=[1], run=trained.path, resume=True, show=False)
    with pytest.raises(DataError, match="cross-validation"):
        thirtytwo.ensemble([trained.path], run=tmp_path / "ensemble", show=False)


def test_a_comparison_of_cross_validations_shows_images_of_all_folds(trained: Any, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "again")
    found = thirtytwo.compare([trained.path, tmp_path / "again"], out=tmp_path / "compared")
    assert not [notice for notice in found.notices if "images were not available" in notice]
    assert found.images is not None
    assert [found.images.name_of(place) for place in range(60)] == list(found.runs[0].predictions.files or ())
    with pytest.raises(DataError, match="out of the folds"):
        thirtytwo.compare([trained.path, tmp_path / "again"], out=tmp_path / "other", split="val")


def test_a_damaged_summary_is_written_again_as_advised(trained: Any, folder: Path, tmp_path: Path) -> None:
    parent = Path(shutil.copytree(trained.path, tmp_path / "again"))
    summary = parent / "summary.json"
    before = summary.read_text()
    summary.write_text("{")
    with pytest.raises(RunError) as caught:
        train_folds(str(folder), run=parent, resume=True, show=False)
    command = shlex.split(str(caught.value.fix).partition("run: ")[2])
    assert command == ["thirtytwo", "train", str(folder), "--resume", "--run", str(parent), "--folds", "3"]
    summary.unlink()
    assert run_command(command[1:]) == 0
    found, expected = (json.loads(text) for text in (summary.read_text(), before))
    assert (found["runs"], found["cross_validation"]) == (expected["runs"], expected["cross_validation"])


@pytest.mark.long
def test_batches_limited_by_the_images_of_a_fold_may_differ(
    tiny: SimpleNamespace, how: dict[str, Any], tmp_path: Path
) -> None:
    folder, batch = tiny.folder(tmp_path / "set", 21), {"schedule.batch_size": 64}
    found = train_folds(str(folder), folds=2, run=tmp_path / "run", **{**how, "overrides": how["overrides"] | batch})
    sizes = {RunDir(run.path).read_recipe().schedule.batch_size for run in found.runs}
    assert len(sizes) == 2
    assert len(found.predictions.rows) == 21


@pytest.mark.long
def test_folds_with_a_plan_and_its_predictions_in_the_doctor(
    tiny: SimpleNamespace, how: dict[str, Any], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    tiny.folder(root / "train", 36)
    tiny.folder(root / "test", 12, seed=1)
    fixes = (
        Fix("drop", "train", "train/class 0/0.png", "class 0"),
        Fix("relabel", "train", "train/class 1/1.png", "class 1", "class 2"),
        Fix("move", "train", "train/class 2/2.png", "class 2", "test"),
        *(Fix("move", "test", f"test/class 0/{number}.png", "class 0", "train") for number in (0, 3, 6)),
    )
    write_fix_plan(tmp_path / "plan.csv", FixPlan(fixes))
    overrides = how["overrides"] | {"data.fix_plan": str(tmp_path / "plan.csv")}
    found = train_folds(str(root), folds=2, run=tmp_path / "folds", **{**how, "overrides": overrides})
    assert len(found.predictions.rows) == 36 - 2 + 3
    (tmp_path / "plan.csv").unlink()
    diagnosis = diagnose(str(root), predictions=found.path, only=["T501", "T301"])
    assert diagnosis.ran == ("T301", "T501")
    assert diagnosis.data is not None
    assert diagnosis.data.fixes == {"dropped": 1, "relabeled": 1, "moved": 4}
