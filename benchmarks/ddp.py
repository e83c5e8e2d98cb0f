"""Training with two processes compared with one, with the same batches and seeds.

    python benchmarks/ddp.py [--data cifar10] [--limit-train 15000] [--seeds 0,1,2] [--epochs 12] [--data-root DIR]

Trains a small network on 16×16 pixels once per seed in one process and in two, on the CPU, each process with one
thread. The batch over all processes is the same, so each of two processes normalizes over half of it (BatchNorm) and
augments with random numbers of its own. Then the run of two processes is evaluated again in one process. Writes the
accuracies on the unchanged test images, and the largest difference of probabilities between the two evaluations, to
`benchmarks/results/ddp.json`. Times are not recorded: they depend on what else the cores do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import thirtytwo
from thirtytwo.config.resolve import format_override
from thirtytwo.io import write_json
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "ddp.json"
SMALL: dict[str, Any] = {
    "data.image_size": 16,
    "model.options": {"groups": [{"width": 32}, {"width": 64}, {"width": 128}]},
    "train.precision": "float32",
    "evaluate.tta": False,
}
PROCESSES = (1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Training with two processes compared with one.")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--limit-train", type=int, default=15_000)
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=250, help="images of a batch over all processes")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data.startswith("cifar") and options.data_root is None:
        print("skipped: set THIRTYTWO_DATA or give --data-root")
        return 0
    seeds = [int(seed) for seed in options.seeds.split(",")]
    accuracies: dict[int, list[float]] = {count: [] for count in PROCESSES}
    differences: list[float] = []
    about: dict[str, Any] = {}
    for seed in seeds:
        for count in PROCESSES:
            with tempfile.TemporaryDirectory() as place:
                run = train(options, seed, count, Path(place) / "run")
                accuracies[count].append(run.read_json(run.metrics)["accuracy"]["value"])
                if count > 1:
                    differences.append(evaluation_difference(run, options.data_root))
                    about = describe(run)
            print(f"seed {seed}, {count} process{'es' * (count > 1)}: {accuracies[count][-1]:.4f}", flush=True)
    write_json(options.out, content(options, seeds, accuracies, differences) | about)
    print(options.out)
    return 0


def train(options: argparse.Namespace, seed: int, count: int, path: Path) -> RunDir:
    """Train once with `count` processes, by the command line."""
    command = [sys.executable, "-m", "thirtytwo", "train", options.data, "--recipe", "fast", "--run", str(path)]
    command += ["--limit-train", str(options.limit_train), "--seed", str(seed), "--epochs", str(options.epochs)]
    for key, value in (SMALL | {"schedule.batch_size": options.batch}).items():
        command += ["--set", format_override(key, value)]
    command += ["--device", "cpu", "--devices", str(count), "--data-root", str(options.data_root)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return RunDir.open(path)


def evaluation_difference(run: RunDir, data_root: str | None) -> float:
    """Largest difference of test probabilities, evaluated after a training of two processes and by one process."""
    before = run.read_predictions("test")
    thirtytwo.evaluate(run.path, data_root=data_root)
    after = run.read_predictions("test")
    if not np.array_equal(before.rows, after.rows):
        raise AssertionError("the two evaluations are of other images")
    return float(np.abs(before.probabilities - after.probabilities).max())


def describe(run: RunDir) -> dict[str, Any]:
    """Size of the data, processes, hardware and versions of a run."""
    environment, metrics = run.read_json(run.environment), run.read_json(run.metrics)
    keys = ("processes", "device", "hardware", "versions")
    sizes = {"trained_on": environment["data"]["train"], "n_test": metrics["n"]}
    return sizes | {key: environment[key] for key in keys}


def content(
    options: argparse.Namespace, seeds: list[int], accuracies: dict[int, list[float]], differences: list[float]
) -> dict[str, Any]:
    """The results without the hardware."""
    one, two = (accuracies[count] for count in PROCESSES)
    paired = [b - a for a, b in zip(one, two, strict=True)]
    return {
        "what": (__doc__ or "").splitlines()[0],
        "data": options.data,
        "seeds": seeds,
        "epochs": options.epochs,
        "batch_size": options.batch,
        "settings": json.loads(json.dumps(SMALL)),
        "accuracy": {
            f"{count} process{'es' * (count > 1)}": {
                "mean": round(statistics.fmean(accuracies[count]), 4),
                "std": round(statistics.stdev(accuracies[count]), 4) if len(seeds) > 1 else None,
                "runs": accuracies[count],
            }
            for count in PROCESSES
        },
        "difference_points": round(100 * statistics.fmean(paired), 2),
        "largest_difference_of_probabilities": max(differences),
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    raise SystemExit(main())
