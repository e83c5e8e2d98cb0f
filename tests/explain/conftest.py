"""Images of a coloured square on noise, and networks that find it: where the evidence is, is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

if TYPE_CHECKING:
    from thirtytwo.inference.model_file import ModelInfo
    from thirtytwo.models import Network

SIZE, OBJECT = 32, 10
CLASSES = ("red", "green", "blue")
FASTNET: dict[str, Any] = {"groups": [{"width": 8}, {"width": 16}], "pooling": "max+mean"}

Pixels = npt.NDArray[np.uint8]


def squares(count: int, seed: int = 0) -> tuple[Pixels, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Gray noise with a square; images, the class, which is its color, and where it is, bool `(N, S, S)`."""
    random = np.random.default_rng(seed)
    images = random.integers(118, 138, (count, SIZE, SIZE, 3))
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    where = np.zeros((count, SIZE, SIZE), dtype=bool)
    for image, label, place in zip(images, labels, where, strict=True):
        top, left = random.integers(0, SIZE - OBJECT + 1, 2)
        spot = (slice(top, top + OBJECT), slice(left, left + OBJECT))
        image[spot] = 30
        image[(*spot, label)] = 230
        place[spot] = True
    return images.astype(np.uint8), labels, where


def model_info(**changes: Any) -> ModelInfo:
    """Metadata of a model of `squares`."""
    from thirtytwo.inference.model_file import ModelInfo

    values: dict[str, Any] = {
        "classes": CLASSES,
        "input_size": SIZE,
        "resize": "crop",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
        "temperature": 1.0,
        "unknown_threshold": None,
        "architecture": "fastnet",
        "dataset": "squares",
        "accuracy": None,
        "version": "0.1.0",
    }
    return ModelInfo.model_validate(values | changes)


def normalize(images: Pixels) -> Any:
    """Images normalized as for a network of `model_info`."""
    import torch

    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25


def find_squares(net: Network, head: Any) -> Network:
    """Without training: BatchNorm statistics from images, and as class weights the classes' mean features."""
    import torch
    from torch import nn

    pixels, labels, _ = squares(96)
    images = normalize(pixels)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        for part in images.split(32):
            net.train()(part)
        features = net.eval().forward_head(net.pool(net.forward_features(images)), pre_logits=True)
        means = torch.stack([features[labels == label].mean(dim=0) for label in range(len(CLASSES))])
        head.weight.copy_(nn.functional.normalize(means - means.mean(dim=0)))
        if head.bias is not None:
            head.bias.copy_(-head.weight @ means.mean(dim=0))
    return net


def train_briefly(net: Network, steps: int = 20, lr: float = 2e-3) -> Network:
    """Train a network on squares for a few steps."""
    import torch
    from torch import nn

    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.3
    optimizer = torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], lr=lr)
    net.train()
    for step in range(steps):
        images, labels, _ = squares(24, seed=100 + step)
        loss = nn.functional.cross_entropy(net(normalize(images)), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def write_run(path: Path, **changes: Any) -> Path:
    """A run directory with a small FastNet trained on squares: recipe, weights and model.onnx."""
    import torch
    from safetensors.torch import save_file

    from thirtytwo.config.recipe import Recipe
    from thirtytwo.export.onnx import export_onnx
    from thirtytwo.models import MODELS
    from thirtytwo.rundir import RunDir

    torch.manual_seed(0)
    net: Any = MODELS.get("fastnet")(len(CLASSES), FASTNET)
    net.prepare(normalize(squares(96)[0]))
    train_briefly(net, steps=40, lr=1e-2)
    run = RunDir.create(path)
    run.write_recipe(Recipe.model_validate({"name": "squares", "model": {"name": "fastnet", "options": FASTNET}}))
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, run.weights)
    export_onnx(net, model_info(**changes), run.onnx)
    return path


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    """`squares`, `info` and `normalize`, and `find` and `train` for networks made here."""
    return SimpleNamespace(
        squares=squares, info=model_info, normalize=normalize, find=find_squares, train=train_briefly
    )


@pytest.fixture(scope="session")
def squares_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a network trained on squares; read-only."""
    return write_run(tmp_path_factory.mktemp("squares") / "run")
