"""Training with a plan of fixes: applied, recorded, and kept by everything that reads the run afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.resolve import format_override
from thirtytwo.data.fixes import Fix, FixPlan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import load_run_data
from thirtytwo.errors import DataError, RunError
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.finish import Run

pytestmark = pytest.mark.long

FIXES = (
    Fix("drop", "train", "train/class 0/0.png", "class 0"),
    Fix("drop", "train", "train/class 1/broken.png", "class 1"),
    Fix("relabel", "train", "train/class 0/3.png", "class 0", "class 1"),
    Fix("relabel", "test", "test/class 2/2.png", "class 2", "class 0"),
    Fix("move", "test", "test/class 1/1.png", "class 1", "train"),
)


@pytest.fixture(scope="module", autouse=True)
def _no_data_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THIRTYTWO_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def how(tiny: SimpleNamespace) -> dict[str, Any]:
    overrides = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 1, "evaluate.tta": False}
    return {"recipe": "fast", "overrides": overrides, "show": False, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of 60 training and 30 test images, with a file that cannot be read."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    tiny.folder(root / "train", 60)
    tiny.folder(root / "test", 30, seed=1)
    (root / "train/class 1/broken.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "plan.csv"
    write_fix_plan(file, FixPlan(FIXES))
    return file


@pytest.fixture(scope="module")
def trained(data: Path, plan: Path, how: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with the plan, whose file is gone afterwards."""
    gone = plan.with_name("gone.csv")
    shutil.copy(plan, gone)
    run = thirtytwo.train(data, fix_plan=gone, run=tmp_path_factory.mktemp("runs") / "run", **how)
    gone.unlink()
    return run


def copy_of(run: Run, place: Path) -> Path:
    return Path(shutil.copytree(run.path, place))


def test_the_run_records_the_plan(trained: Run, plan: Path) -> None:
    run = RunDir(trained.path)
    assert run.fixes.read_bytes() == plan.read_bytes()
    environment = run.read_json(run.environment)
    assert environment["data"]["fixes"] == {"dropped": 2, "relabeled": 2, "moved": 1}
    assert environment["data"]["train"] + environment["data"]["val"] == 60
    assert environment["data"]["test"] == 29
    assert run.read_recipe().data.fix_plan.endswith("gone.csv")
    assert "2 dropped, 2 relabeled, 1 moved" in run.report.read_text(encoding="utf-8")
    split = run.read_json(run.split)
    assert "train/class 0/0.png" not in [*split["train"]["files"], *split["val"]["files"]]
    place = split["test"]["files"].index("test/class 2/2.png")
    assert split["test"]["labels"][place] == 0
    predictions = run.read_predictions("test")
    assert predictions.classes[int(predictions.truth[place])] == "class 0"


def test_the_data_of_the_run_is_found_again(trained: Run, data: Path) -> None:
    found = load_run_data(RunDir(trained.path))
    assert list(found.changes()) == []
    run = RunDir(trained.path)
    split = run.read_json(run.split)
    for name, images in (("train", found.parts.train), ("val", found.parts.val), ("test", found.parts.test)):
        assert images is not None
        assert images.labels.tolist() == split[name]["labels"]
        assert list(images.files or ()) == split[name]["files"]


