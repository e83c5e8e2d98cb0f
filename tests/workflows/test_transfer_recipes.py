"""The bundled transfer recipes: two epochs on a few images, with small weights of the same layout."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
from safetensors.torch import save_file

import thirtytwo
from thirtytwo.config.recipe import ModelSettings
from thirtytwo.errors import RecipeError
from thirtytwo.rundir import RunDir

FLOAT = {"train.precision": "float32"}
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
@pytest.mark.long
def test_recipes_from_a_file_of_timm(recipe: str, folder: Path, tmp_path: Path) -> None:
    arguments, settings = CASES[recipe]
    architecture = thirtytwo.config.resolve.read_recipe(recipe).model.options["architecture"]
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


@pytest.mark.long
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


@pytest.fixture
def finished(folder: Path, tmp_path: Path) -> Path:
    """A run of one epoch on `folder`."""
    changes = {"data.image_size": 16, "model.options.groups": [{"width": 8}, {"width": 16}], **FLOAT}
    run = thirtytwo.train(str(folder), run=tmp_path / "first", epochs=1, overrides=changes, show=False)
    return run.path


@pytest.mark.long
def test_further_continues_the_network_of_a_run(folder: Path, finished: Path, tmp_path: Path) -> None:
    run = thirtytwo.train(
        str(folder),
        recipe="further",
        pretrained=finished,
        run=tmp_path / "second",
        epochs=2,
        overrides=FLOAT,
        show=False,
    )
    first, second = (RunDir.open(path) for path in (finished, run.path))
    before, after = first.read_recipe(), second.read_recipe()
    assert (after.model, after.optimizer, after.data) == (before.model, before.optimizer, before.data)
    assert after.augment.cutmix == 1.0
    assert first.read_json(first.split)["val_rows"] == second.read_json(second.split)["val_rows"]


def test_further_needs_a_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        thirtytwo.train(str(folder), recipe="further", run=tmp_path / "second", show=False)


@pytest.mark.parametrize(
    ("changed", "fix"),
    [({"data.val_fraction": 0.5}, "--set data.val_fraction=0.1"), ({"data.split_seed": 1}, "--set data.split_seed=0")],
)
def test_leakage_from_the_pretrained_run_is_refused(
    changed: dict[str, Any], fix: str, folder: Path, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as raised:
        thirtytwo.train(
            str(folder),
            recipe="further",
            pretrained=finished,
            run=tmp_path / "second",
            overrides={**FLOAT, **changed},
            show=False,
        )
    assert raised.value.fix is not None
    assert str(finished) in raised.value.message
    assert fix in raised.value.fix
    assert not (tmp_path / "second").exists()


@pytest.mark.long
def test_leakage_from_the_teacher_is_refused(folder: Path, finished: Path, tmp_path: Path) -> None:
    changes = {
        "data.image_size": 16,
        "model.options.groups": [{"width": 8}],
        "train.distill.run": str(finished),
        **FLOAT,
    }

    def learn(**more: float) -> thirtytwo.Run:
        place = tmp_path / "second"
        return thirtytwo.train(str(folder), run=place, epochs=1, overrides=changes | more, show=False)

    with pytest.raises(RecipeError) as caught:
        learn(**{"data.val_fraction": 0.5})
    assert "distilled" in caught.value.message
    assert str(finished) in caught.value.message
    assert learn().metrics["n"]


@pytest.mark.long
def test_separate_validation_split_is_no_leakage(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Its rows have the same numbers as those of training, and are other images."""
    for seed, split in enumerate(("train", "val", "test")):
        tiny.folder(tmp_path / "parts" / split, 36, size=16, seed=seed)
    changes: dict[str, Any] = {"data.image_size": 16, "model.options.groups": [{"width": 8}], **FLOAT}
    first = thirtytwo.train(str(tmp_path / "parts"), run=tmp_path / "first", epochs=1, overrides=changes, show=False)
    again = thirtytwo.train(
        str(tmp_path / "parts"),
        recipe="further",
        pretrained=first.path,
        run=tmp_path / "second",
        epochs=1,
        overrides=FLOAT,
        show=False,
    )
    assert again.metrics["n"] == 36
