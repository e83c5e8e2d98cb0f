"""Cost of augmentation: images per second of each kind, and the time of a ResNet-18 training step with and without it.

    python benchmarks/augment.py [--batch 128] [--rounds 5] [--repeats 10] [--device auto] [--out FILE]

For the speed, batches are built as in training, from pixels to normalized floats, and `torchvision` runs the same four
policies one image at a time. For the ratio, one ResNet-18 for CIFAR takes one step of each kind in turn, forwards in
one round and backwards in the next, including the batch. The ratio of a kind is its median time over that of no
augmentation. Images are random, 32×32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import resolve_recipe
from thirtytwo.io import write_json
from thirtytwo.models import MODELS
from thirtytwo.process import own_process
from thirtytwo.training.batches import Batch, TrainingBatches
from thirtytwo.training.hardware import Hardware, choose_hardware, describe_machine

RESULTS = Path(__file__).parent / "results" / "augment.json"
CLASSES = tuple(f"class {number}" for number in range(10))
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
WITHOUT = "none"
KINDS: dict[str, dict[str, Any]] = {
    WITHOUT: {},
    "flip, translate, cutout": {"flip": "random", "translate": 4, "cutout": 8},
    "rotate, zoom, shear": {"rotate": 15, "zoom": 0.2, "shear": 10},
    "colour": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "erase": {"erase": 0.5},
    "autoaugment": {"policy": "autoaugment"},
    "randaugment": {"policy": "randaugment"},
    "trivialaugment": {"policy": "trivialaugment"},
    "augmix": {"policy": "augmix"},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "a policy for each class": {"classes": {name: {"policy": "randaugment", "magnitude": 12} for name in CLASSES}},
    "all but the policies": {
        "flip": "random",
        "translate": 4,
        "cutout": 8,
        "rotate": 15,
        "zoom": 0.2,
        "shear": 10,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
        "erase": 0.5,
        "mixup": 0.2,
        "cutmix": 1.0,
    },
}
TORCHVISION: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "autoaugment": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "augmix": lambda: v2.AugMix(all_ops=False),
}


@own_process()  # with the command line's allocator setting
def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of augmentation.")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="training steps of each kind")
    parser.add_argument("--repeats", type=int, default=10, help="batches of each kind when only they are timed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    hardware = choose_hardware(recipe_for(WITHOUT, options.batch).train, options.device)
    sources = {kind: batches_for(kind, options.batch, hardware) for kind in KINDS}
    drawn = {kind: seconds_a_batch(source, options.repeats, hardware) for kind, source in sources.items()}
    loops = {kind: seconds_a_loop(make(), options.batch, options.repeats) for kind, make in TORCHVISION.items()}
    steps = seconds_a_step(sources, options.rounds, hardware)
    plain = statistics.median(steps[WITHOUT])
    ratio = {kind: round(statistics.median(seconds) / plain, 3) for kind, seconds in steps.items()}
    write_json(
        options.out,
        {
            "what": "images per second of each augmentation alone, and the time of a ResNet-18 training step with it "
            "over that without",
            "batch_size": options.batch,
            "repeats": options.repeats,
            "n": options.rounds,
            "settings": KINDS,
            "pictures_per_second": {kind: rate(seconds, options.batch) for kind, seconds in drawn.items()},
            "torchvision_one_at_a_time_pictures_per_second": {
                kind: rate(seconds, options.batch) for kind, seconds in loops.items()
            },
            "step_seconds": steps,
            "step_ratio": ratio,
            "worst_ratio": max(ratio.values()),
            "choices": [vars(choice) for choice in hardware.choices],
            "hardware": describe_machine(hardware.device),
            "torch": torch.__version__,
            "date": datetime.now(UTC).date().isoformat(),
        },
    )
    for kind, seconds in drawn.items():
        print(f"{kind:26s} {rate(seconds, options.batch):10,.0f} images per second   step × {ratio[kind]:.3f}")


def recipe_for(kind: str, batch: int) -> Recipe:
    """A recipe with this augmentation and nothing else."""
    values = {"name": "benchmark", "model": {"name": "resnet18"}, "schedule": {"batch_size": batch}}
    return resolve_recipe({**values, "augment": {"flip": "none"} | KINDS[kind]}, {}, classes=10, rows=50_000)


def batches_for(kind: str, batch: int, hardware: Hardware) -> TrainingBatches:
    """Four batches of random images."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4 * batch, 32, 32, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (4 * batch,), generator=generator)
    pixels, labels = pixels.to(hardware.device), labels.to(hardware.device)
    return TrainingBatches(pixels, labels, MEAN, STD, recipe_for(kind, batch), hardware.memory_format, CLASSES)


def next_batch(source: TrainingBatches, number: int) -> Batch:
    """Batch `number` of an endless training."""
    positions = torch.arange(source.batch_size) + number % len(source) * source.batch_size
    return source.batch(positions, number // len(source), number % len(source))


def seconds_a_batch(source: TrainingBatches, repeats: int, hardware: Hardware) -> list[float]:
    """Seconds of building batches, after one to warm up."""
    seconds = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        next_batch(source, number)
        finish(hardware)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def seconds_a_loop(change: Callable[[Tensor], Tensor], batch: int, repeats: int) -> list[float]:
    """Seconds that torchvision takes for a batch on the CPU, image by image; uint8 to uint8."""
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        for image in images:
            change(image)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def seconds_a_step(sources: dict[str, TrainingBatches], rounds: int, hardware: Hardware) -> dict[str, list[float]]:
    """Seconds of a training step of each kind, in turn, after one of each to warm up."""
    net = MODELS.get("resnet18")(len(CLASSES), {}).to(hardware.device).to(memory_format=hardware.memory_format).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    seconds: dict[str, list[float]] = {kind: [] for kind in sources}
    for number in range(rounds + 1):
        for kind in sources if number % 2 == 0 else reversed(sources):
            start = time.perf_counter()
            images, labels = next_batch(sources[kind], number)
            with torch.autocast(hardware.device.type, hardware.precision, hardware.precision != torch.float32):
                loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            finish(hardware)
            if number:
                seconds[kind].append(time.perf_counter() - start)
    return seconds


def finish(hardware: Hardware) -> None:
    """Wait for queued GPU work."""
    if hardware.device.type == "cuda":
        torch.cuda.synchronize()


def rate(seconds: list[float], batch: int) -> float:
    """Images per second, from the median time of a batch."""
    return round(batch / statistics.median(seconds), 1)


if __name__ == "__main__":
    main()
