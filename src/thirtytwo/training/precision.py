"""Which precision a CPU trains this network in: one step of each is timed, since no table of processors tells.

bfloat16 instructions make dense convolutions quicker, and depthwise ones slower.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from thirtytwo.config.recipe import Recipe
from thirtytwo.models import Net
from thirtytwo.training.hardware import Choice, Hardware
from thirtytwo.training.module import Loop
from thirtytwo.training.transfer import TransferLoop

PROBE = 2
"""Images of the first step; BatchNorm needs two."""
MAX_GROWTHS = 3
"""How often a step may be made larger, as far as its time allows."""
STEP_SECONDS = 0.4
"""How long a float32 step may take; what takes longer is timed on fewer images than a batch has."""
SECONDS = 4.0
"""After so long no further round is begun."""
REPEATS = 3
MAX_STEPS = 1 + MAX_GROWTHS + 2 + 2 * REPEATS
"""Steps in all: to find the number of images, one of each to warm up, and those that are timed."""


@dataclass(frozen=True)
class StepTimes:
    """Median seconds of a forward and backward pass over `images` images in each precision."""

    float32: float
    bfloat16: float
    images: int

    @property
    def faster(self) -> torch.dtype:
        """The precision whose step took less."""
        return torch.bfloat16 if self.bfloat16 < self.float32 else torch.float32


def timed_precision(net: Net, recipe: Recipe, size: int, classes: int, hardware: Hardware) -> Hardware:
    """`hardware` with the quicker precision, where it was left open and both can be had: on a CPU with bfloat16.

    Args:
        net: the network that is to be trained; left as it is.
        recipe: how it is trained.
        size: side of its images in pixels.
        classes: how many it tells apart.
        hardware: as `choose_hardware` has it.
    """
    if recipe.train.precision != "auto" or hardware.device.type != "cpu" or hardware.precision != torch.bfloat16:
        return hardware
    times = time_steps(net, recipe, size, classes, hardware)
    durations = {name: f"{1000 * getattr(times, name):.1f} ms" for name in ("float32", "bfloat16")}
    chosen = str(times.faster).removeprefix("torch.")
    reason = (
        f"a step of {times.images} images takes {durations['float32']} in float32 and {durations['bfloat16']} in bfloat16, "
        "timed on this network"
    )
    choices = tuple(
        Choice("precision", chosen, reason) if choice.what == "precision" else choice for choice in hardware.choices
    )
    return replace(hardware, precision=times.faster, choices=choices)


def time_steps(net: Net, recipe: Recipe, size: int, classes: int, hardware: Hardware) -> StepTimes:
    """Time training steps of a copy of `net` in both precisions, turn by turn; torch's own generator stays as it is.

    The steps are of the last epoch's kind: of a network from outside, with all of it trained that ever is.
    """
    with torch.random.fork_rng([]):
        plain = copy.deepcopy(net).to(memory_format=hardware.memory_format).train()
        loop = (TransferLoop if recipe.transfer.pretrained else Loop)(plain, recipe, 1)
        loop.set_trainable(recipe.schedule.epochs - 1)
        run = _step_timer(loop, size, classes, hardware)
        start = time.perf_counter()
        images = _images_of_a_step(run, recipe.schedule.batch_size)
        kinds = (torch.float32, torch.bfloat16)
        for kind in kinds:  # to warm up
            run(images, kind)
        rounds: list[list[float]] = []
        while not rounds or (len(rounds) < REPEATS and time.perf_counter() - start < SECONDS):
            rounds.append([run(images, kind) for kind in kinds])
    whole, half = (median(column) for column in zip(*rounds, strict=True))
    return StepTimes(whole, half, images)


def _images_of_a_step(run: Callable[[int, torch.dtype], float], batch: int) -> int:
    """A batch, or as many images as a float32 step takes in `STEP_SECONDS`."""
    images = PROBE
    run(images, torch.float32)  # the first step of all takes longer
    for _ in range(MAX_GROWTHS):
        fit = min(batch, int(images * STEP_SECONDS / max(run(images, torch.float32), 1e-9)))
        if fit <= 1.5 * images:
            break
        images = fit
    return images


def _step_timer(loop: Loop, size: int, classes: int, hardware: Hardware) -> Callable[[int, torch.dtype], float]:
    """What takes a step of so many images in a precision, and gives its seconds."""
    generator = torch.Generator().manual_seed(0)

    def run(images: int, precision: torch.dtype) -> float:
        pixels: Tensor = torch.randn((images, 3, size, size), generator=generator)
        pixels = pixels.contiguous(memory_format=hardware.memory_format)
        labels = torch.randint(classes, (images,), generator=generator)
        loop.net.zero_grad()
        loop.reset_step_metrics()
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = loop.training_step((pixels, labels), 0)["loss"]
        torch.autograd.backward(loss)
        return time.perf_counter() - start

    return run
