"""Metrics of finished runs beyond accuracy: calibration, prediction sets, corruptions, OOD detection.

    thirtytwo evaluate RUN --coverage 0.95 --corruptions
    python benchmarks/confidence.py RUN...

Collects `metrics.json` and `corruptions.json` of each run in `benchmarks/results/confidence.json`.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thirtytwo.io import write_json
from thirtytwo.rundir import RunDir

RESULTS = Path(__file__).parent / "results" / "confidence.json"
FIGURES = ("n", "accuracy", "accuracy_tta", "superclass_accuracy", "mistake_severity", "nll", "brier", "ece")


def main() -> int:
    parser = argparse.ArgumentParser(description="Metrics of finished runs beyond accuracy.")
    parser.add_argument(
        "runs", nargs="*", type=Path, help="run directories, evaluated with --coverage and --corruptions"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.runs:
        print("skipped: name run directories")
        return 0
    rows = [figures(RunDir.open(path)) for path in options.runs]
    write_json(options.out, {"date": datetime.now(UTC).date().isoformat(), "runs": rows})
    for row in rows:
        before, alone, after = (
            row["calibration"][key]["ece"]["value"] for key in ("before", "temperature_only", "after")
        )
        print(f"{row['data']}: ECE {before:.2%} before, {alone:.2%} with a temperature alone, {after:.2%} after")
    print(options.out)
    return 0


def figures(run: RunDir) -> dict[str, Any]:
    """The metrics of one run; those that were not measured are null."""
    metrics, environment, recipe = run.read_json(run.metrics), run.read_json(run.environment), run.read_recipe()
    corruptions = run.read_json(run.corruptions) if run.corruptions.is_file() else {}
    calibration = {
        key: {name: figure for name, figure in value.items() if name != "bins"} if isinstance(value, dict) else value
        for key, value in metrics["calibration"].items()
    }
    return {
        "data": environment["data"]["spec"],
        "recipe": recipe.name,
        "seed": recipe.seed,
        "epochs": recipe.schedule.epochs,
        "hardware": environment["hardware"],
        **{name: metrics[name] for name in FIGURES},
        "calibration": calibration,
        "conformal": metrics.get("conformal"),
        "unknown": metrics["unknown"],
        "corruptions": {key: corruptions[key] for key in ("n", "mean_corruption_accuracy", "families") if corruptions},
    }


if __name__ == "__main__":
    sys.exit(main())
