"""Wrong labels by the predictions of a cross-validation, and predictions that do not fit the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.data.fixes import Fix, FixPlan, write_fix_plan
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import content_of
from thirtytwo.data.types import DataSet
from thirtytwo.doctor import diagnose
from thirtytwo.doctor.fix_plan import suggest_fixes
from thirtytwo.doctor.out_of_fold import fixes_of
from thirtytwo.errors import DataError, RunError, ThirtytwoError
from thirtytwo.predictions import Predictions
from thirtytwo.run_paths import OUT_OF_FOLD
from thirtytwo.rundir import RunDir


def predictions_of(data: DataSet, wrong: list[int]) -> Predictions:
    """Confident predictions of the labels of all training images, but of the next class for those `wrong`."""
    images = data.train
    random = np.random.default_rng(0)
    scores = random.random((len(images), len(images.classes))) * 0.2
    predicted = images.labels.copy()
    predicted[wrong] = (predicted[wrong] + 1) % len(images.classes)
    scores[np.arange(len(images)), predicted] += 2
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(images.classes, images.labels, probabilities, images.rows, images.files)


@pytest.fixture
def folder(make, tmp_path: Path) -> Path:
    return Path(make.tree(tmp_path / "set", {"ant": 20, "bee": 20, "cow": 20}))


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the predictions of the folder's images, changed by `change`; returns their directory."""

    def write(change: Callable[[Predictions], Predictions] = lambda found: found, wrong: list[int] = [3, 45]) -> Path:  # noqa: B006
        data = load_dataset(str(folder), whole=True)
        found = change(predictions_of(data, wrong))
        place = RunDir(tmp_path / "folds")
        place.path.mkdir(exist_ok=True)
        place.write_predictions(OUT_OF_FOLD, found, content_of(data.train.rows, data.train.hashes))
        return place.path

    return write


def test_labels_that_the_predictions_contradict_are_found(folder: Path, write: Callable[..., Path]) -> None:
    place = write()
    files = load_dataset(str(folder), whole=True).train.files
    assert files is not None
    for path in (place, place / "predictions-out-of-fold.parquet"):
        diagnosis = diagnose(str(folder), predictions=path, only=["T501"])
        (finding,) = diagnosis.findings
        assert diagnosis.subject is not None
        assert {diagnosis.subject.name_of(one) for (one,) in finding.groups} == {files[3], files[45]}
        assert "2 of 60" in finding.what


def test_check_of_labels_runs_without_thorough(folder: Path, write: Callable[..., Path]) -> None:
    assert "T501" in diagnose(str(folder), predictions=write()).ran
    assert "T501" not in diagnose(str(folder)).ran


def test_order_of_the_classes_does_not_matter(folder: Path, write: Callable[..., Path]) -> None:
    def reverse(found: Predictions) -> Predictions:
        return replace(
            found,
            classes=found.classes[::-1],
            truth=len(found.classes) - 1 - found.truth,
            probabilities=found.probabilities[:, ::-1],
        )

    (finding,) = diagnose(str(folder), predictions=write(reverse), only=["T501"]).findings
    assert len(finding.groups) == 2


def test_right_labels_give_no_finding(folder: Path, write: Callable[..., Path]) -> None:
    assert diagnose(str(folder), predictions=write(wrong=[]), only=["T501"]).findings == ()


def taken(found: Predictions, count: int) -> Predictions:
    assert found.files is not None
    return Predictions(
        found.classes, found.truth[:count], found.probabilities[:count], found.rows[:count], found.files[:count]
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda found: taken(found, 50), "50 images"),
        (lambda found: replace(found, classes=("ant", "bee", "dog")), "'dog'"),
        (lambda found: replace(found, truth=(found.truth + 1) % 3), "labels of 60"),
        (lambda found: replace(found, files=tuple(reversed(found.files))), "differ"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    change: Callable[[Predictions], Predictions], named: str, folder: Path, write: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match=named) as caught:
        diagnose(str(folder), predictions=write(change))
    assert "--folds" in (caught.value.fix or "")


def test_other_content_is_refused(folder: Path, write: Callable[..., Path], make) -> None:
    place = write()
    (folder / "ant/0.png").write_bytes((folder / "bee/0.png").read_bytes())
    with pytest.raises(DataError, match="differ"):
        diagnose(str(folder), predictions=place)


def test_missing_or_damaged_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.parquet").write_text("no table")
    for path in (tmp_path, tmp_path / "none.parquet", tmp_path / "damaged.parquet"):
        with pytest.raises(RunError):
            diagnose(str(folder), predictions=path)
    assert issubclass(RunError, ThirtytwoError)


def relabel(file: str, label: str, to: str) -> Fix:
    return Fix("relabel", "train", file, label, to)


