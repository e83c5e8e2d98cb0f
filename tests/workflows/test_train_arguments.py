"""Arguments of training that are refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import thirtytwo
from thirtytwo.errors import ArgumentError, DataError, RecipeError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.workflows.train import find_lr, train


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THIRTYTWO_DATA", raising=False)


@pytest.mark.parametrize(
    ("more", "kind", "named"),
    [
        ({"data.train_on": "all"}, RecipeError, ["data.calibrate_from"]),
        ({"data.train_on": "all", "data.calibrate_from": "none"}, RunError, ["'none'"]),
        ({"model.name": "fastnett"}, UnknownNameError, ["'fastnett'", "'fastnet'"]),
        ({"model.options": {"group": []}}, RecipeError, ["'group'", "'groups'"]),
        ({"schedule.epoch": 3}, RecipeError, ["'schedule.epoch'", "'epochs'"]),
        ({"data.image_size": 8, "model.options": {}}, RecipeError, ["8×8", "data.image_size"]),
        (
            {"model.options": {}, "schedule.resolution": [{"size": 8, "until": 0.5}]},
            RecipeError,
            ["8×8", "schedule.resolution"],
        ),
        ({"train.precision": "float16"}, RecipeError, ["float16"]),
        ({"data.limit_train": 5}, DataError, ["5", "10 classes"]),
    ],
)
def test_refused_before_anything_is_written(
    more: dict[str, Any], kind: type[ThirtytwoError], named: list[str], tiny: SimpleNamespace, tmp_path: Path
) -> None:
    overrides = {**tiny.overrides, "data.image_size": 16, **more}
    with pytest.raises(kind) as caught:
        train("digits", recipe="digits", overrides=overrides, run=tmp_path / "run", device="cpu", show=False)
    assert all(name in str(caught.value) for name in named)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("call", [train, find_lr, thirtytwo.load_dataset, thirtytwo.train_seeds, thirtytwo.tune])
@pytest.mark.parametrize(("data", "found"), [(["a.jpg"], "list"), (None, "NoneType"), (b"cifar10", "bytes")])
def test_data_that_is_no_path_is_refused(call: Callable[..., Any], data: object, found: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^data must be .*; found {found}.") as caught:
        call(data)
    assert "x_train" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (0, "at least 1; found 0"),
        ("5", "an integer of at least 1; found '5'"),
        (1.5, "an integer of at least 1; found 1.5"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        train,
        thirtytwo.tune,
        find_lr,
        partial(thirtytwo.train_seeds, seeds=[0]),
        partial(thirtytwo.train_folds, folds=2),
    ],
    ids=["train", "tune", "find_lr", "seeds", "folds"],
)
def test_a_limit_of_no_training_images_is_refused(call: Callable[..., Any], limit: object, found: str) -> None:
    with pytest.raises(ArgumentError, match=f"limit_train must be {found}"):
        call("digits", recipe="digits", limit_train=limit)


@pytest.mark.parametrize("folds", ["3", 2.5])
def test_a_number_of_folds_that_is_no_integer_is_refused(folds: Any) -> None:
    with pytest.raises(ArgumentError, match=f"folds must be an integer of at least 2; found {folds!r}"):
        thirtytwo.train_folds("digits", recipe="digits", folds=folds)


@pytest.mark.parametrize("call", [train, find_lr], ids=["train", "find_lr"])
def test_an_empty_name_of_a_recipe_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(UnknownNameError, match="recipe ''"):
        call("digits", recipe="")


@pytest.mark.parametrize(
    "call",
    [
        train,
        thirtytwo.tune,
        thirtytwo.load_dataset,
        lambda data: thirtytwo.train_seeds(data, seeds=[0]),
        lambda data: thirtytwo.train_folds(data, folds=2),
    ],
    ids=["train", "tune", "load_dataset", "seeds", "folds"],
)
def test_data_may_be_a_path(call: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="my-images"):
        call(tmp_path / "my-images")
