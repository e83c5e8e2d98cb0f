"""Networks of timm: fitted to small pictures, taken apart into maps, pooling and classifier, exported."""

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
from thirtytwo.models import MODELS, Net
from thirtytwo.predict.modelfile import ModelInfo, open_session

CLASSES = 5
AVERAGED = {"arguments": {"global_pool": "avg", "class_token": False, "depth": 2}}
SHALLOW = {"arguments": {"depth": 2}}
FAMILIES: dict[str, tuple[dict[str, Any], tuple[int, ...], bool]] = {
    # options beside the architecture, last maps of a 32-pixel picture, whether there are heatmaps
    "resnet50": ({}, (2048, 4, 4), True),
    "efficientnet_b0": ({}, (1280, 4, 4), True),
    "tf_efficientnetv2_b0": ({}, (1280, 4, 4), True),
    "convnext_atto": ({}, (320, 4, 4), True),
    "vit_tiny_patch16_224": (SHALLOW, (192, 1, 65), False),
    "deit_tiny_patch16_224": (AVERAGED, (192, 8, 8), True),
    "swin_tiny_patch4_window7_224": ({"arguments": {"depths": [1, 1, 2, 1], "embed_dim": 24}}, (192, 2, 2), True),
    "densenet121": ({}, (1024, 4, 4), True),
    "vgg11_bn": ({}, (512, 2, 2), True),
}


def net(architecture: str, classes: int = CLASSES, **options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.get("timm")(classes, {"architecture": architecture, **options})


def settled(made: Net) -> Net:
    """`made` with normalisation that has seen pictures and logits of a natural size."""
    made.train()
    torch.manual_seed(2)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        made(torch.randn(16, 3, 32, 32))
        made.eval()
        made.class_weights().div_(made(torch.randn(16, 3, 32, 32)).std())
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_exports_and_shows_where_it_looked(name: str, tmp_path: Path) -> None:
    options, shape, heat = FAMILIES[name]
    made = net(name, **options)
    assert isinstance(made, Net)
    check_one_step(made)
    settled(made)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        maps = made.maps(images)
        assert maps.shape == (3, *shape)
        features = made.pool(maps)
        torch.testing.assert_close(made(images), made.classify(features))
    assert made.has_heatmaps == heat
    if heat:
        check_heatmaps(made, images)
    check_tap(made, images)
    check_export(made, tmp_path / "model.onnx", features.shape[1])


def check_one_step(made: Net) -> None:
    """A step lowers the loss of its own batch, and every parameter takes part."""
    made.train()
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % CLASSES
    roles = made.parameter_groups()
    given = [id(parameter) for group in roles.values() for parameter in group]
    assert sorted(given) == sorted(id(parameter) for parameter in made.parameters() if parameter.requires_grad)
    assert all(parameter.ndim > 1 for parameter in roles["filters"])
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-3)
    loss = F.cross_entropy(made(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    still = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert not still
    optimizer.step()
    assert bool(loss.isfinite())
    assert bool(F.cross_entropy(made(images), labels).isfinite())


def check_heatmaps(made: Net, images: Tensor) -> None:
    """The mean of a class's map is its logit, but for a constant of the class."""
    with torch.inference_mode():
        maps, logits = made.maps(images), made(images)
        for label in range(CLASSES):
            heat = made.heatmaps(maps, torch.full((len(images),), label))
            assert heat.shape == (len(images), *maps.shape[2:])
            rest = logits[:, label] - heat.mean(dim=(1, 2))
            torch.testing.assert_close(rest, rest[:1].expand_as(rest), atol=1e-4, rtol=1e-3)


def check_tap(made: Net, images: Tensor) -> None:
    """What is tapped has places, and logits depend on it."""
    seen: list[Tensor] = []

    def tap(maps: Tensor) -> Tensor:
        seen.append(maps)
        return maps

    logits = made.tapped(images, tap)
    torch.testing.assert_close(logits, made(images))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert seen[0].ndim == 4
    assert min(seen[0].shape[2:]) > 1
    assert bool((gradient.abs().sum(dim=(0, 1)) > 0).all())


def check_export(made: Net, path: Path, width: int) -> None:
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
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert check_parity(made, info, path, pictures) < 1e-4
    session, _ = open_session(path)
    shapes = {output.name: output.shape[1:] for output in session.get_outputs()}
    assert shapes["features"] == [width]
    assert ("heatmaps" in shapes) == made.has_heatmaps
