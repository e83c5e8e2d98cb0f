"""Which rate to train at: a short run at rising rates (Smith 2017, arXiv 1506.01186)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.types import ImageSet
from thirtytwo.models.base import modes_kept
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.fit import prepared
from thirtytwo.training.hardware import Hardware
from thirtytwo.training.module import Loop
from thirtytwo.training.sam import sharpness_aware

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9
WORSE = 4.0
SETTLED = 10


@dataclass(frozen=True)
class RangeTest:
    """Losses at rising rates.

    `rates` are values of `optimizer.lr`, the other groups' rates in proportion, each at its peak; `losses` the smoothed
    mean losses of their steps. `suggestion` is the rate at which the loss fell fastest, or None where it never fell.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None


def range_test(
    recipe: Recipe,
    train: ImageSet,
    hardware: Hardware,
    *,
    steps: int = STEPS,
    tell: Callable[[str], None] = lambda text: None,
) -> RangeTest:
    """Train a fresh network for `steps` steps, at rates from `LOWEST` to `HIGHEST`; ends where the loss runs away.

    A recipe that starts from pretrained weights is tried in its first stage, with the same part frozen.

    Raises:
        RecipeError: the recipe does not fit these pictures or classes.
    """
    with _generators_kept(hardware.device):
        loop, batches, _, _ = prepared(recipe.model_copy(update={"schedule": _single(recipe)}), train, hardware)
        return ramp(loop, batches, hardware, steps=steps, tell=tell)


def ramp(
    loop: Loop,
    batches: TrainingBatches,
    hardware: Hardware,
    *,
    steps: int = STEPS,
    tell: Callable[[str], None] = lambda text: None,
) -> RangeTest:
    """`range_test` of a loop as `prepared` makes it; its network, batches and torch's generators are left as they were.

    The stage's frozen part and the modes are those of training, through the hooks of the loop that training calls.
    """
    optimizer: Any = loop.configure_optimizers()["optimizer"]
    shares = [group["initial_lr"] * loop.first_rate / loop.recipe.optimizer.lr for group in optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    with _left_alone(loop, batches, hardware.device):
        loop.enter(0)
        torch.manual_seed(loop.recipe.seed)
        for step, batch in zip(range(steps), _endless(batches, loop.first_epochs), strict=False):
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            average = SMOOTHING * average + (1 - SMOOTHING) * _step(loop, batch, optimizer, hardware)
            smooth = average / (1 - SMOOTHING ** (step + 1))
            if not np.isfinite(smooth) or (step > SETTLED and smooth > WORSE * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
            if step % 20 == 19:
                tell(f"step {step + 1} of {steps}: lr {rate:.2g}, loss {smooth:.3f}")
    return RangeTest(tuple(rates), tuple(losses), steepest(rates, losses))


def _step(loop: Loop, batch: tuple[Tensor, Tensor], optimizer: Any, hardware: Hardware) -> float:
    """One step of training; the mean loss before it."""
    half, settings = hardware.precision != torch.float32, loop.recipe
    figures: dict[str, Tensor] = {}

    def closure() -> Tensor:
        with torch.autocast(hardware.device.type, torch.bfloat16, enabled=half):
            figures.update(loop.training_step(batch, 0))
        optimizer.zero_grad()
        torch.autograd.backward(figures["loss"])
        return figures["loss"]

    loop.on_train_batch_start(batch, 0)
    rho = settings.optimizer.sam
    (sharpness_aware(closure, loop.net, rho) if rho else closure)()
    if settings.train.clip:
        summed = len(batch[1]) if settings.optimizer.per_picture else 1
        nn.utils.clip_grad_norm_(loop.net.parameters(), settings.train.clip * summed)
    optimizer.step()
    return float(figures["mean_loss"])


@contextmanager
def _left_alone(loop: Loop, batches: TrainingBatches, device: torch.device) -> Iterator[None]:
    """Afterwards the network is what it was: weights, buffers, gradients, modes, and what is trained of it."""
    state = {name: value.detach().clone() for name, value in loop.net.state_dict().items()}
    weights = [(weight, weight.requires_grad, weight.grad) for weight in loop.net.parameters()]
    epoch = batches.epoch
    try:
        with modes_kept(loop.net), _generators_kept(device):
            yield
    finally:
        loop.net.load_state_dict(state)
        for weight, trained, gradient in weights:
            weight.requires_grad_(trained).grad = gradient
        batches.epoch = epoch


def _generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """What dropout and fresh weights draw from goes on afterwards as if nothing had been drawn."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate at which the loss falls fastest, by the logarithm of the rate; None where it never falls."""
    if len(rates) < SETTLED + 2:
        return None
    slopes = np.gradient(losses, np.log(rates))[SETTLED:]
    place = int(slopes.argmin())
    return rates[SETTLED + place] if slopes[place] < 0 else None


def _single(recipe: Recipe) -> Any:
    """The recipe's schedule with a step for every batch."""
    return recipe.schedule.model_copy(update={"accumulate": 1})


def _endless(batches: TrainingBatches, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the first `epochs` epochs over and over."""
    for epoch in cycle(range(epochs)):
        batches.epoch = epoch
        yield from batches
