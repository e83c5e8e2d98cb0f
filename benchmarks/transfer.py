"""Accuracy with another data set's weights on few images: CIFAR-100's for CIFAR-10, and the reverse.

    python benchmarks/transfer.py --cifar100 RUN --cifar10 RUN [--cases 10:500,10:500@10,100:500] [--seeds 0,1,2]

Trains recipe `fast` on the first rows of each case (`10:500` is CIFAR-10 with 500 training images, of which a tenth is
held out; `10:500@10` the same in 10 epochs instead of the recipe's), once from the run on the other data set and once
from scratch, for each seed. Writes the accuracy on the unchanged test images, one view, to
`benchmarks/results/transfer.json` after each run, and continues there after an interruption. Settings were chosen on
training images that are in no case: see `docs/transfer.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import thirtytwo
from thirtytwo.io import write_json
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "transfer.json"
OTHER = {"cifar10": "cifar100", "cifar100": "cifar10"}


@own_process()  # with the command line's allocator setting
def main() -> int:
    parser = argparse.ArgumentParser(
        description="Pretrained weights compared with training from scratch, on few images."
    )
    parser.add_argument("--cifar10", help="run directory of `fast` on CIFAR-10")
    parser.add_argument("--cifar100", help="run directory of `fast` on CIFAR-100")
    parser.add_argument(
        "--cases", default="10:500,10:500@10,100:500", help="classes:rows[@epochs], separated by commas"
    )
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.data_root is None or options.cifar10 is None or options.cifar100 is None:
        print("skipped: name a run on each data set, and set THIRTYTWO_DATA or give --data-root")
        return 0
    content: dict[str, Any] = {"what": __doc__.splitlines()[0], "recipe": "fast", "cases": []}
    if options.out.is_file():
        content = json.loads(options.out.read_text(encoding="utf-8"))
    for case in options.cases.split(","):
        classes, rest = case.split(":")
        rows, _, epochs = rest.partition("@")
        for seed in options.seeds.split(","):
            for start in ("pretrained", "scratch"):
                add(content, options, f"cifar{classes}", int(rows), int(epochs) if epochs else None, int(seed), start)
    return 0


def add(
    content: dict[str, Any],
    options: argparse.Namespace,
    data: str,
    rows: int,
    epochs: int | None,
    seed: int,
    start: str,
) -> None:
    """Train once, unless that is done already, and rewrite the file."""
    what = (data, rows, epochs)
    case = next((one for one in content["cases"] if (one["data"], one["rows"], one["epochs"]) == what), None)
    if case is None:
        case = {
            "data": data,
            "rows": rows,
            "epochs": epochs,
            "source": OTHER[data],
            "pretrained": {"runs": []},
            "scratch": {"runs": []},
        }
        content["cases"].append(case)
    runs = case[start]["runs"]
    if any(run["seed"] == seed for run in runs):
        return
    figures, about = measure(
        options, data, rows, epochs, seed, getattr(options, OTHER[data]) if start == "pretrained" else None
    )
    runs.append(figures)
    for kind in ("pretrained", "scratch"):
        found = [run["accuracy"] for run in case[kind]["runs"]]
        if found:
            case[kind] |= {"n": len(found), "mean": statistics.fmean(found), "min": min(found), "max": max(found)}
    if "mean" in case["pretrained"] and "mean" in case["scratch"]:
        case["points_gained"] = 100 * (case["pretrained"]["mean"] - case["scratch"]["mean"])
    content |= about | {"settings": options.settings, "date": datetime.now(UTC).date().isoformat()}
    write_json(options.out, content)
    print(f"{data} {rows} rows, seed {seed}, {start}: {figures['accuracy']:.4f}", flush=True)


def measure(
    options: argparse.Namespace, data: str, rows: int, epochs: int | None, seed: int, source: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train once; return metrics, size of the data and hardware."""
    changes = {
        key: tomllib.loads(f"v = {value}")["v"] for key, value in (one.split("=", 1) for one in options.settings)
    }
    with tempfile.TemporaryDirectory() as place:
        run = thirtytwo.train(
            data,
            recipe="fast",
            overrides={"evaluate.tta": False, **changes},
            pretrained=source,
            limit_train=rows,
            epochs=epochs,
            run=Path(place) / "run",
            seed=seed,
            device=options.device,
            data_root=options.data_root,
            show=False,
        )
        directory = RunDir.open(run.path)
        environment, recipe = directory.read_json(directory.environment), directory.read_recipe()
    figures = {
        "seed": seed,
        "accuracy": run.metrics["accuracy"]["value"],
        "ci95": run.metrics["accuracy"]["ci95"],
        "n_test": run.metrics["n"],
        "trained_on": environment["data"]["train"],
        "epochs": environment["epochs"],
        "seconds_train": environment["seconds"]["train"],
        "transfer": recipe.transfer.model_dump(exclude={"pretrained"}) if source else None,
    }
    about = {key: environment[key] for key in ("device", "hardware", "versions")}
    return figures, about


if __name__ == "__main__":
    raise SystemExit(main())
