"""OOD data: the same on every machine, never of the model's own classes, and more where it is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thirtytwo.cli.main import run_command
from thirtytwo.errors import DataError, RunError, ThirtytwoError
from thirtytwo.evaluation.ood import OodSet, Skipped, ood_sets, shared_classes
from thirtytwo.export.metadata import rewrite_info
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.evaluate import evaluate
from thirtytwo.workflows.train import train

WORDS = ("Zero", "One", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def info_of(classes: Sequence[str]) -> ModelInfo:
    return ModelInfo.model_validate(
        {
            "classes": classes,
            "input_size": 16,
            "resize": "crop",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "temperature": 1.0,
            "unknown_threshold": 0.5,
            "architecture": "any",
            "dataset": "any",
            "accuracy": None,
            "version": "0",
        }
    )


@pytest.mark.parametrize(
    ("classes", "skipped"),
    [
        (("cat", "dog"), []),
        (("class 0", "class 1"), []),
        (tuple("0123456789"), ["digits"]),
        (WORDS, ["digits"]),
        (tuple(f"{place} - {name}" for place, name in enumerate(WORDS)), ["digits"]),
        (("Digit_7", "letter_a"), ["digits"]),
    ],
)
def test_digits_are_skipped_by_class_names(classes: tuple[str, ...], skipped: list[str]) -> None:
    found = ood_sets(info_of(classes))
    assert [one.name for one in found if isinstance(one, Skipped)] == skipped
    assert all(one.reason for one in found if isinstance(one, Skipped))
    rest = [name for name in ("digits", "noise", "colours") if name not in skipped]
    assert [one.name for one in found if isinstance(one, OodSet)] == rest
    assert all(one.source and one.images.shape[1:] == (16, 16, 3) for one in found if isinstance(one, OodSet))


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        (["truck", "cat"], ["Cat", "pickup_truck"], ["Cat"]),
        (["fire truck"], ["Fire_Truck", "fire-truck", "truck"], ["Fire_Truck", "fire-truck"]),
        (["3"], ["three", "3", "13", "digit 3"], ["three", "3", "digit 3"]),
        (["number"], ["digit", "number"], ["number"]),
    ],
)
def test_shared_classes(ours: list[str], theirs: list[str], shared: list[str]) -> None:
    assert shared_classes(ours, theirs) == shared


@pytest.mark.realdata
def test_default_data_does_not_depend_on_the_disk(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of CIFAR-10 with CIFAR-100 at hand and without."""
    info = info_of([path.name for path in (data_root / "cifar10").iterdir()])
    found = []
    for root in (data_root, tmp_path):
        monkeypatch.setenv("THIRTYTWO_DATA", str(root))
        found.append(ood_sets(info.model_copy(update={"dataset": "cifar10"})))
    for one, other in zip(*found, strict=True):
        assert isinstance(one, OodSet)
        assert isinstance(other, OodSet)
        assert (one.name, one.what, one.source) == (other.name, other.what, other.source)
        np.testing.assert_array_equal(one.images, other.images)
    assert [one.name for one in found[0]] == ["digits", "noise", "colours"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("ood")
    data = tiny.folder(place / "mine", 360)  # enough validation images for a threshold
    others = tiny.folder(place / "others", 60)
    for number, folder in enumerate(sorted(others.iterdir())):
        folder.rename(others / f"thing {number}")
    settings = {"overrides": dict(tiny.overrides), "device": "cpu", "show": False}
    return SimpleNamespace(run=train(str(data), run=place / "run", epochs=1, **settings).path, data=data, others=others)


@pytest.fixture
def run(trained: SimpleNamespace, tmp_path: Path) -> RunDir:
    shutil.copytree(trained.run, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.mark.long
def test_requested_data_is_added(run: RunDir, trained: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.read_json(run.metrics)["unknown"]
    words = ["evaluate", str(run.path), "--ood", str(trained.others), "--ood", str(trained.data), "--device", "cpu"]
    assert run_command(words) == 0
    out = capsys.readouterr().out
    record = run.read_json(run.metrics)["unknown"]
    assert [row["name"] for row in record["against"]] == ["digits", "noise", "colours", "others"]
    for old, new in zip(before["against"], record["against"], strict=False):
        assert (old["name"], old["n"]) == (new["name"], new["n"])
        assert new["auroc"] == pytest.approx(old["auroc"])
    added = record["against"][-1]
    assert added["n"] == 60, "all of a folder, and not the part that would be its test"
    assert str(trained.others) in added["source"]
    assert [row["name"] for row in record["skipped"]] == ["mine"]
    assert record["validation"] == before["validation"]
    for text in (out, run.card.read_text(encoding="utf-8"), run.report.read_text(encoding="utf-8")):
        assert "mine" in text
        assert "others" in text
    evaluate(run.path, device="cpu", show=False)
    assert run.read_json(run.metrics)["unknown"] == record, "kept where it is not asked for again"


def test_number_of_images_is_limited(trained: SimpleNamespace) -> None:
    found = [ood_sets(info_of(("cat", "dog")), [str(trained.others)], most=7)[-1] for _ in range(2)]
    assert all(isinstance(one, OodSet) and len(one.images) == 7 for one in found)
    np.testing.assert_array_equal(found[0].images, found[1].images)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"ood": ["no-such-folder"]}, ThirtytwoError),
        ({"ood": ["digits"], "split": "val"}, DataError),
        ({"ood": ["digits"], "data": "digits"}, ThirtytwoError),
    ],
)
def test_invalid_data_is_refused_before_test_is_evaluated(
    run: RunDir, settings: dict[str, Any], error: type[ThirtytwoError]
) -> None:
    before = run.read_json(run.split)["test_evaluations"]
    with pytest.raises(error):
        evaluate(run.path, device="cpu", show=False, **settings)
    assert run.read_json(run.split)["test_evaluations"] == before


def test_model_without_threshold(run: RunDir) -> None:
    rewrite_info(run.onnx, read_info(run.onnx).model_copy(update={"unknown_threshold": None}))
    with pytest.raises(RunError):
        evaluate(run.path, ood=["digits"], device="cpu", show=False)


def test_ood_data_may_have_one_class(tmp_path: Path, tiny: SimpleNamespace) -> None:
    folder = tiny.folder(tmp_path / "zoo", 18)
    for extra in sorted(folder.iterdir())[1:]:
        shutil.rmtree(extra)
    (last,) = ood_sets(info_of(("cat", "dog")), [str(folder)])[-1:]
    assert isinstance(last, OodSet)
    assert (last.name, len(last.images)) == ("zoo", len(list(folder.rglob("*.png"))))
