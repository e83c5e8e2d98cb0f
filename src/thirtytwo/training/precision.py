"""Choose the training precision on a CPU by timing a step in each.

bfloat16 instructions make dense convolutions faster and depthwise ones slower, so the choice depends on the network.

Steps run in one thread and its processor time is compared: other programs add little to that, while several threads
that wait for each other on a busy machine can take any time.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import Choice
from thirtytwo.models import Network
from thirtytwo.models.folding import folded_norms
from thirtytwo.process import changed
from thirtytwo.text import duration
from thirtytwo.training.hardware import Hardware
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.transfer import TransferModule

PROBE = 2
"""Number of images of the first step; BatchNorm needs two."""
MAX_GROWTHS = 4
"""How many times the number of images may be increased."""
STEP_SECONDS = 0.8
"""Time limit of a float32 step; slower networks are timed on fewer images than a batch."""
SHARE, FEW = 0.5, 64
"""Largest share of a larger batch than `FEW` images that is timed: in float32 it needs the memory of a whole one in
bfloat16."""
SECONDS = 6.0
"""Time on the clock after which no further round starts."""
REPEATS = 5
CLEAR = 1.5
"""Factor between the slowest step of one precision and the fastest of the other, in two rounds or more, that decides
without further rounds."""


@dataclass(frozen=True)
class StepTimes:
    """Least processor seconds of a forward and backward pass over `images` images in each precision, in one thread.

    Other work on the machine only adds to the time of a step, so the least is the most reliable.
    """

    float32: float
    bfloat16: float
    images: int

    @property
    def faster(self) -> torch.dtype:
        """The precision of the faster step."""
        return torch.bfloat16 if self.bfloat16 < self.float32 else torch.float32


def _shown(seconds: float) -> str:
    return duration(seconds) if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def timed_precision(net: Network, recipe: Recipe, size: int, classes: int, hardware: Hardware) -> Hardware:
    """Return `hardware` with the faster precision, where `train.precision` is `auto` on a CPU with bfloat16.

    Args:
        net: the network to train; not modified.
        recipe: how it is trained.
        size: side of its images, in pixels.
        classes: number of classes.
        hardware: from `choose_hardware`.
    """
    if recipe.train.precision != "auto" or hardware.device.type != "cpu" or hardware.precision != torch.bfloat16:
        return hardware
    times = time_steps(net, recipe, size, classes, hardware)
    durations = {name: _shown(getattr(times, name)) for name in ("float32", "bfloat16")}
    chosen = str(times.faster).removeprefix("torch.")
    reason = (
        f"a step of {times.images} images takes {durations['float32']} in float32 and {durations['bfloat16']} in "
        "bfloat16, timed on this network in one thread"
    )
    choices = tuple(
        Choice("precision", chosen, reason) if choice.what == "precision" else choice for choice in hardware.choices
    )
    return replace(hardware, precision=times.faster, choices=choices)


def time_steps(net: Network, recipe: Recipe, size: int, classes: int, hardware: Hardware) -> StepTimes:
    """Time training steps of a copy of `net`, alternating between precisions; torch's random state is restored.

    The steps are those of the last epoch, when all trainable parameters of a pretrained network are trained.
    """
    one_thread = changed("threads", torch.get_num_threads, torch.set_num_threads, 1)
    with torch.random.fork_rng([]), one_thread:
        plain = copy.deepcopy(net).to(memory_format=hardware.memory_format).train()
        loop = (TransferModule if recipe.transfer.pretrained else ClassifierModule)(plain, recipe, 1)
        loop.set_trainable(recipe.schedule.epochs - 1)
        with folded_norms(plain, size) if recipe.transfer.pretrained else nullcontext():
            run = _step_timer(loop, size, classes, hardware)
            start = time.perf_counter()
            images = _images_of_a_step(run, recipe.schedule.batch_size)
            kinds = (torch.float32, torch.bfloat16)
            for kind in kinds:  # to warm up
                run(images, kind)
            times: dict[torch.dtype, list[float]] = {kind: [] for kind in kinds}
            for number in range(REPEATS):
                if number and (time.perf_counter() - start > SECONDS or _is_clear(*times.values())):
                    break
                for kind in kinds if number % 2 == 0 else reversed(kinds):
                    times[kind].append(run(images, kind))
    return StepTimes(min(times[torch.float32]), min(times[torch.bfloat16]), images)


def _is_clear(first: list[float], second: list[float]) -> bool:
    """Whether every step of one precision was much faster than every step of the other, in two rounds or more."""
    return len(first) > 1 and (CLEAR * max(first) < min(second) or CLEAR * max(second) < min(first))


def _images_of_a_step(run: Callable[[int, torch.dtype], float], batch: int) -> int:
    """Batch size or a share of it, or the number of images of a float32 step of `STEP_SECONDS` if that is less."""
    most = max(min(batch, FEW), int(SHARE * batch))
    images = PROBE
    run(images, torch.float32)  # the first step is slower
    for _ in range(MAX_GROWTHS):
        seconds = min(run(images, torch.float32) for _ in range(2 if images == PROBE else 1))
        fit = min(most, int(images * STEP_SECONDS / max(seconds, 1e-9)))
        if fit <= 1.5 * images:
            break
        images = fit
    return images


def _step_timer(
    loop: ClassifierModule, size: int, classes: int, hardware: Hardware
) -> Callable[[int, torch.dtype], float]:
    """A function that runs a step of so many images in a precision and returns its processor seconds."""
    generator = torch.Generator().manual_seed(0)

    def run(images: int, precision: torch.dtype) -> float:
        pixels: Tensor = torch.randn((images, 3, size, size), generator=generator)
        pixels = pixels.contiguous(memory_format=hardware.memory_format)
        labels = torch.randint(classes, (images,), generator=generator)
        loop.net.zero_grad()
        loop.reset_step_metrics()
        start = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = loop.training_step((pixels, labels), 0)["loss"]
        torch.autograd.backward(loss)
        return time.thread_time() - start

    return run
