"""Seconds to the first training batch of CIFAR-10, without and with the cache; imports are not counted.

    python benchmarks/start.py [--data-root DIR] [--repeats 5]

Each measurement is a new process: data set read or opened, validation held out, tensors created, one batch built.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.channels import channel_statistics
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import hold_out
from thirtytwo.io import write_json
from thirtytwo.process import own_process
from thirtytwo.tensors import to_device
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.hardware import choose_hardware, describe_machine

RESULTS = Path(__file__).parent / "results" / "start.json"


@own_process()  # with the command line's allocator setting
def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds to the first training batch of CIFAR-10.")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.once:
        print(json.dumps(seconds_to_first_batch(Path(options.data_root))))
        return 0
    with tempfile.TemporaryDirectory() as cache:
        first = in_own_process(options.data_root, cache)
        later = [in_own_process(options.data_root, cache) for _ in range(options.repeats)]
    found = {
        "what": "seconds to the first training batch of CIFAR-10, imports not counted",
        "first_time": round(first, 3),
        "from_cache": [round(value, 3) for value in later],
        "median_from_cache": round(statistics.median(later), 3),
        "n": options.repeats,
        "hardware": describe_machine(torch.device("cpu")),
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_json(RESULTS, found)
    print(json.dumps(found, indent=1))
    return 0


def in_own_process(data_root: str, cache: str) -> float:
    environment = {**os.environ, "THIRTYTWO_CACHE": cache}
    words = [sys.executable, __file__, "--once", "--data-root", data_root]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def seconds_to_first_batch(data_root: Path) -> float:
    recipe = resolve_recipe(read_recipe_values("fast"), {}, classes=10, rows=45_000)
    hardware = choose_hardware(recipe.train, "cpu")
    start = time.perf_counter()
    dataset = load_dataset("cifar10", data_root=data_root)
    train, _ = hold_out(dataset.train, recipe.data.val_fraction, recipe.data.split_seed)
    mean, std = channel_statistics(train.images)
    pixels, labels = to_device(train, hardware.device)
    next(iter(TrainingBatches(pixels, labels, mean, std, recipe, hardware.memory_format)))
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
