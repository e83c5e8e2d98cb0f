"""Networks for CIFAR: parameter counts and computations as published."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from thirtytwo.config.resolve import parse_overrides, read_recipe_values, resolve_recipe
from thirtytwo.errors import RecipeError
from thirtytwo.models import MODELS, Network
from thirtytwo.models.base import check_options, features_of
from thirtytwo.models.textbook import Textbook

PARAMETERS: list[tuple[str, dict[str, Any], int]] = [
    ("resnet18", {}, 11_173_962),
    ("resnet18", {"channels": [8, 16, 24, 32]}, 72_746),
    ("resnet34", {}, 21_282_122),
    ("resnet50", {}, 23_520_842),
    ("preresnet18", {}, 11_172_170),
    ("wideresnet", {}, 36_479_194),
    ("wideresnet", {"depth": 16, "width": 8}, 10_961_370),
    ("vgg16", {}, 14_728_266),
    ("densenet", {}, 769_162),
    ("fastnet-s", {}, 1_972_792),
]


def net(name: str, options: dict[str, Any] | None = None, classes: int = 10) -> Any:
    torch.manual_seed(0)
    return MODELS.get(name)(classes, options or {})


def convolutions(made: nn.Module) -> list[nn.Conv2d]:
    return [module for module in made.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "count"), PARAMETERS)
def test_parameter_counts_equal_the_papers(name: str, options: dict[str, Any], count: int) -> None:
    assert sum(parameter.numel() for parameter in net(name, options).parameters()) == count


def test_preactivation_equals_timm() -> None:
    ours = net("preresnet18").train()
    theirs = net("timm", {"architecture": "resnetv2_18"}).train()
    names = {"stem.weight": "body.stem.conv.weight", "head.weight": "head.weight", "head.bias": "head.bias"}
    for index in range(8):
        block = f"body.stages.{index // 2}.blocks.{index % 2}"
        names[f"blocks.{index}.shortcut.weight"] = f"{block}.downsample.conv.weight"
        for layer in ("conv1", "conv2"):
            names[f"blocks.{index}.{layer}.weight"] = f"{block}.{layer}.weight"
    weights = theirs.state_dict()
    found = {ours_name: weights[name] for ours_name, name in names.items() if name in weights}
    found |= {name: torch.randn_like(value) * 0.05 for name, value in found.items() if "conv2" in name}
    theirs.load_state_dict({names[name]: value for name, value in found.items()}, strict=False)
    missing = ours.load_state_dict(found, strict=False)
    assert missing.unexpected_keys == []
    assert all("norm" in name for name in missing.missing_keys)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


def test_wideresnet_starts_as_in_its_paper() -> None:
    made = net("wideresnet", {"depth": 10, "width": 4})
    for conv in convolutions(made):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert conv.bias is None
    widths = [conv.out_channels for conv in convolutions(made) if conv.kernel_size == (3, 3)]
    assert widths == [16, 64, 64, 128, 128, 256, 256]


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_can_start_at_zero(zero: bool) -> None:
    made = net("resnet18", {"zero_init_last": zero})
    last = [block.bn2.weight for layer in (made.body.layer1, made.body.layer4) for block in layer]
    assert all(bool((weight == 0).all()) == zero for weight in last)


@pytest.mark.slow
def test_small_images_keep_their_resolution() -> None:
    strided = {
        name: [conv.stride[0] for conv in convolutions(net(name)) if conv.stride != (1, 1) and conv.kernel_size[0] == 3]
        for name in ("resnet18", "vgg16", "densenet", "preresnet18")
    }
    assert strided == {"resnet18": [2, 2, 2], "vgg16": [], "densenet": [], "preresnet18": [2, 2, 2]}
    assert not any(isinstance(module, nn.MaxPool2d) for module in net("resnet18").modules())
    assert sum(isinstance(module, nn.MaxPool2d) for module in net("vgg16").modules()) == 4


def test_densenet_bc_has_a_bottleneck_and_halves_at_transitions() -> None:
    made = net("densenet", {"depth": 22, "growth": 12})
    shapes = [(conv.in_channels, conv.out_channels, conv.kernel_size[0]) for conv in convolutions(made)]
    block = [(24, 48, 1), (48, 12, 3), (36, 48, 1), (48, 12, 3), (48, 48, 1), (48, 12, 3)]
    assert shapes[:8] == [(3, 24, 3), *block, (60, 30, 1)]


def test_textbook_follows_its_settings() -> None:
    options = {"widths": [8, 16], "convolutions": 1, "dropout": [0.1], "dense": [20], "dense_dropout": 0.3, "places": 2}
    made = net("textbook", options)
    assert isinstance(made, Textbook)
    assert [conv.out_channels for conv in convolutions(made)] == [8, 16]
    assert [layer.p for layer in made.modules() if isinstance(layer, nn.Dropout)] == [0.1, 0.1, 0.3]
    assert [(layer.in_features, layer.out_features) for layer in made.modules() if isinstance(layer, nn.Linear)] == [
        (64, 20),
        (20, 10),
    ]
    with torch.inference_mode():
        made.eval()
        maps = made.forward_features(torch.randn(2, 3, 16, 16))
        assert maps.shape == (2, 16, 4, 4)
        averaged = maps.view(2, 16, 2, 2, 2, 2).mean(dim=(3, 5))
        torch.testing.assert_close(features_of(made, maps), made.hidden(averaged.flatten(1)))


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("wideresnet", {"depth": 18}, ["depth", "6 n + 4"]),
        ("wideresnet", {"widht": 2}, ["'widht'", "'width'"]),
        ("densenet", {"depth": 12}, ["depth", "6 n + 4"]),
        ("resnet18", {"architecture": "resnet50"}, ["'architecture'"]),
        ("textbook", {"widths": []}, ["model.options of textbook", "widths"]),
        ("textbook", {"dropout": [1.0]}, ["dropout", "1.0"]),
        ("fastnet-m", {"poolin": "max"}, ["model.options of fastnet-m", "'pooling'"]),
    ],
)
def test_wrong_options(name: str, options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        net(name, options)
    assert all(part in str(caught.value) for part in parts)


def test_sizes_of_fastnet_take_its_options() -> None:
    made = net("fastnet-m", {"activation": "silu", "pooling": "max+mean"})
    assert [group.widen.out_channels for group in made.groups] == [128, 384, 384]
    assert isinstance(made.activation, nn.SiLU)
    assert made.pooling == "max+mean"


@pytest.mark.parametrize("name", ["resnet18", "wideresnet", "textbook", "densenet"])
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    options = {"wideresnet": {"depth": 10, "width": 1}, "densenet": {"depth": 10}}.get(name, {})
    one, other = net(name, options), net(name, options)
    assert isinstance(one, Network)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_options_of_another_network_can_be_dropped_as_advised() -> None:
    values, other = read_recipe_values("fast"), {"model.name": "textbook"}
    with pytest.raises(RecipeError) as caught:
        check_options(resolve_recipe(values, other, classes=10, rows=1000).model)
    override = "model.options={}"
    assert override in str(caught.value)
    again = resolve_recipe(values, other | parse_overrides([override]), classes=10, rows=1000)
    check_options(again.model)
