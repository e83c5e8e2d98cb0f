"""Fast training runs, and a network without normalisation whose steps can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.models.base import MODELS, Network
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import Fitted, fit
from thirtytwo.training.hardware import choose_hardware

Train = Callable[..., Fitted]


class Plain(Network):
    """A linear layer on the mean color of each quarter of the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(12, classes)

    def forward_features(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2)

    def pool(self, maps: Tensor) -> Tensor:
        return maps.flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"filters": [], "stem_bias": [], "rest": [self.head.bias], "head": [self.head.weight]}


@pytest.fixture
def plain_net(monkeypatch: pytest.MonkeyPatch) -> str:
    """The registered name of `Plain`."""

    def build(classes: int, options: Mapping[str, Any]) -> Plain:
        return Plain(classes)

    monkeypatch.setitem(MODELS._entries, "plain", build)
    return "plain"


@pytest.fixture
def train(tmp_path: Path, tiny: SimpleNamespace) -> Train:
    """`train(run, recipe)` trains on 48 images of 3 classes, with 12 for validation, in the directory `run`."""

    def run_fit(run: str, recipe: Recipe, *, resume: bool = False, val: bool = True, show: bool = False) -> Fitted:
        hardware = choose_hardware(recipe.train, "cpu")
        held_out = tiny.images(12, seed=1) if val else None
        directory = RunDir(tmp_path / run)
        directory.path.mkdir(exist_ok=True)
        return fit(recipe, tiny.images(48), held_out, directory, hardware, resume=resume, show=show)

    return run_fit


@pytest.fixture
def same_weights() -> Callable[[Fitted, Fitted], bool]:
    def same(one: Fitted, other: Fitted) -> bool:
        theirs = other.net.state_dict()
        return all(torch.equal(value, theirs[name]) for name, value in one.net.state_dict().items())

    return same
