"""The measured accuracies that `thirtytwo models` shows, from `benchmarks/results/`."""

import json
from pathlib import Path
from typing import Any

from thirtytwo.config.resolve import read_recipe, recipe_names

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "src" / "thirtytwo" / "models" / "measured.json"


def measured() -> list[dict[str, Any]]:
    """Mean test accuracy, one row per network, data set and bundled recipe; the best device's."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("accuracy-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        data, _, rest = path.stem.removeprefix("accuracy-").partition("-")
        recipe = rest.rpartition("-")[0]
        if recipe not in recipe_names():
            continue
        model = read_recipe(recipe).model
        row = {
            "network": model.name,
            "architecture": model.options.get("architecture"),
            "data": data,
            "recipe": recipe,
            "accuracy": result["summary"]["accuracy"]["mean"],
            "n": result["n"],
            "parameters": result["runs"][0]["parameters"],
        }
        if (data, recipe) not in rows or rows[data, recipe]["accuracy"] < row["accuracy"]:
            rows[data, recipe] = row
    return list(rows.values())


def text() -> str:
    """Content of `measured.json`."""
    return json.dumps(measured(), indent=1) + "\n"


def write() -> bool:
    """Write the file if it is not current; return whether it was written."""
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == text():
        return False
    FILE.write_text(text(), encoding="utf-8")
    return True