@pytest.fixture
def fixed(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes predictions of the folder's images after fixes, wrong for the files `wrong`; returns their directory."""

    def write(fixes: tuple[Fix, ...], wrong: Sequence[str] = ()) -> Path:
        plan = FixPlan(fixes)
        data = load_dataset(str(folder), whole=True, fix_plan=plan)
        assert data.train.files is not None
        places = [data.train.files.index(name) for name in wrong]
        found = predictions_of(data, places)
        found.probabilities[places] = np.where(found.probabilities[places] > 0.5, 0.98, 0.01)
        place = RunDir(tmp_path / "folds")
        (place.path / "fold1").mkdir(parents=True, exist_ok=True)
        write_fix_plan(place.path / "fold1/fixes.csv", plan, force=True)
        place.write_predictions(OUT_OF_FOLD, found, content_of(data.train.rows, data.train.hashes))
        return place.path

    return write


def test_predictions_of_fixed_data_fit_with_its_plan(folder: Path, fixed: Callable[..., Path]) -> None:
    fixes = (Fix("drop", "train", "ant/1.png"), relabel("ant/2.png", "ant", "bee"), relabel("bee/7.png", "bee", "cow"))
    place = fixed(fixes, ["ant/5.png", "ant/2.png", "bee/7.png", "cow/3.png"])
    diagnosis = diagnose(str(folder), predictions=place, only=["T501"])
    assert diagnosis.subject is not None
    (finding,) = diagnosis.findings
    named = {diagnosis.subject.name_of(one) for (one,) in finding.groups}
    assert named == {"ant/5.png", "ant/2.png", "bee/7.png", "cow/3.png"}
    suggested = {fix.image: (fix.action, fix.label, fix.to) for fix in suggest_fixes(diagnosis).plan.fixes}
    test = {file for file in named if file in (diagnosis.subject.splits["test"].files or ())}
    expected = {
        "ant/1.png": ("drop", "", ""),
        "ant/5.png": ("relabel", "ant", "bee"),
        "ant/2.png": ("relabel", "ant", "cow"),
        "cow/3.png": ("relabel", "cow", "ant"),
        "bee/7.png": ("relabel", "bee", "ant"),
    }
    kept = {"ant/2.png": ("relabel", "ant", "bee"), "bee/7.png": ("relabel", "bee", "cow")}
    assert suggested == {
        name: kept.get(name) if name in test else what
        for name, what in expected.items()
        if name not in test or name in kept
    }
    load_dataset(str(folder), fix_plan=suggest_fixes(diagnosis).plan)


def test_a_fix_that_is_taken_back_leaves_the_plan(folder: Path, fixed: Callable[..., Path]) -> None:
    data = load_dataset(str(folder))
    assert data.train.files is not None
    name = next(file for file in data.train.files if file.startswith("cow/"))
    place = fixed((relabel(name, "cow", "bee"), Fix("drop", "train", "ant/1.png")))
    found = predictions_of(load_dataset(str(folder), whole=True, fix_plan=fixes_of(place)), [])
    assert found.files is not None
    at = found.files.index(name)
    found.probabilities[at] = (0.01, 0.01, 0.98)
    RunDir(place).write_predictions(OUT_OF_FOLD, found)
    plan = suggest_fixes(diagnose(str(folder), predictions=place, only=["T501"])).plan
    assert [(fix.action, fix.image) for fix in plan.fixes] == [("drop", "ant/1.png")]


def test_the_command_says_that_fixes_are_applied(
    folder: Path, fixed: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = fixed((Fix("drop", "train", "ant/1.png"),), ["ant/5.png"])
    command = ["data", "doctor", str(folder), "--predictions", str(place), "--only", "T501"]
    assert run_command([*command, "--fix-plan", str(tmp_path / "plan.csv")]) == 0
    captured = capsys.readouterr()
    assert "1 dropped" in captured.err
    assert f"includes the fixes of {place}" in captured.err
    assert "ant/1.png" in (tmp_path / "plan.csv").read_text()


def test_a_plan_that_does_not_fit_is_no_finding(folder: Path, fixed: Callable[..., Path]) -> None:
    place = fixed((Fix("drop", "train", "ant/1.png"),))
    (folder / "ant/1.png").unlink()
    with pytest.raises(DataError, match="predictions in .*ant/1.png") as caught:
        diagnose(str(folder), predictions=place)
    assert "--folds" in (caught.value.fix or "")


def test_the_file_alone_has_no_plan(folder: Path, fixed: Callable[..., Path]) -> None:
    place = fixed((Fix("drop", "train", "ant/1.png"),))
    alone = place.parent / "predictions-out-of-fold.parquet"
    alone.write_bytes((place / alone.name).read_bytes())
    with pytest.raises(DataError) as caught:
        diagnose(str(folder), predictions=alone)
    assert "--apply" in (caught.value.fix or "")
