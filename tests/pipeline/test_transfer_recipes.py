"""The shipped recipes that start from weights: two epochs on a few pictures, with small weights of the right shape."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

import thirtytwo
from thirtytwo.recipe import ModelSettings
from thirtytwo.rundir import RunDir

VIT: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transfer-resnet50": (
        {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]},
        {"model.options.input_size": 32, "model.options.head": [8, 4]},
    ),
    "transfer-vit": (VIT, {"model.options.input_size": 32, "transfer.unfreeze": "blocks.1"}),
    "few-shot": (VIT, {"model.options.input_size": 28, "data.image_size": 28}),
}
"""Arguments that make the recipe's architecture small, and settings that go with them."""


@pytest.fixture
def folder(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    made: Path = tiny.folder(tmp_path / "few", 36, size=20)
    return made


@pytest.mark.parametrize("recipe", CASES)
def test_recipes_from_a_file_of_timm(recipe: str, folder: Path, tmp_path: Path) -> None:
    arguments, settings = CASES[recipe]
    architecture = thirtytwo.recipe.read_recipe(recipe).model.options["architecture"]
    save_file(timm.create_model(architecture, **arguments).state_dict(), tmp_path / "w.safetensors")
    run = thirtytwo.train(
        str(folder),
        recipe=recipe,
        pretrained=tmp_path / "w.safetensors",
        run=tmp_path / "run",
        epochs=2,
        overrides={"model.options.arguments": arguments, "train.precision": "float32", **settings},
        show=False,
    )
    assert run.metrics["n"]
    saved = RunDir.open(run.path).read_recipe()
    assert saved.model.options["pretrained"] is True
    assert saved.transfer.pretrained.endswith("w.safetensors")


def test_few_shot_from_a_run(folder: Path, pretrain: Any, tmp_path: Path) -> None:
    groups = [{"width": 8}, {"width": 16}]
    source, _ = pretrain(ModelSettings(name="fastnet", options={"groups": groups}), [str(n) for n in range(10)])
    changes = {"optimizer.lr_head": 2.0, "train.precision": "float32"}
    run = thirtytwo.train(
        str(folder), recipe="few-shot", pretrained=source, run=tmp_path / "run", epochs=2, overrides=changes, show=False
    )
    saved = RunDir.open(run.path).read_recipe()
    assert (saved.model.name, saved.data.image_size, saved.optimizer.name) == ("fastnet", 16, "muon")
    assert saved.optimizer.lr_head == 2.0, "the command line has the last word"
    (run.path / "report.html").unlink()
    again = thirtytwo.train(str(folder), run=run.path, resume=True, show=False)
    assert again.metrics["accuracy"] == run.metrics["accuracy"]
