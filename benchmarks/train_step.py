"""One training step of thirtytwo, compared with plain PyTorch loops for the same network on the same device.

    python benchmarks/train_step.py [--rounds 5] [--steps 8] [--batch 1000] [--classes 10]

Sides, each in its own process, in turns: `thirtytwo` (the complete product: Lightning, batched augmentation, its
automatic choices), `plain` (a minimal PyTorch loop with the same optimizer, precision and layout), `plain_sgd` (that
loop with torch's SGD, which does less arithmetic than Muon) and `defaults` (SGD and PyTorch's defaults: float32,
contiguous). The loops get prepared float batches and augment nothing, so they do strictly less work. Results are
medians of seconds per step; a ratio above 1 means that thirtytwo is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.types import ImageSet
from thirtytwo.io import write_json
from thirtytwo.models.base import build_network
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import choose_hardware, describe_machine
from thirtytwo.training.optimizers import build_optimizer

RESULTS = Path(__file__).parent / "results" / "train_step.json"
SIDES = ("thirtytwo", "plain", "plain_sgd", "defaults")


@own_process()  # with the command line's allocator setting
def main() -> None:
    parser = argparse.ArgumentParser(description="A training step compared with plain PyTorch loops.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"seconds_per_step": seconds_per_step(options)}))
        return
    recipe = recipe_for(options)
    hardware = choose_hardware(recipe.train, options.device)
    options.device, options.precision = hardware.device.type, str(hardware.precision).removeprefix("torch.")
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            seconds[side].append(in_own_process(side, options))
            print(f"round {number + 1}  {side:10s} {seconds[side][-1]:.3f} s per step", flush=True)
    middle = {side: statistics.median(values) for side, values in seconds.items()}
    write_json(
        options.out,
        {
            "what": "seconds per step, and their ratio to thirtytwo: above 1, thirtytwo is faster",
            "n": options.rounds,
            "steps_a_round": options.steps,
            "batch_size": options.batch,
            "network": recipe.model.model_dump(mode="json"),
            "seconds_per_step": seconds,
            "median": middle,
            "ratio": {side: round(middle[side] / middle["thirtytwo"], 3) for side in SIDES[1:]},
            "images_per_second": {side: round(options.batch / value, 1) for side, value in middle.items()},
            "choices": [vars(choice) for choice in hardware.choices],
            "hardware": describe_machine(hardware.device),
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
        },
    )
    print({side: round(middle[side] / middle["thirtytwo"], 3) for side in SIDES[1:]})


def recipe_for(options: argparse.Namespace) -> Recipe:
    """The `fast` recipe for this many classes, at full resolution: two passes over `steps` batches."""
    changes = {"schedule.epochs": 2, "schedule.batch_size": options.batch, "schedule.resolution": []}
    return resolve_recipe(read_recipe_values("fast"), changes, classes=options.classes, rows=45_000)


def in_own_process(side: str, options: argparse.Namespace) -> float:
    """One measurement in a fresh interpreter, so that no side inherits memory or threads of another."""
    words = [sys.executable, __file__, "--side", side, "--steps", str(options.steps), "--batch", str(options.batch)]
    words += ["--classes", str(options.classes), "--device", options.device, "--precision", options.precision]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds_per_step"])


def seconds_per_step(options: argparse.Namespace) -> float:
    """Seconds of one step on random images, after one pass to warm up."""
    return product_step(options) if options.side == "thirtytwo" else loop_step(options)


def product_step(options: argparse.Namespace) -> float:
    recipe = recipe_for(options)
    hardware = choose_hardware(recipe.train, options.device)
    generator = np.random.default_rng(0)
    rows = options.steps * options.batch
    images = ImageSet(
        generator.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8),
        generator.integers(0, options.classes, rows),
        tuple(f"class {index}" for index in range(options.classes)),
        np.arange(rows),
    )
    with tempfile.TemporaryDirectory() as place:
        run = RunDir(Path(place))
        fit(recipe, images, None, run, hardware, show=False)
        return run.read_history()[1]["seconds"] / options.steps


def loop_step(options: argparse.Namespace) -> float:
    recipe = recipe_for(options)
    defaults = options.side == "defaults"
    device = torch.device(options.device)
    precision = torch.float32 if defaults else getattr(torch, options.precision)
    layout = torch.contiguous_format if defaults else torch.channels_last
    net = build_network(recipe, options.classes).to(device).to(memory_format=layout).train()
    optimizer: torch.optim.Optimizer
    if options.side == "plain":
        arithmetic = torch.bfloat16 if precision == torch.bfloat16 else torch.float32
        optimizer = build_optimizer(net.parameter_groups(), recipe.optimizer, options.batch, arithmetic)
    else:
        moved = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(moved, lr=1e-4, momentum=0.9, nesterov=True)
    images = torch.randn(options.batch, 3, 32, 32, device=device).to(memory_format=layout)
    labels = torch.randint(0, options.classes, (options.batch,), device=device)

    def one_pass() -> None:
        for _ in range(options.steps):
            with torch.autocast(device.type, precision, precision != torch.float32):
                loss = F.cross_entropy(net(images), labels, label_smoothing=recipe.train.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    one_pass()
    start = time.perf_counter()
    one_pass()
    return (time.perf_counter() - start) / options.steps


if __name__ == "__main__":
    main()
