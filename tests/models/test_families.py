"""Every family of networks: a training step, maps, heatmaps, taps and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import check_parity
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import open_session
from thirtytwo.models import MODELS, Network
from thirtytwo.models.base import features_of
from thirtytwo.models.fastnet import FastNet
from thirtytwo.models.textbook import Textbook

CLASSES = 5
SMALL_RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
SMALL_DENSENET = {"block_config": [2, 2, 2, 2], "growth_rate": 8}
SMALL_CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
SMALL_SWIN = {"depths": [1, 2], "embed_dim": 24}
AVERAGED = {"global_pool": "avg", "class_token": False, "depth": 2}

Row = tuple[str, dict[str, Any], tuple[int, ...], bool]


def timm(architecture: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "timm", {"architecture": architecture, "arguments": arguments}


SMALL: dict[str, Row] = {
    # network and options, last maps of a 32-pixel image, whether there are heatmaps
    "resnet, enlarged": ("timm", timm("resnet50", **SMALL_RESNET)[1] | {"input_size": 64}, (128, 8, 8), True),
    "efficientnet": (*timm("test_efficientnet"), (256, 4, 4), True),
    "efficientnetv2": (
        *timm("tf_efficientnetv2_b0", channel_multiplier=0.25, depth_multiplier=0.5),
        (320, 4, 4),
        True,
    ),
    "convnext": (*timm("convnext_atto", **SMALL_CONVNEXT), (32, 4, 4), True),
    "vit": (*timm("vit_tiny_patch16_224", depth=2), (192, 1, 65), False),
    "deit": (*timm("deit_tiny_patch16_224", **AVERAGED), (192, 8, 8), True),
    "swin": (*timm("swin_tiny_patch4_window7_224", **SMALL_SWIN), (48, 8, 8), True),
    "densenet121": (*timm("densenet121", **SMALL_DENSENET), (32, 4, 4), True),
    "vgg11": (*timm("vgg11_bn"), (512, 2, 2), True),
    "fastnet-s": ("fastnet-s", {}, (256, 3, 3), True),
    "textbook": ("textbook", {"widths": [8, 16, 16], "dense": [32, 16]}, (16, 4, 4), False),
    "wideresnet": ("wideresnet", {"depth": 10, "width": 1, "dropout": 0.1}, (64, 8, 8), True),
}
WHOLE: dict[str, Row] = {
    "resnet50": (*timm("resnet50"), (2048, 4, 4), True),
    "efficientnet_b0": (*timm("efficientnet_b0"), (1280, 4, 4), True),
    "efficientnetv2_b0": (*timm("tf_efficientnetv2_b0"), (1280, 4, 4), True),
    "convnext_atto": (*timm("convnext_atto"), (320, 4, 4), True),
    "deit_tiny": (*timm("deit_tiny_patch16_224"), (192, 1, 65), False),
    "swin_tiny": (*timm("swin_tiny_patch4_window7_224"), (768, 2, 2), True),
    "densenet121": (*timm("densenet121"), (1024, 4, 4), True),
    "textbook, no dense": ("textbook", {"widths": [8, 16], "dense": [], "dropout": []}, (16, 8, 8), True),
    "densenet": ("densenet", {"depth": 10, "growth": 4}, (9, 8, 8), True),
    "dense head": ("densenet", {"depth": 10, "growth": 4, "head": [16, 8], "head_dropout": 0.5}, (9, 8, 8), False),
    "fastnet-l": ("fastnet-l", {}, (512, 3, 3), True),
}


def net(name: str, options: dict[str, Any]) -> Network:
    torch.manual_seed(0)
    return MODELS.get(name)(CLASSES, options)


def with_statistics(made: Network) -> Network:
    """`made` with measured BatchNorm statistics and logits of a typical size."""
    made.train()
    torch.manual_seed(2)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        made(torch.randn(8, 3, 32, 32))
        made.eval()
        made.class_weights().div_(made(torch.randn(8, 3, 32, 32)).std())
    return made


@pytest.mark.long
@pytest.mark.parametrize("row", SMALL)
def test_every_family_trains_exports_and_gives_heatmaps(row: str, tmp_path: Path) -> None:
    made, width = checked(SMALL[row])
    check_export(made, tmp_path / "model.onnx", width)


@pytest.mark.long
@pytest.mark.parametrize("row", WHOLE)
def test_full_networks_train_and_give_heatmaps(row: str) -> None:
    checked(WHOLE[row])


def checked(row: Row) -> tuple[Network, int]:
    """The network of a row after every check except export, and the width of its features."""
    name, options, shape, heat = row
    made = net(name, options)
    check_one_step(made)
    with_statistics(made)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        maps = made.forward_features(images)
        assert maps.shape == (3, *shape)
        features = features_of(made, maps)
        torch.testing.assert_close(made(images), made.classify(features))
        assert made.class_weights().shape == (CLASSES, features.shape[1])
    assert made.has_heatmaps == heat
    if heat:
        check_heatmaps(made, images)
    check_tap(made, images)
    return made, features.shape[1]


def check_one_step(made: Network) -> None:
    """Every parameter has a role and a gradient, and the loss is finite before and after a step."""
    made.train()
    torch.manual_seed(1)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4) % CLASSES
    roles = made.parameter_groups()
    given = [id(parameter) for group in roles.values() for parameter in group]
    assert sorted(given) == sorted(id(parameter) for parameter in made.parameters() if parameter.requires_grad)
    assert all(parameter.ndim > 1 for parameter in roles["filters"])
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3)
    loss = F.cross_entropy(made(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [(name, p.grad) for name, p in made.named_parameters() if p.requires_grad]
    assert [name for name, gradient in trained if gradient is None or not bool(gradient.isfinite().all())] == []
    optimizer.step()
    assert bool(loss.isfinite())
    assert bool(F.cross_entropy(made(images), labels).isfinite())


def check_heatmaps(made: Network, images: Tensor) -> None:
    """The mean (sum, if positions have their own weights) of a class's map is its logit up to a constant."""
    if isinstance(made, FastNet):
        return  # a maximum decides there; its heatmaps have tests of their own
    with torch.inference_mode():
        maps, logits = made.forward_features(images), made(images)
        for label in range(CLASSES):
            heat = made.heatmaps(maps, torch.full((len(images),), label))
            share = heat.sum(dim=(1, 2)) if isinstance(made, Textbook) else heat.mean(dim=(1, 2))
            rest = logits[:, label] - share
            torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-4, rtol=1e-3)


