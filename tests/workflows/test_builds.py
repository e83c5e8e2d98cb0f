"""How often a training builds its network, and that options are checked before the data is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import ModelSettings
from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.models.base import MODELS, Network, build_network, check_options, roles_by_kind
from thirtytwo.workflows.prepare import prepare
from thirtytwo.workflows.train import find_lr, train


class Counted(Network):
    """A linear layer on mean colors that counts how often it is constructed."""

    built: list[int] = []  # noqa: RUF012

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.built.append(classes)
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, classes)

    def forward_features(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images)
        return found

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return roles_by_kind(self, self.head)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of classes of each construction of the registered network `counted`."""

    def build(classes: int, options: Mapping[str, Any]) -> Counted:
        return Counted(classes)

    monkeypatch.setitem(MODELS._entries, "counted", build)
    monkeypatch.setattr(Counted, "built", [])
    return Counted.built


@pytest.fixture
def settings(tiny: SimpleNamespace) -> dict[str, Any]:
    own = {"data.image_size": 16, "schedule.epochs": 1, "model.name": "counted", "model.options": {}}
    return {**tiny.overrides, **own}


@pytest.mark.long
def test_a_training_builds_its_network_once(counted: list[int], settings: dict[str, Any], tmp_path: Path) -> None:
    train("digits", recipe="digits", overrides=settings, limit_train=60, run=tmp_path / "run", show=False)
    assert counted == [10]


@pytest.mark.long
def test_a_training_on_other_classes_builds_once(
    counted: list[int], settings: dict[str, Any], tmp_path: Path, tiny: SimpleNamespace
) -> None:
    folder = tiny.folder(tmp_path / "images", 60)
    train(str(folder), recipe="digits", overrides=settings, run=tmp_path / "run", show=False)
    assert counted == [3]


def test_the_lr_finder_builds_once(counted: list[int], settings: dict[str, Any]) -> None:
    find_lr("digits", recipe="digits", overrides=settings, limit_train=60, show=False)
    assert counted == [10]


def test_the_network_of_a_plan_is_the_one_that_is_trained(counted: list[int], settings: dict[str, Any]) -> None:
    plan = prepare("digits", "digits", settings | {"data.limit_train": 60}, "cpu", None)
    assert plan.initialized is not None
    fresh = build_network(plan.recipe, 10).state_dict()
    for name, value in plan.initialized.net.state_dict().items():
        assert torch.equal(value, fresh[name]), f"{name} is untouched until training"


@pytest.mark.parametrize(
    ("model", "options", "found"),
    [
        ("fastnet", {"pooling": "median"}, "median"),
        ("fastnet-m", {"colour": 1}, "colour"),
        ("textbook", {"widths": []}, "widths"),
        ("wideresnet", {"depth": 11}, "depth"),
        ("resnet18", {"channels": [1]}, "channels"),
        ("timm", {"architecture": "resnet1000000"}, "resnet1000000"),
        ("timm", {"architecture": "resnet18", "arguments": {"petals": 5}}, "petals"),
        ("timm", {"architecture": "xception41", "small_images": "stem"}, "small_images"),
        ("nonesuch", {}, "nonesuch"),
    ],
)
def test_options_are_checked_before_the_data_is_read(
    model: str, options: dict[str, Any], found: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"model.name": model, "model.options": options}
    with pytest.raises(ThirtytwoError) as error:
        prepare(str(tmp_path / "no such folder"), "digits", settings, "cpu", None)
    assert found in str(error.value)


def test_a_teacher_is_looked_for_before_the_data_is_read(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"model.name": "fastnet", "train.distill.run": str(tmp_path / "no such run")}
    with pytest.raises(RunError, match="train.distill.run.*no such run"):
        prepare(str(tmp_path / "no such folder"), "digits", settings, "cpu", None)


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def test_architectures_are_checked_without_changing_the_random_state(architecture: str) -> None:
    before = torch.get_rng_state()
    check_options(ModelSettings(name="timm", options={"architecture": architecture}))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RecipeError):
        check_options(ModelSettings(name="timm", options={"architecture": architecture, "arguments": {"petals": 5}}))
