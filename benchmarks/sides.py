"""Trainings of which single steps can be taken: thirtytwo's and airbench94's, for `record.py`."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gpu import ALL_IMAGES

PORT, KEEPING = "airbench94", "airbench94, keeping freed memory"
PORTS = (PORT, KEEPING)


@dataclass(frozen=True)
class Stage:
    """Steps of a training that cost the same: from step `first` on, `count` of them."""

    size: int
    stem: bool
    frozen: int
    first: int
    count: int

    @property
    def name(self) -> str:
        layers = f", {self.frozen} layers frozen" if self.frozen else ""
        return f"{self.size} px" + ("" if self.stem else ", stem fixed") + layers


class Side(Protocol):
    """A training of which single steps can be taken."""

    stages: list[Stage]
    batch_size: int
    precision: str

    def step(self, number: int) -> None:
        """Take step `number`."""


@dataclass(frozen=True)
class Candidate:
    """A name with its recipe and the changes of it; no recipe for airbench94."""

    name: str
    recipe: str | None
    changes: dict[str, Any]

    @property
    def file_name(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", self.name.casefold()).strip("-")


class Product:
    """A training of thirtytwo, without Lightning's loop around its steps."""

    def __init__(self, chosen: Candidate, options: argparse.Namespace) -> None:
        import torch

        from thirtytwo.training.fit import build_training
        from thirtytwo.workflows.prepare import prepare

        assert chosen.recipe is not None
        changes = chosen.changes | ALL_IMAGES
        plan = prepare(options.data, chosen.recipe, changes, "auto", Path(options.data_root))
        self._torch, self._hardware, recipe = torch, plan.hardware, plan.recipe
        self._loop, self._batches, _, _ = build_training(recipe, plan.parts.train, plan.hardware, plan.initialized)
        self._optimizer = self._loop.configure_optimizers()["optimizer"]
        self._order = torch.randperm(self._batches.count)
        self._has_stem, self._schedule = bool(self._loop.net.parameter_groups().get("stem_bias")), recipe.schedule
        self.batch_size, self.precision = recipe.schedule.batch_size, name_of(plan.hardware.precision)
        self.stages = stages(self._batches.steps, self._stage)
        self._loop.net.train()

    def _stage(self, number: int) -> tuple[int, bool, int]:
        total, schedule = self._batches.steps, self._schedule
        stem = self._has_stem and number < schedule.stem_bias_until * total
        frozen = max((stage.layers for stage in schedule.freeze if number >= stage.until * total), default=0)
        return self._batches.size_at(number / total), stem, frozen

    def step(self, number: int) -> None:
        torch, device, precision = self._torch, self._hardware.device, self._hardware.precision
        self._loop.freeze_stopped(number)
        epoch, place = divmod(number, len(self._batches))
        positions = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        batch = self._batches.batch(positions, epoch, place)
        self._loop.reset_step_metrics()
        with torch.autocast(device.type, precision, precision != torch.float32):
            loss = self._loop.training_step(batch, place)["loss"]
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()
        _wait_for(device)


class Port:
    """airbench94."""

    def __init__(self, options: argparse.Namespace, final: bool = True) -> None:
        from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
        from thirtytwo.data.load import load_dataset
        from thirtytwo.data.split import divide

        changes = ALL_IMAGES if final else {}
        recipe = resolve_recipe(read_recipe_values("fast"), changes, classes=10, rows=45_000)
        self.parts = divide(load_dataset(options.data, data_root=Path(options.data_root)), recipe)
        self._tiny = options.tiny
        self.training = self.start(0)
        self._device = next(self.training.net.parameters()).device
        self.batch_size = self.training.settings.batch_size
        self.precision = name_of(self._precision)
        self.stages = stages(self.training.steps, lambda number: (32, self.training.trains_whitening_bias(number), 0))

    def start(self, seed: int) -> Any:
        """A training from its first step."""
        import torch
        from airbench import Settings, Training, native_precision

        from thirtytwo.tensors import as_tensor

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._precision = native_precision(device)
        settings = Settings(widths=(8, 16, 16), batch_size=50, epochs=1) if self._tiny else Settings()
        train = self.parts.train
        data = as_tensor(train.images), as_tensor(train.labels), len(train.classes)
        return Training(*data, seed, device, self._precision, settings)

    def step(self, number: int) -> None:
        self.training.step(number)
        _wait_for(self._device)


def name_of(precision: Any) -> str:
    return str(precision).removeprefix("torch.")


def _wait_for(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()


def stages(total: int, describe: Callable[[int], tuple[int, bool, int]]) -> list[Stage]:
    """The stages of a training of `total` steps, in their order; `describe` gives size, stem and frozen of a step."""
    found: dict[tuple[int, bool, int], list[int]] = {}
    for number in range(total):
        found.setdefault(describe(number), []).append(number)
    return [Stage(*key, numbers[0], len(numbers)) for key, numbers in found.items()]


def side(chosen: Candidate, options: argparse.Namespace) -> Side:
    if chosen.name == KEEPING:
        from thirtytwo.training.hardware import keep_freed_memory

        keep_freed_memory()
    return Port(options) if chosen.recipe is None else Product(chosen, options)


def seconds_of(one: Side, stage: Stage, steps: int) -> float:
    """Mean seconds of a step of a stage."""
    steps = min(steps, stage.count)
    start = time.perf_counter()
    for number in range(stage.first, stage.first + steps):
        one.step(number)
    return (time.perf_counter() - start) / steps


def flops_of(one: Side, stage: Stage) -> int:
    """Floating-point operations of a step of a stage, with its optimizer; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        one.step(stage.first)
    return int(counter.get_total_flops())
