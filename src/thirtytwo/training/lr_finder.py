"""Learning-rate finder: a short run at rising learning rates (Smith 2017, arXiv 1506.01186)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.types import ImageSet
from thirtytwo.models.base import preserve_modes
from thirtytwo.training.batches import Batch, TrainingBatches
from thirtytwo.training.fit import InitializedNetwork, build_training
from thirtytwo.training.hardware import Hardware
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.sam import sam_closure

STEPS = 100
MIN_LR, MAX_LR = 1e-6, 10.0
SMOOTHING = 0.9
DIVERGENCE_FACTOR = 4.0
SKIPPED_STEPS = 10


@dataclass(frozen=True)
class LRFinderResult:
    """Losses at rising learning rates.

    `rates` are values of `optimizer.lr`; those of other parameter groups rise in proportion. `losses` are the smoothed
    mean losses of the steps. `suggestion` is the learning rate at which the loss fell fastest, None if it never fell.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None


def run_lr_finder(
    recipe: Recipe,
    train: ImageSet,
    hardware: Hardware,
    *,
    steps: int = STEPS,
    log: Callable[[str], None] = lambda text: None,
    initialized: InitializedNetwork | None = None,
) -> LRFinderResult:
    """Train a fresh network at learning rates rising from `MIN_LR` to `MAX_LR`; stop when the loss diverges.

    With pretrained weights, the first stage of transfer learning is run, with the same parameters frozen.

    Args:
        recipe: how to train.
        train: training images.
        hardware: device, precision and layout.
        steps: largest number of steps.
        log: called with a progress line every 20 steps.
        initialized: the network, whose weights are restored afterwards; built from the recipe by default.

    Raises:
        RecipeError: the recipe does not fit these images or classes.
    """
    with _preserve_generators(hardware.device):
        recipe = recipe.model_copy(update={"schedule": _without_accumulation(recipe)})
        loop, batches, _, _ = build_training(recipe, train, replace(hardware, cuda_graphs=False), initialized)
        return run_lr_ramp(loop, batches, hardware, steps=steps, log=log)


def run_lr_ramp(
    loop: ClassifierModule,
    batches: TrainingBatches,
    hardware: Hardware,
    *,
    steps: int = STEPS,
    log: Callable[[str], None] = lambda text: None,
) -> LRFinderResult:
    """Run `run_lr_finder` on the module and batches of `build_training`; restores their state and torch's generators.

    Frozen parameters and modes are those of training, since the module's own hooks set them.
    """
    optimizer: Any = loop.configure_optimizers()["optimizer"]
    shares = [group["initial_lr"] * loop.first_lr_factor / loop.recipe.optimizer.lr for group in optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    with _restore_after(loop, batches, hardware.device):
        loop.set_trainable(0)
        torch.manual_seed(loop.recipe.seed)
        for step, batch in zip(range(steps), _cycle_batches(batches, loop.first_epochs), strict=False):
            rate = MIN_LR * (MAX_LR / MIN_LR) ** (step / max(1, steps - 1))
            for group, share in zip(optimizer.param_groups, shares, strict=True):
                group["lr"] = rate * share
            average = SMOOTHING * average + (1 - SMOOTHING) * _step(loop, batch, optimizer, hardware)
            smooth = average / (1 - SMOOTHING ** (step + 1))
            if not np.isfinite(smooth) or (step > SKIPPED_STEPS and smooth > DIVERGENCE_FACTOR * min(losses)):
                break
            rates.append(rate)
            losses.append(smooth)
            if step % 20 == 19:
                log(f"step {step + 1} of {steps}: lr {rate:.2g}, loss {smooth:.3f}")
    return LRFinderResult(tuple(rates), tuple(losses), suggest_lr(rates, losses))


def _step(loop: ClassifierModule, batch: Batch, optimizer: Any, hardware: Hardware) -> float:
    """Take one training step and return the mean loss before it.

    The gradients are not scaled, not even in float16: those that underflow are too small to matter for the suggestion.
    """
    mixed, settings = hardware.precision != torch.float32, loop.recipe
    metrics: dict[str, Tensor] = {}

    def closure() -> Tensor:
        with torch.autocast(hardware.device.type, hardware.precision, enabled=mixed):
            metrics.update(loop.training_step(batch, 0))
        optimizer.zero_grad()
        torch.autograd.backward(metrics["loss"])
        return metrics["loss"]

    loop.on_train_batch_start(batch, 0)
    rho = settings.optimizer.sam
    (sam_closure(closure, loop.net, rho) if rho else closure)()
    if settings.train.clip:
        summed = len(batch[1]) if settings.optimizer.per_image else 1
        nn.utils.clip_grad_norm_(loop.net.parameters(), settings.train.clip * summed)
    optimizer.step()
    return float(metrics["mean_loss"])


@contextmanager
def _restore_after(loop: ClassifierModule, batches: TrainingBatches, device: torch.device) -> Iterator[None]:
    """Restore the network's weights, buffers, gradients, modes and trainable parameters, and the epoch, on exit."""
    state = {name: value.detach().clone() for name, value in loop.net.state_dict().items()}
    weights = [(weight, weight.requires_grad, weight.grad) for weight in loop.net.parameters()]
    epoch = batches.epoch
    try:
        with preserve_modes(loop.net), _preserve_generators(device):
            yield
    finally:
        loop.net.load_state_dict(state)
        for weight, trained, gradient in weights:
            weight.requires_grad_(trained).grad = gradient
        batches.epoch = epoch


def _preserve_generators(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's random state, which dropout and initialization use, on exit."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def suggest_lr(rates: list[float], losses: list[float]) -> float | None:
    """Learning rate with the steepest fall of the loss over its logarithm; None if the loss never falls."""
    if len(rates) < SKIPPED_STEPS + 2:
        return None
    slopes = np.gradient(losses, np.log(rates))[SKIPPED_STEPS:]
    index = int(slopes.argmin())
    return rates[SKIPPED_STEPS + index] if slopes[index] < 0 else None


def _without_accumulation(recipe: Recipe) -> Any:
    """The recipe's schedule with one step per batch."""
    return recipe.schedule.model_copy(update={"accumulate": 1})


def _cycle_batches(batches: TrainingBatches, epochs: int) -> Iterator[Batch]:
    """Repeat the batches of the first `epochs` epochs endlessly."""
    for epoch in cycle(range(epochs)):
        batches.epoch = epoch
        yield from batches
