"""Effect of class weights, a balanced sampler and the focal loss on long-tailed CIFAR-10.

    python benchmarks/imbalance.py [--data "cifar10?imbalance=100"] [--seeds 0,1,2] [--epochs 12] [--data-root DIR]

Trains a small network on 16×16 pixels once per option and seed, on one thread, and writes macro-F1, accuracy and the
recall of the rarest three classes, all on the unchanged test images, to `benchmarks/results/imbalance.json`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import thirtytwo
from thirtytwo.io import write_json
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "imbalance.json"
RARE = 3
FIGURES = ("macro_f1", "accuracy", f"recall_of_rarest_{RARE}")
SMALL: dict[str, Any] = {
    "data.image_size": 16,
    "model.options.groups": [{"width": 32}, {"width": 64}, {"width": 128}],
    "train.threads": 1,
    "evaluate.tta": False,
}
REMEDIES: dict[str, dict[str, Any]] = {
    "none": {},
    "class weights": {"train.class_weights": "balanced"},
    "balanced sampler": {"train.sampler": "balanced"},
    "focal loss": {"train.focal": 2.0},
}


@own_process()  # with the command line's allocator setting
def main() -> int:
    parser = argparse.ArgumentParser(description="Options for rare classes on long-tailed CIFAR-10.")
    parser.add_argument("--data", default="cifar10?imbalance=100")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data.startswith("cifar") and options.data_root is None:
        print("skipped: set THIRTYTWO_DATA or give --data-root")
        return 0
    seeds = [int(seed) for seed in options.seeds.split(",")]
    remedies: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for name, changes in REMEDIES.items():
        runs = []
        for seed in seeds:
            figures, about = measure(options, SMALL | changes, seed)
            runs.append(figures)
            print(f"{name:16s} seed {seed}  " + "  ".join(f"{key} {figures[key]:.4f}" for key in FIGURES), flush=True)
        remedies[name] = {"settings": changes, "mean": means(runs), "runs": runs}
    write_json(
        options.out,
        {
            "what": __doc__.splitlines()[0],
            "data": options.data,
            "n": len(seeds),
            "epochs": options.epochs,
            "network": SMALL,
            **about,
            "remedies": remedies,
            "date": datetime.now(UTC).date().isoformat(),
        },
    )
    print(options.out)
    return 0


def measure(options: argparse.Namespace, changes: dict[str, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train once; return metrics, size of the data and hardware."""
    with tempfile.TemporaryDirectory() as place:
        run = thirtytwo.train(
            options.data,
            recipe="fast",
            overrides=changes,
            run=Path(place) / "run",
            seed=seed,
            epochs=options.epochs,
            device=options.device,
            data_root=options.data_root,
            show=False,
        )
        environment = RunDir.open(run.path).read_json(RunDir(run.path).environment)
    scores = run.metrics
    rarest = [row["recall"] for row in scores["per_class"][-RARE:]]
    figures = {
        "seed": seed,
        "macro_f1": scores["macro_f1"]["value"],
        "macro_f1_ci95": scores["macro_f1"]["ci95"],
        "accuracy": scores["accuracy"]["value"],
        f"recall_of_rarest_{RARE}": statistics.fmean(rarest),
        "seconds_train": environment["seconds"]["train"],
    }
    about = {
        "trained_on": environment["data"]["train"],
        "n_test": scores["n"],
        "device": environment["device"],
        "hardware": environment["hardware"],
        "versions": environment["versions"],
    }
    return figures, about


def means(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: round(statistics.fmean(run[key] for run in runs), 4) for key in FIGURES}


if __name__ == "__main__":
    raise SystemExit(main())
