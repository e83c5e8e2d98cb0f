"""Output of `thirtytwo models`, `recipes`, `evaluate` and `export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.errors import ThirtytwoError
from thirtytwo.text import percent, quantity
from thirtytwo.text import size as size_text

if TYPE_CHECKING:
    from thirtytwo.workflows.export import Exported


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """Show the metrics of a metrics.json with their 95 % intervals."""
    from thirtytwo.evaluation.metrics import measured

    rows = [(metric.name, value, ends) for metric, value, ends in measured(metrics)]
    show_table(
        [f"{metrics['dataset']}, {metrics['split']}, {metrics['n']:,} images", "value", "95\u00a0% interval"], rows
    )


def show_members(run: Path) -> None:
    """Show accuracy and cost of an ensemble's members and of the combined model."""
    from thirtytwo.report.run_record import read_run_record
    from thirtytwo.report.sections import members_table
    from thirtytwo.rundir import RunDir

    table = members_table(read_run_record(RunDir.open(run)))
    assert table is not None
    keys = ("accuracy", "interval", "parameters", "flops", "seconds")
    rows = [
        (row["run"] + (f" ({row['left_out']})" if row["left_out"] else ""), *(row[key] for key in keys))
        for row in (*table["rows"], table["together"])
    ]
    show()
    show_table(["run", "accuracy", "95\u00a0% interval", "parameters", "FLOPs", "training time"], rows)
    if table["page"]:
        show(f"Comparison of the members: {run / table['page']}")


_HARDLY_SMALLER = 0.9
"""Size of an exported file as a share of the original's from which on the reason is said."""


def show_export(made: Exported) -> None:
    """Show the file sizes of a model and its export, and how closely their outputs agree."""
    from thirtytwo.inference.library import model_argument

    sizes = [path.stat().st_size for path in (made.source, made.path)]
    named = zip(map(model_argument, (made.source, made.path)), sizes, strict=True)
    files = [(name, size_text(size)) for name, size in named]
    if made.source.suffix == made.path.suffix and sizes[1] > _HARDLY_SMALLER * sizes[0]:
        reason = (
            f"{made.source.name} has most of its weights in 8 or 16 bits already, or the format keeps them as they are"
        )
        log(f"The file is hardly smaller: {reason}.")
    agreement = made.agreement
    if agreement is None:
        show_table(["file", "size"], files)
        log(f"Not compared with the original model: {made.reason}")
        return
    accuracies = [percent(agreement.before), percent(agreement.accuracy)]
    rows = [(*file, accuracy) for file, accuracy in zip(files, accuracies, strict=True)]
    show_table(["file", "size", f"accuracy on {agreement.n:,} {agreement.split} images"], rows)
    show(
        f"\nSame predicted class for {percent(agreement.same)} of these images; probabilities differ by at most "
        f"{agreement.largest:.2g}."
    )
    differences = ", ".join(f"{name} {percent(value, 2)}" for name, value in agreement.outputs.items())
    show(f"Relative RMS differences of the outputs: {differences} (allowed: {percent(agreement.allowed, 0)}).")


def show_models(size: int = 32) -> None:
    """Show trained models, then the networks that can be trained with their cost for images of `size` pixels."""
    from thirtytwo.inference.library import bundled_models, finished_runs

    table = _package_json("networks.json")
    if size not in table["sizes"]:
        sizes = ", ".join(map(str, table["sizes"]))
        raise ThirtytwoError(f"--size {size} is not in the table of networks.", f"Choose one of {sizes}.")
    trained = bundled_models() | {str(path.parent): path for path in sorted(finished_runs())}
    if trained:
        rows = [_trained_row(name, path) for name, path in trained.items()]
        show_table(["trained model", "network", "data", "classes", "accuracy", "size"], rows)
    else:
        log("No trained model found, neither bundled nor in ./runs. Train one with: thirtytwo train cifar10")
    measured = _package_json("measured.json")
    rows = [_network_row(row, str(size), measured) for row in table["networks"]]
    rows += [(point.name, "", "", "", f"from the package {_package(point)}") for point in _plugin_networks()]
    show()
    show_table(["network", "parameters", f"FLOPs at {size}×{size}", "test accuracy (recipe)", "description"], rows)
    note = f"Parameter counts are for {table['classes']} classes; one multiply-add counts as two FLOPs."
    log(f"{note} The network timm supports every timm architecture: see docs/models.md.")


def _trained_row(name: str, path: Path) -> tuple[str, ...]:
    from thirtytwo.inference.model_file import read_info

    try:
        info = read_info(path)
    except ThirtytwoError as error:
        return (name, error.message, "", "", "", "")
    accuracy = "" if info.accuracy is None else percent(info.accuracy)
    return (name, info.architecture, info.dataset, str(len(info.classes)), accuracy, size_text(path.stat().st_size))


def _network_row(row: Mapping[str, Any], size: str, measured: list[dict[str, Any]]) -> tuple[str, ...]:
    options = " ".join(value if key == "architecture" else f"{key}={value}" for key, value in row["options"].items())
    default_options = not set(row["options"]) - {"architecture"}
    found = [
        f"{result['data']} {percent(result['accuracy'])} ({result['recipe']}, {quantity(result['parameters'])})"
        for result in measured
        if default_options
        and (result["network"], result["architecture"]) == (row["name"], row["options"].get("architecture"))
    ]
    cost = f"{row['flops'][size] / 1e9:.2f} G"
    name = f"{row['name']} {options}".rstrip()
    return (name, quantity(row["parameters"]), cost, ", ".join(found), row["description"])


def _package_json(name: str) -> Any:
    """A JSON table of the package `thirtytwo.models`, read without importing it (it imports torch)."""
    return json.loads(resources.files("thirtytwo").joinpath("models", name).read_text(encoding="utf-8"))


def _plugin_networks() -> list[EntryPoint]:
    return sorted(entry_points(group="thirtytwo.models"), key=lambda point: point.name)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def show_recipes() -> None:
    """Show the bundled recipes."""
    from thirtytwo.config.resolve import read_recipe, recipe_names

    recipes = [(name, read_recipe(name)) for name in recipe_names()]
    rows = [(name, recipe.model.name, str(recipe.schedule.epochs), recipe.description) for name, recipe in recipes]
    show_table(["recipe", "network", "epochs", "description"], rows)