def check_tap(made: Network, images: Tensor) -> None:
    """Tapped maps have spatial positions, and logits depend on them."""
    seen: list[Tensor] = []

    def tap(maps: Tensor) -> Tensor:
        seen.append(maps)
        return maps

    logits = made.forward_with_tap(images, tap)
    torch.testing.assert_close(logits, made(images))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert seen[0].ndim == 4
    assert min(seen[0].shape[2:]) > 1
    seen_places = (gradient.abs().sum(dim=(0, 1)) > 0).float().mean()
    assert float(seen_places) > (0.5 if isinstance(made, FastNet) else 0.99)


def check_export(made: Network, path: Path, width: int) -> None:
    info = ModelInfo.model_validate(
        {
            "classes": [f"c{index}" for index in range(CLASSES)],
            "input_size": 32,
            "resize": "crop",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "temperature": 1.0,
            "unknown_threshold": None,
            "architecture": "timm",
            "dataset": "made up",
            "accuracy": None,
            "version": "0",
        }
    )
    export_onnx(made, info, path)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert check_parity(made, info, path, images)["probabilities"]["difference"] < 1e-4
    session, _ = open_session(path)
    shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
    assert shapes["features"] == [width]
    assert ("heatmaps" in shapes) == made.has_heatmaps
