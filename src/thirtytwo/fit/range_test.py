"""Which rate to train at: a short run at rising rates (Smith 2017, arXiv 1506.01186)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thirtytwo.data.imageset import ImageSet
from thirtytwo.fit.hardware import Hardware
from thirtytwo.fit.module import TrainingBatches
from thirtytwo.fit.sharpness import sharpness_aware
from thirtytwo.fit.train import prepared
from thirtytwo.recipe import Recipe

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0
SMOOTHING = 0.9
WORSE = 4.0
SETTLED = 10


@dataclass(frozen=True)
class RangeTest:
    """Losses at rising rates.

    `rates` are values of `optimizer.lr`, the other groups' rates in proportion; `losses` the smoothed mean losses of
    their steps. `suggestion` is the rate at which the loss fell fastest, or None where it never fell.
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

    Raises:
        RecipeError: the recipe does not fit these pictures or classes.
    """
    loop, batches, _, _ = prepared(recipe.model_copy(update={"schedule": _single(recipe)}), train, hardware)
    loop.train()
    optimizer: Any = loop.configure_optimizers()["optimizer"]
    shares = [group["lr"] / recipe.optimizer.lr for group in optimizer.param_groups]
    half = hardware.precision != torch.float32
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    torch.manual_seed(recipe.seed)
    for step, batch in zip(range(steps), _endless(batches), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = rate * share
        loop.begin_step()
        figures: dict[str, Tensor] = {}

        def closure(batch: tuple[Tensor, Tensor] = batch, figures: dict[str, Tensor] = figures) -> Tensor:
            with torch.autocast(hardware.device.type, torch.bfloat16, enabled=half):
                figures |= loop.training_step(batch, 0)
            optimizer.zero_grad()
            torch.autograd.backward(figures["loss"])
            return figures["loss"]

        rho = recipe.optimizer.sam
        (sharpness_aware(closure, loop.net, rho) if rho else closure)()
        if recipe.train.clip:
            summed = len(batch[1]) if recipe.optimizer.per_picture else 1
            nn.utils.clip_grad_norm_(loop.net.parameters(), recipe.train.clip * summed)
        optimizer.step()
        average = SMOOTHING * average + (1 - SMOOTHING) * float(figures["mean_loss"])
        smooth = average / (1 - SMOOTHING ** (step + 1))
        if not np.isfinite(smooth) or (step > SETTLED and smooth > WORSE * min(losses)):
            break
        rates.append(rate)
        losses.append(smooth)
        if step % 20 == 19:
            tell(f"step {step + 1} of {steps}: lr {rate:.2g}, loss {smooth:.3f}")
    return RangeTest(tuple(rates), tuple(losses), steepest(rates, losses))


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


def _endless(batches: TrainingBatches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches
        batches.epoch += 1
