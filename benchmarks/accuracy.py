"""Accuracy, time and memory of a recipe on CIFAR, run through the command line.

    python benchmarks/accuracy.py cifar10 [--recipe fast] [--seeds 0,1,2] [--data-root DIR] [--set key=value]...
    python benchmarks/accuracy.py cifar10 --recipe thorough --take RUN [--take RUN]... [--add]

Trains once per seed in a new process, and writes metrics, wall time, peak memory, hardware and versions to
`benchmarks/results/accuracy-<data>-<recipe>-<device>.json`, where the device of a CPU that was trained on in float32 is
`cpu_float32`. Run directories are kept under `--runs`. `--take` reads the metrics of finished runs instead, such as
long ones that were resumed. Their time is the training time, without pauses between epochs but with pauses within an
epoch. `--add` keeps the results of other seeds with the same settings that are in the file already; teachers of
distillation are not compared, so pass the same one.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from thirtytwo.io import write_json
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results"
FIGURES = ("accuracy", "accuracy_tta", "top5_accuracy", "macro_f1", "nll", "brier", "ece", "superclass_accuracy")


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy, time and memory of a recipe on CIFAR.")
    parser.add_argument("data", nargs="?", help="cifar10 or cifar100")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--take", type=Path, action="append", default=[], metavar="RUN", help="do not train")
    parser.add_argument("--add", action="store_true", help="keep the results of other seeds")
    options = parser.parse_args()
    if options.data is None or (options.data_root is None and not options.take):
        print("skipped: name cifar10 or cifar100, and set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.take:
        runs = [read(RunDir.open(path), None) for path in options.take]
    else:
        runs = [measure(options, int(seed)) for seed in options.seeds.split(",")]
    out = RESULTS / f"accuracy-{options.data}-{Path(options.recipe).stem}-{device(runs[0])}.json"
    if options.add and out.is_file():
        trained = {run["seed"] for run in runs}
        kept = [run for run in json.loads(out.read_text("utf-8"))["runs"] if run["seed"] not in trained]
        if any(settings(run) != settings(runs[0]) for run in kept):
            fix = "Move it away and give the new runs with --take."
            print(f"{out} holds results of other settings. {fix}", file=sys.stderr)
            return 2
        runs = sorted(kept + runs, key=lambda run: int(run["seed"]))
    write_json(out, {"what": __doc__.splitlines()[0], "n": len(runs), "summary": summary(runs), "runs": runs})
    print(out)
    return 0


def device(run: dict[str, Any]) -> str:
    """The device in the name of a run's results; float32 on a CPU, several times slower than bfloat16, is named."""
    precision = next(choice["value"] for choice in run["choices"] if choice["what"] == "precision")
    return f"cpu_{precision}" if run["device"] == "cpu" and precision != "bfloat16" else str(run["device"])


def settings(run: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a run without what differs between its seeds and places."""
    recipe = copy.deepcopy(run["recipe"])
    for key in ("seed", "description"):
        recipe.pop(key, None)
    recipe["train"].get("distill", {}).pop("run", None)
    return recipe


def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train once and read the run's results."""
    path = options.runs / f"{options.data}-{Path(options.recipe).stem}-seed{seed}-bench"
    words = [sys.executable, "-m", "thirtytwo", "train", options.data, "--recipe", options.recipe]
    words += ["--seed", str(seed), "--device", options.device, "--data-root", options.data_root, "--run", str(path)]
    for setting in options.settings:
        words += ["--set", setting]
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    largest = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3, 1)
    return read(RunDir.open(path), seconds) | {"peak_memory_mb_seen_by_parent": largest}


def read(run: RunDir, seconds: float | None) -> dict[str, Any]:
    """Metrics of a finished run, with its seconds from start to report if known."""
    metrics, environment = run.read_json(run.metrics), run.read_json(run.environment)
    recipe = run.read_recipe()
    return {
        "seed": recipe.seed,
        "n_test": metrics["n"],
        **{name: metrics.get(name) for name in FIGURES},
        "minutes_wall": round(seconds / 60, 2) if seconds else None,
        "seconds_train": environment["seconds"]["train"],
        "peak_memory_mb": environment["peak_memory_mb"],
        "trained_on": environment["data"]["train"],
        "held_out": environment["data"]["val"],
        "epochs": environment["epochs"],
        "parameters": environment["parameters"],
        "flops": environment["flops"],
        "device": environment["device"],
        "hardware": environment["hardware"],
        "choices": environment["choices"],
        "versions": environment["versions"],
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "start_accuracy": _accuracy_of(recipe.transfer.pretrained),
        "date": environment["finished"][:10],
    }


def _accuracy_of(start: str) -> float | None:
    """Test accuracy of the run that a training starts from; None where it starts from other weights or from none."""
    metrics = RunDir(Path(start)).metrics
    return json.loads(metrics.read_text("utf-8"))["accuracy"]["value"] if start and metrics.is_file() else None


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and range over the seeds."""
    results: dict[str, Any] = {}
    for name in ("accuracy", "accuracy_tta"):
        values = [run[name]["value"] for run in runs if run[name]]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else None
            results[name] = {"mean": statistics.fmean(values), "std": spread, "range": [min(values), max(values)]}
    minutes = [run["minutes_wall"] for run in runs if run["minutes_wall"] is not None]
    results["minutes_wall"] = statistics.median(minutes) if minutes else None
    results["minutes_train"] = round(statistics.median(run["seconds_train"] for run in runs) / 60, 2)
    return results


if __name__ == "__main__":
    sys.exit(main())