def test_evaluate_report_and_resume(trained: Run, data: Path, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    again = thirtytwo.evaluate(run, split="test")
    assert again["accuracy"] == trained.metrics["accuracy"]
    assert "changed" not in again or not any(again["changed"].values())
    thirtytwo.write_report(run)
    assert "2 relabeled" in (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    assert thirtytwo.train(str(data), run=run, resume=True, show=False).metrics["n"] == 29
    assert (run / "report.html").is_file()


def test_resume_with_another_plan_is_refused(trained: Run, data: Path, plan: Path, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    with pytest.raises(RunError, match="fix_plan"):
        thirtytwo.train(str(data), run=run, resume=True, fix_plan=plan, show=False)


def test_the_recipe_of_the_run_is_trained_again(trained: Run, data: Path, how: dict[str, Any], tmp_path: Path) -> None:
    again = thirtytwo.train(str(data), recipe=trained.path, run=tmp_path / "again", show=False, device="cpu")
    assert (tmp_path / "again/fixes.csv").read_bytes() == (trained.path / "fixes.csv").read_bytes()
    assert again.metrics["accuracy"] == trained.metrics["accuracy"]


def test_ensembles(trained: Run, data: Path, plan: Path, how: dict[str, Any], tmp_path: Path) -> None:
    other = thirtytwo.train(str(data), fix_plan=plan, run=tmp_path / "other", seed=1, **how)
    combined = thirtytwo.ensemble([trained.path, other.path], run=tmp_path / "both", show=False, device="cpu")
    assert combined.metrics["n"] == 29
    assert json.loads((combined.path / "environment.json").read_text())["data"]["fixes"]["dropped"] == 2
    assert (combined.path / "fixes.csv").read_bytes() == plan.read_bytes()
    assert thirtytwo.evaluate(combined.path)["accuracy"] == combined.metrics["accuracy"]
    plain = {**how, "overrides": {**how["overrides"], "data.skip_unreadable": True}}
    without = thirtytwo.train(str(data), run=tmp_path / "without", seed=2, **plain)
    with pytest.raises(RunError):
        thirtytwo.ensemble([trained.path, without.path], run=tmp_path / "mixed", show=False, device="cpu")


def test_a_plan_that_does_not_fit_the_data(
    tmp_path: Path, tiny: SimpleNamespace, plan: Path, how: dict[str, Any]
) -> None:
    other = tiny.folder(tmp_path / "other", 30)
    with pytest.raises(DataError, match="5 problems"):
        thirtytwo.train(str(other), fix_plan=plan, run=tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match=r"nothing\.csv"):
        thirtytwo.train(str(other), fix_plan=tmp_path / "nothing.csv", run=tmp_path / "run", **how)


def test_merged_classes(tiny: SimpleNamespace, how: dict[str, Any], tmp_path: Path) -> None:
    root = tiny.folder(tmp_path / "data", 60)
    moved = sorted((root / "class 0").iterdir())[:6]
    (root / "Class 0").mkdir()
    for file in moved:
        file.rename(root / "Class 0" / file.name)
    fixes = [Fix("relabel", "train", f"Class 0/{file.name}", "Class 0", "class 0") for file in moved]
    write_fix_plan(tmp_path / "plan.csv", FixPlan(tuple(fixes)))
    run = thirtytwo.train(str(root), fix_plan=tmp_path / "plan.csv", run=tmp_path / "run", **how)
    assert thirtytwo.load(run.path).classes == ("class 0", "class 1", "class 2")
    found = load_run_data(RunDir(run.path))
    assert list(found.changes()) == []
    assert thirtytwo.evaluate(run.path)["accuracy"] == run.metrics["accuracy"]


def test_data_without_files(how: dict[str, Any], tmp_path: Path) -> None:
    data = load_dataset("digits")
    row = str(int(data.train.rows[0]))
    to = data.classes[(int(data.train.labels[0]) + 1) % 10]
    write_fix_plan(tmp_path / "plan.csv", FixPlan((Fix("relabel", "train", row, to=to),), by_row=True))
    words = ["train", "digits", "--apply", str(tmp_path / "plan.csv"), "--run", str(tmp_path / "run")]
    words += ["--recipe", "fast", "--limit-train", "200", "--epochs", "1", "--device", "cpu"]
    settings = [format_override(key, value) for key, value in how["overrides"].items()]
    assert run_command([*words, *(word for one in settings for word in ("--set", one))]) == 0
    run = RunDir(tmp_path / "run")
    assert run.read_json(run.environment)["data"]["fixes"]["relabeled"] == 1
    found = load_run_data(run)
    assert list(found.changes()) == []
    assert np.array_equal(found.parts.test.labels, run.read_predictions("test").truth)
