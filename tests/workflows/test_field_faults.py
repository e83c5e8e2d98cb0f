"""Training on data with faults, and with settings that have no effect or cannot work."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.resolve import read_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import divide
from thirtytwo.errors import DataError, RecipeError
from thirtytwo.models import MODELS
from thirtytwo.workflows.prepare import check_batch_size, prepare

LATIN = os.fsdecode(b"K\xe4fer")


@pytest.fixture
def options(tiny) -> dict[str, object]:
    return {"overrides": tiny.overrides | {"schedule.epochs": 1}, "show": False}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache"))


def flags(overrides: dict[str, object]) -> list[str]:
    from thirtytwo.config.resolve import format_override

    return [word for key, value in overrides.items() for word in ("--set", format_override(key, value))]


@pytest.mark.long
def test_unreadable_images_are_left_out_and_noted_in_the_run_and_the_report(tiny, options, tmp_path, capfd):
    root = tiny.folder(tmp_path / "set", 48)
    for name in ("class 0/0.png", "class 1/1.png"):
        (root / name).write_bytes((root / name).read_bytes()[:50])
    with pytest.raises(DataError, match="--skip-unreadable"):
        thirtytwo.train(str(root), run=tmp_path / "stopped", **options)
    run = tmp_path / "run"
    words = ["train", str(root), "--run", str(run), "--skip-unreadable", *flags(options["overrides"])]
    assert run_command(words) == 0
    assert "2 images that cannot be read" in capfd.readouterr().err
    about = json.loads((run / "environment.json").read_text())["data"]
    assert about["train"] + about["val"] + about["test"] == 46
    (note,) = (one for one in about["skipped"] if "cannot be read" in one)
    assert "class 0/0.png" in note
    assert "class 0/0.png" in (run / "report.html").read_text()
    assert run_command(["evaluate", str(run)]) == 0
    assert run_command(["train", str(root), "--run", str(run), "--resume"]) == 0


def test_a_class_of_which_no_image_can_be_read_is_named(tiny, tmp_path):
    root = tiny.folder(tmp_path / "set", 12)
    for file in (root / "class 1").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="'class 1'"):
        load_dataset(str(root), skip_unreadable=True)


@pytest.mark.long
def test_names_that_are_not_utf8_work_from_training_to_explaining(options, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label in ("a", LATIN):
        (tmp_path / LATIN / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            (tmp_path / LATIN / label / f"{LATIN}{number}.png").write_bytes(buffer.getvalue())
    for words in (
        ["data", "doctor", LATIN],
        ["data", "show", LATIN, "--sheet", "sheet.png"],
        ["train", LATIN, "--run", LATIN + "run", *flags(options["overrides"])],
        ["evaluate", LATIN + "run"],
        ["report", LATIN + "run"],
        ["explain", LATIN, "--model", LATIN + "run", "--out", "out", "--no-score"],
        ["predict", LATIN, "--model", LATIN + "run", "--format", "json", "--out", "found.json"],
        ["predict", LATIN, "--model", LATIN + "run", "--format", "csv", "--out", "found.csv"],
        ["predict", LATIN, "--model", LATIN + "run"],
        ["teach", LATIN, "--out", f"{LATIN}.onnx", "--base", "cifar10"],
        ["predict", LATIN, "--model", f"{LATIN}.onnx"],
    ):
        assert run_command(words) == 0, (words, capfd.readouterr().err[-2000:])
    printed = capfd.readouterr()
    assert "K\\xe4fer" in printed.out
    assert len(json.loads(Path("found.json").read_text())) == 24
    assert len(json.loads(Path("out/explanations.json").read_text())) == 24
    assert thirtytwo.load(LATIN + "run").classes == ("a", "K\\xe4fer")


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"data__val_fraction": 0.0, "train__patience": 2}, "train.patience = 2"),
        ({"data__val_fraction": 0.0, "train__keep": "best"}, "train.keep"),
        ({"data__val_fraction": 0.0}, ""),
        ({"train__patience": 2, "train__keep": "best"}, ""),
    ],
)
def test_settings_without_validation_to_work_on_are_noted(changes, noted, tiny, tmp_path):
    data = load_dataset(str(tiny.folder(tmp_path / "set", 48)))
    notes = [note for note in divide(data, tiny.recipe(**changes)).notes if "has no effect" in note]
    assert [noted in note and "data.val_fraction = 0" in note for note in notes] == ([True] if noted else [])


def test_a_limit_below_the_number_of_classes_names_the_option(tiny, tmp_path):
    data = load_dataset(str(tiny.folder(tmp_path / "set", 48)))
    with pytest.raises(DataError, match="--limit-train"):
        divide(data, tiny.recipe(data__limit_train=2))
    assert len(divide(data, tiny.recipe(data__limit_train=3)).train) == 3


@pytest.mark.parametrize(("model", "refused"), [("textbook", True), ("fastnet", False)])
def test_batches_of_one_image_are_refused_where_batchnorm_needs_more(model, refused, tiny):
    recipe = tiny.recipe(model__name=model, model__options={})
    net = MODELS.get(model)(3, recipe.model.options)
    check_batch_size(net, recipe, 2, 32)
    if refused:
        with pytest.raises(RecipeError, match=r"batch_size"):
            check_batch_size(net, recipe, 1, 32)
    else:
        check_batch_size(net, recipe, 1, 32)


@pytest.mark.parametrize("own_val", [True, False])
def test_the_record_says_whether_validation_is_the_data_s_own(own_val, tiny, tmp_path):
    for number, split in enumerate(("train", "val", "test") if own_val else ("train", "test")):
        tiny.folder(tmp_path / "set" / split, 48, seed=number)
    plan = prepare(str(tmp_path / "set"), "fast", {**tiny.overrides, "data.image_size": 16}, "cpu", None)
    assert plan.split["own_val"] is own_val
    assert (plan.split["n_val"] == 48) is own_val


@pytest.mark.parametrize(("sampler", "weights"), [("shuffle", "balanced"), ("balanced", "none")])
def test_automatic_class_weights_do_not_balance_what_the_sampler_balances(sampler, weights, tiny, tmp_path):
    root = tiny.folder(tmp_path / "set", 120)
    for image in sorted((root / "class 2").iterdir())[3:]:
        image.unlink()
    changes = {**tiny.overrides, "data.image_size": 16, "train.class_weights": "auto", "train.sampler": sampler}
    plan = prepare(str(root), "fast", changes, "cpu", None)
    assert plan.recipe.train.class_weights == weights
    (choice,) = (one for one in plan.hardware.choices if one.what == "class weights")
    assert choice.value == weights
    (tmp_path / "recipe.toml").write_text(plan.recipe.to_toml(), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.toml") == plan.recipe, "what a run writes can be read again"
