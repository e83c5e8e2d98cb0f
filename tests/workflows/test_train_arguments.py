"""Arguments of training that are refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import thirtytwo
from thirtytwo.config.resolve import format_override
from thirtytwo.errors import ArgumentError, DataError, RecipeError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.seeds import _check_seeds as seeds_of
from thirtytwo.workflows.train import find_lr, train, with_settings


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
    with pytest.raises(ArgumentError, match="^recipe is empty"):
        call("digits", recipe="")


@pytest.mark.parametrize("name", ["fix_plan", "pretrained"])
def test_an_empty_source_of_a_training_is_refused(name: str) -> None:
    empty: dict[str, Any] = {name: ""}
    with pytest.raises(ArgumentError, match=f"^{name} is empty"):
        train("digits", **empty)


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


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (partial(train, "digits", overrides=["optimizer.lr=0.1"]), "overrides must be values by dotted key"),
        (partial(thirtytwo.tune, "digits", trials=None), "trials must be an integer"),
        (partial(thirtytwo.evaluate, None), "run must be a path"),
        (partial(thirtytwo.write_report, None), "run must be a path"),
        (partial(train, "digits", run=["runs/mine"]), "run must be a path"),
        (partial(thirtytwo.train_seeds, "digits", seeds=[0], run=3), "run must be a path"),
        (partial(thirtytwo.tune, "digits", run=3), "run must be a path"),
        (partial(thirtytwo.load, 3), "name_or_path must be a path"),
        (partial(thirtytwo.load, ["cifar10"]), "name_or_path must be a path"),
        (partial(thirtytwo.compare, None), "runs must be a path"),
        (partial(thirtytwo.compare, [None, 3]), "runs must be a path"),
        (partial(thirtytwo.ensemble, None), "runs must be a path"),
        (partial(thirtytwo.load_dataset, "digits", seed=None), "seed must be an integer"),
        (partial(thirtytwo.load_dataset, "digits", group_by=None), "'group_by' must be"),
        (partial(thirtytwo.load_dataset, "digits", seed=10**19), "'split_seed' must be"),
        (partial(thirtytwo.load_dataset, "digits", image_size=None), "The image size is None"),
        (partial(thirtytwo.load_dataset, "digits", image_size="32"), "The image size is '32'"),
        (partial(thirtytwo.load_dataset, "digits", image_size=32.5), "The image size is 32.5"),
        (partial(train, "digits", recipe=3), "recipe must be a path; found 3"),
        (partial(train, "digits", recipe={"a": 1}), "recipe must be a path; found {'a': 1}"),
        (partial(find_lr, "digits", recipe=3), "recipe must be a path; found 3"),
        (partial(thirtytwo.train_seeds, "digits", seeds=[0], recipe=3), "recipe must be a path; found 3"),
        (partial(thirtytwo.train_folds, "digits", folds=2, recipe=3), "recipe must be a path; found 3"),
        (partial(thirtytwo.tune, "digits", recipe=3), "recipe must be a path; found 3"),
        (partial(train, "digits", pretrained=3), "pretrained must be a path; found 3"),
        (partial(train, "digits", fix_plan=3), "fix_plan must be a path; found 3"),
        (partial(train, "digits", overrides={1: 2}), "overrides must be values by dotted key"),
        (partial(thirtytwo.tune, "digits", space=3), "space must be a path; found 3"),
        (partial(thirtytwo.tune, "digits", space={1: 2}), "unknown key '1'"),
        (partial(thirtytwo.tune, "digits", metric=3), "metric must be text; found 3"),
        (partial(thirtytwo.tune, "digits", pruner=3), "pruner must be text; found 3"),
        (partial(thirtytwo.export_model, None, "onnx-int8"), "model must be a path; found None"),
        (partial(thirtytwo.export_model, "digits", None), "kind must be text; found None"),
        (partial(thirtytwo.export_model, "digits", "onnx-int8", out=3), "out must be a path; found 3"),
        (partial(thirtytwo.push, "runs/a", None, dry_run=True), "repository must be text; found None"),
        (partial(thirtytwo.compare, ["runs/a", "runs/b"], out=3), "out must be a path; found 3"),
        (partial(thirtytwo.Classifier, 3), "path must be a path; found 3"),
    ],
)
def test_wrong_arguments_are_named(
    call: Callable[[], Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThirtytwoError) as caught:
        call()
    assert named in str(caught.value)
    assert not list(tmp_path.iterdir())


_WITH_A_RUN: list[Callable[..., Any]] = [
    partial(train, "no-such-data"),
    partial(thirtytwo.train_seeds, "no-such-data", seeds=[0]),
    partial(thirtytwo.train_folds, "no-such-data", folds=2),
    partial(thirtytwo.tune, "no-such-data"),
    partial(thirtytwo.ensemble, ["runs/a", "runs/b"]),
]
_WITH_A_DATA_ROOT: list[Callable[..., Any]] = [
    *_WITH_A_RUN,
    partial(find_lr, "no-such-data"),
    partial(thirtytwo.load_dataset, "no-such-data"),
    partial(thirtytwo.export_model, "no-such-model", "onnx-int8"),
    partial(thirtytwo.compare, ["runs/a", "runs/b"]),
]


@pytest.mark.parametrize(("value", "found"), [(3, "must be a path; found 3"), ("", "is empty. Check whether")])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        *((call, "run") for call in _WITH_A_RUN),
        *((call, "data_root") for call in _WITH_A_DATA_ROOT),
        (partial(train, "no-such-data", resume=True), "run"),
        (thirtytwo.evaluate, "run"),
        (thirtytwo.write_report, "run"),
        (partial(thirtytwo.push, repository="owner/name"), "run"),
        (thirtytwo.compare, "runs"),
        (thirtytwo.ensemble, "runs"),
        (partial(thirtytwo.compare, ["runs/a", "runs/b"]), "out"),
        (partial(thirtytwo.export_model, "no-such-model", "onnx-int8"), "out"),
        (partial(thirtytwo.tune, "no-such-data"), "space"),
        (thirtytwo.Classifier, "path"),
    ],
)
def test_paths_that_are_none_or_empty_are_refused(
    call: Callable[..., Any], name: str, value: object, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=f"^{name} {found}"):
        call(**{name: value})
    assert not list(tmp_path.iterdir())


def test_an_empty_recipe_is_not_that_of_the_current_folder(
    finished_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_run(tmp_path / "run"))
    with pytest.raises(ArgumentError, match="^recipe is empty"):
        find_lr("digits", recipe="")


def test_arguments_of_a_finished_run_are_named(finished_run: Callable[..., Path], tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    for name, value, found in (
        ("ood", 3, "ood must be .*; found int"),
        ("ood", [3], "ood must be .*; found int"),
        ("data_root", 3, "data_root must be a path"),
        ("data_root", "", "data_root is empty"),
    ):
        with pytest.raises(ArgumentError, match=f"^{found}"):
            thirtytwo.evaluate(run, **{name: value})
    for name, value, found in (
        ("out", 3, "out must be a path"),
        ("out", "", "out is empty"),
        ("data_root", 3, "data_root must be a path"),
    ):
        with pytest.raises(ArgumentError, match=f"^{found}"):
            thirtytwo.write_report(run, **{name: value})


def test_a_run_is_a_recipe_and_weights_to_start_from(finished_run: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(finished_run(tmp_path / "run"), {})
    with pytest.raises(UnknownNameError, match="no-such-data"):
        train("no-such-data", recipe=run, pretrained=run)


def test_a_missing_argument_is_named_by_python() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'run'"):
        thirtytwo.evaluate()  # type: ignore[call-arg]


def test_a_run_counts_as_its_path(finished_run: Callable[..., Path], tmp_path: Path) -> None:
    run = Run(finished_run(tmp_path / "run"), {})
    for combine in (thirtytwo.compare, thirtytwo.ensemble):
        with pytest.raises(DataError, match="at least 2|needs two"):
            combine(run)


def test_numpy_scalars_and_paths_are_settings_like_others(tiny: SimpleNamespace, tmp_path: Path) -> None:
    overrides = {**tiny.overrides, "data.image_size": np.int64(16), "optimizer.lr": np.float32(0.25)}
    overrides["transfer.pretrained"] = tmp_path / "none"
    with pytest.raises(ThirtytwoError, match="none"):
        train("digits", recipe="digits", overrides=overrides, show=False)
    found = with_settings(overrides, {"seed": np.int64(3), "schedule.epochs": None})
    assert found["seed"] == 3
    assert [type(found[key]) for key in ("seed", "data.image_size", "optimizer.lr")] == [int, int, float]
    assert found["transfer.pretrained"] == str(tmp_path / "none")
    assert "schedule.epochs=3" in [format_override(key, value) for key, value in found.items()]
    assert seeds_of(np.arange(3)) == [0, 1, 2]
    assert {type(seed) for seed in seeds_of(np.arange(3))} == {int}
