"""The bundled recipes that start from scratch: two epochs on 36 images, export, and prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import thirtytwo
from thirtytwo.config.resolve import recipe_names

FROM_WEIGHTS = {"few-shot", "further", "photos", "transfer-resnet50", "transfer-vit"}
"""Tested with small weights in `test_transfer_recipes.py`, `photos` in `test_photos.py`."""
NARROW: dict[str, dict[str, Any]] = {
    "classic-96": {"model.options.input_size": 32},
    "classic-finetuned": {},
    "classic-frozen": {},
    "digits": {},
    "distilled": {"model.options.groups": [{"width": 8}, {"width": 16}]},
    "fast": {
        "model.options.groups": [{"width": 8}, {"width": 16}],
        "schedule.resolution": [{"size": 12, "until": 0.5}],
    },
    "resnet18": {"model.options.channels": [8, 16, 24, 32]},
    "thorough": {"model.options.groups": [{"width": 8}, {"width": 16}]},
    "tiny": {},
    "strong": {"model.options": {"depth": 10, "width": 1}},
    "transfer-lite2": {"model.options.architecture": "tf_efficientnet_lite0", "model.options.input_size": 64},
    "textbook-cnn": {"model.options.widths": [8, 16], "schedule.resolution": [{"size": 12, "until": 0.5}]},
}
"""Reductions for speed: images of 16 pixels, and fewer channels and layers in some networks."""


def test_every_recipe_is_tested() -> None:
    assert FROM_WEIGHTS | set(NARROW) == set(recipe_names())


@pytest.mark.long
@pytest.mark.parametrize("recipe", NARROW)
def test_a_recipe_trains_exports_and_predicts(recipe: str, tmp_path: Path, tiny: SimpleNamespace) -> None:
    images = tiny.images(36, size=16)
    folder = tiny.folder(tmp_path / "few", 36, size=16)
    settings = {"data.image_size": 16, "train.precision": "float32", "evaluate.tta": False, **NARROW[recipe]}
    run = thirtytwo.train(str(folder), recipe=recipe, run=tmp_path / "run", epochs=2, overrides=settings, show=False)
    assert run.metrics["n"]
    prediction = thirtytwo.load(run.path).predict(images.images[0])[0]
    assert prediction.top in images.classes
    assert 0 < prediction.confidence <= 1
