"""Train some recipes on digits in one or two processes, which start each other, and save the weights of each process.

    python train_along.py FOLDER PROCESSES

The network has no BatchNorm and no dropout and images are not augmented, so that both ways compute the same. Weights
and gradients are float64. In float32, gradients of a batch and of its halves differ by 1e-6 of the largest; as soon as
max-pooling or ReLU is on the other side of an edge because of that, by 1e-3 and more; after Muon's large steps by half.

Two processes also train with `DEFECTS`, so that the comparison can be shown to find them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.models.base import MODELS, Network
from thirtytwo.rundir import RunDir
from thirtytwo.training.batches import Batch, Batches
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import Hardware, choose_hardware
from thirtytwo.training.launch import joined
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.processes import Processes, current
from thirtytwo.training.strategy import ChangingDDP

BASE: dict[str, Any] = {
    "model.name": "convolutions",
    "train.precision": "float32",
    "train.threads": 1,
    "augment.flip": "none",
    "schedule.batch_size": 64,
    "schedule.epochs": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "muon": {"optimizer.name": "muon", "train.ema": 0.9, "train.clip": 0.5, "schedule.accumulate": 2},
    "sgd": {
        "optimizer.name": "sgd",
        "optimizer.lr": 2e-3,
        "optimizer.lr_rest": 2e-3,
        "optimizer.lr_head": 0.01,
        "train.class_weights": "balanced",
    },
    "adamw": {"optimizer.name": "adamw", "optimizer.lr": 0.01, "train.keep": "best"},
    "sam": {"optimizer.name": "adamw", "optimizer.lr": 1e-3, "optimizer.sam": 0.05},
    "plateau": {"optimizer.name": "adamw", "optimizer.lr": 1e-3, "schedule.name": "plateau"},
    "selection": {"optimizer.name": "adamw", "optimizer.lr": 1e-3, "train.selection.share": 0.5, "schedule.epochs": 3},
    "norms": {"model.name": "fastnet", "model.options": {"groups": [{"width": 8}, {"width": 16}]}, "train.ema": 0.9},
}


class Convolutions(Network):
    """Two convolutions and a linear layer, with a parameter that is never used."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.head = nn.Linear(16, classes)
        self.unused = nn.Parameter(torch.zeros(3))

    def forward_features(self, images: Tensor) -> Tensor:
        return F.relu(self.body(F.max_pool2d(F.relu(self.stem(images.to(self.stem.weight.dtype))), 2)))

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        roles = {"body.weight": "filters", "stem.bias": "stem_bias", "head.weight": "head"}
        groups: dict[str, list[nn.Parameter]] = {role: [] for role in ("filters", "stem_bias", "rest", "head")}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups[roles.get(name, "rest")].append(parameter)
        return groups


def build(classes: int, options: Mapping[str, Any]) -> Convolutions:
    torch.manual_seed(0)
    return Convolutions(classes).double()


@dataclass(frozen=True)
class Exact(Hardware):
    """Hardware on which Muon computes in float64, too."""

    @property
    def matrix_arithmetic(self) -> torch.dtype:
        return torch.float64


def _order_of_its_own(batches: Batches, generator: torch.Generator) -> Tensor:
    return _order(batches, generator.manual_seed(generator.initial_seed() + current().rank))


def _divided_twice(module: ClassifierModule, batch: Batch, number: int) -> dict[str, Tensor]:
    found = _step(module, batch, number)
    return found | {"loss": found["loss"] / current().world_size}


_order, _step = Batches._order, ClassifierModule.training_step
DEFECTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "no average": (ChangingDDP, "follow_trainable", lambda ddp, has_unused: None),
    "divided twice": (ClassifierModule, "training_step", _divided_twice),
    "the same images": (Processes, "share_of", lambda processes, values: values[:: processes.world_size]),
    "an image less": (Processes, "share_of", lambda self, values: values[self.rank :: self.world_size][1:]),
    "another order": (Batches, "_order", _order_of_its_own),
}
"""For each defect, what is replaced, and by what."""


@contextmanager
def planted(defect: str) -> Iterator[None]:
    """Have a defect while the block runs; none for an empty name."""
    if not defect:
        yield
        return
    where, name, instead = DEFECTS[defect]
    before = getattr(where, name)
    setattr(where, name, instead)
    try:
        yield
    finally:
        setattr(where, name, before)


def recipe_of(changes: Mapping[str, Any]) -> Recipe:
    return resolve_recipe({"name": "tiny", "model": {"name": "fastnet"}}, {**BASE, **changes}, classes=10, rows=640)


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    MODELS._entries["convolutions"] = build
    images = load_dataset("digits", image_size=16, resize="squash", seed=0).train
    cases = [(name, "") for name in CASES] + [("sgd", defect) for defect in DEFECTS if count > 1]
    with joined(count, None, "cpu", print) as processes:
        for name, defect in cases:
            recipe = recipe_of(CASES[name])
            train, val = images.take(range(640)), images.take(range(640, 741))  # type: ignore[arg-type]
            run = RunDir(folder / f"{defect or name}-{count}")
            run.path.mkdir(exist_ok=True)
            hardware = Exact(**vars(choose_hardware(recipe.train, "cpu")))
            with planted(defect):
                fitted = fit(recipe, train, val, run, hardware, show=False)
            torch.save(fitted.net.state_dict(), run.path / f"weights-{processes.rank}.pt")


if __name__ == "__main__":
    main()
