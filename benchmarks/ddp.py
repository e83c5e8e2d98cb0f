"""Training with two processes compared with one, with the same batches and seeds.

    python benchmarks/ddp.py [--data cifar10] [--limit-train 5000] [--seeds 0,1,2] [--epochs 8] [--data-root DIR]

Trains a small network on 16×16 pixels once per seed in one process and in two, on the CPU, each process with one
thread. The batch over all processes is the same, so each of two processes normalizes over half of it (BatchNorm) and
augments with random numbers of its own. All test images are evaluated after each training; those of two processes
again by a process that trained nothing. Writes the accuracies on test, and the largest difference of logits between the
two evaluations, to `benchmarks/results/ddp.json`. Times are not recorded: they depend on what else the cores do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import limit
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.io import write_json
from thirtytwo.machine import package_version
from thirtytwo.models.base import build_network
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import choose_hardware, describe_machine
from thirtytwo.training.launch import joined

RESULTS = Path(__file__).parent / "results" / "ddp.json"
SIDE = 16
SMALL: dict[str, Any] = {
    "data.image_size": SIDE,
    "model.options": {"groups": [{"width": 32}, {"width": 64}, {"width": 128}]},
    "train.precision": "float32",
    "train.threads": 1,
}
PROCESSES = (1, 2)
CPU = torch.device("cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description="Training with two processes compared with one.")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--limit-train", type=int, default=5000)
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=250, help="images of a batch over all processes")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.data.startswith("cifar") and options.data_root is None:
        print("skipped: set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.processes:
        train_all(options)
        return 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for count in PROCESSES:
            words = [sys.executable, *sys.argv, "--processes", str(count), "--place", str(place)]
            subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        write_json(options.out, content(options, place))
    print(options.out)
    return 0


def load(options: argparse.Namespace) -> tuple[ImageSet, ImageSet]:
    """The training images and the test images."""
    root = Path(options.data_root) if options.data_root else None
    dataset = load_dataset(options.data, image_size=SIDE, resize="squash", seed=0, data_root=root)
    assert dataset.test is not None
    return limit(dataset.train, options.limit_train, 0), dataset.test


def recipe_of(options: argparse.Namespace, seed: int, classes: int, rows: int) -> Recipe:
    changes = {"seed": seed, "schedule.epochs": options.epochs, "schedule.batch_size": options.batch}
    return resolve_recipe(read_recipe_values("fast"), SMALL | changes, classes=classes, rows=rows)


def train_all(options: argparse.Namespace) -> None:
    """Train every seed in `options.processes` processes; save the weights and the test logits."""
    train, test = load(options)
    with joined(options.processes, None, "cpu", print) as processes:
        for seed in options.seeds:
            recipe = recipe_of(options, seed, len(train.classes), len(train))
            run = RunDir(options.place / f"{options.processes}-{seed}")
            run.path.mkdir(exist_ok=True)
            fitted = fit(recipe, train, None, run, choose_hardware(recipe.train, "cpu"), show=False)
            if processes.is_first:
                logits = Scorer(fitted.net, fitted.mean, fitted.std, CPU).logits(test.images)
                np.save(run.path / "logits.npy", logits)
                state = {"net": fitted.net.state_dict(), "mean": fitted.mean, "std": fitted.std}
                torch.save(state, run.path / "weights.pt")
                right = float((logits.argmax(axis=1) == test.labels).mean())
                print(f"seed {seed}, processes: {options.processes}, accuracy {right:.4f}", flush=True)


def evaluated_again(options: argparse.Namespace, place: Path, seed: int, test: ImageSet) -> npt.NDArray[np.float32]:
    """Test logits of the weights that two processes trained, evaluated by this one."""
    saved = torch.load(place / f"2-{seed}" / "weights.pt", weights_only=True)
    net = build_network(recipe_of(options, seed, len(test.classes), options.limit_train), len(test.classes))
    net.load_state_dict(saved["net"])
    net = net.to(memory_format=torch.channels_last)
    return Scorer(net, saved["mean"], saved["std"], CPU).logits(test.images)


def content(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """What is written."""
    train, test = load(options)
    accuracies: dict[int, list[float]] = {count: [] for count in PROCESSES}
    differences = []
    torch.set_num_threads(1)
    for seed in options.seeds:
        found = {count: np.load(place / f"{count}-{seed}" / "logits.npy") for count in PROCESSES}
        for count, logits in found.items():
            accuracies[count].append(round(float((logits.argmax(axis=1) == test.labels).mean()), 4))
        differences.append(float(np.abs(found[2] - evaluated_again(options, place, seed, test)).max()))
    one, two = (accuracies[count] for count in PROCESSES)
    paired = [second - first for first, second in zip(one, two, strict=True)]
    return {
        "what": (__doc__ or "").splitlines()[0],
        "data": options.data,
        "trained_on": len(train),
        "n_test": len(test),
        "seeds": options.seeds,
        "epochs": options.epochs,
        "batch_size": options.batch,
        "settings": SMALL,
        "accuracy": {f"{count} process{'es' * (count > 1)}": summary(accuracies[count]) for count in PROCESSES},
        "difference_points": round(100 * statistics.fmean(paired), 2),
        "largest_difference_of_logits": max(differences),
        "hardware": describe_machine(CPU),
        "versions": {name: package_version(name) for name in ("thirtytwo", "torch", "lightning")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation and each value."""
    std = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 4), "std": std, "runs": values}


if __name__ == "__main__":
    raise SystemExit(main())
