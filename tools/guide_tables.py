"""Tables and reference of the guides: measured recipes, widths of intervals, public names, and commands."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import classic_table
import typer
from result_tables import OF_ROWS, conditions, measured_on, read_results, seconds_by_machine

import thirtytwo
from thirtytwo.cli.main import app
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.text import duration, interval, percent

CLASSIC = tuple(recipe for recipe in classic_table.STEPS if recipe.startswith("classic-"))
ON_CPU = ("fast", "thorough", "further", "distilled", "tiny", "textbook-cnn")
"""Recipes measured by `benchmarks/accuracy.py`, in the order of the table."""
PHOTOGRAPHS = {"full": "TrashNet, 6 classes", "limit": "300 of them", "two": "2 classes of 120"}
"""What each part of `benchmarks/photographs.py` trains on."""
SIZES = (50, 200, 1000, 10_000)
ACCURACIES = (0.7, 0.9, 0.99)
EXTENSIONS = {
    "Names": ("thirtytwo.registry.Registry",),
    "Settings": ("thirtytwo.config.settings.Settings", "thirtytwo.config.settings.parse_settings"),
    "Data": (
        "thirtytwo.data.types.ImageSet",
        "thirtytwo.data.types.Request",
        "thirtytwo.data.types.refuse_options",
        "thirtytwo.data.build.build_dataset",
        "thirtytwo.data.build.fingerprint",
    ),
    "Checks of data": ("thirtytwo.doctor.base.Check", "thirtytwo.doctor.base.Finding", "thirtytwo.doctor.base.Place"),
    "Export of data": ("thirtytwo.data.export.base.DataFormat", "thirtytwo.data.export.run.export_dataset"),
    "Augmentation": ("thirtytwo.augment.operations.Terms",),
    "Networks": (
        "thirtytwo.models.base.Network",
        "thirtytwo.models.base.takes_options",
        "thirtytwo.models.base.roles_by_kind",
        "thirtytwo.models.packaged.WeightFile",
        "thirtytwo.models.packaged.WeightPackage",
    ),
    "Evaluators": (
        "thirtytwo.evaluation.evaluators.Evaluator",
        "thirtytwo.evaluation.evaluators.Option",
        "thirtytwo.evaluation.sections.Section",
        "thirtytwo.evaluation.sections.Table",
        "thirtytwo.evaluation.sections.Cell",
    ),
    "Heatmaps": ("thirtytwo.explain.methods.Method",),
    "Export of models": ("thirtytwo.export.quantize.ExportFormat",),
}
"""Public names of the modules for extensions, by topic."""


def recipe_guide() -> str:
    """Each measured recipe with its data, accuracy, training time and hardware."""
    rows = [*_of_photographs(), *_of_few_shot(), *_of_cifar()]
    head = [
        "| recipe | data | test accuracy | n | training | hardware, date |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    text = f"""
{OF_ROWS}
{classic_table.of_lite2()}
Times are those of training, without a teacher's or an earlier run's, on the hardware that the row names and with the
version of its date, of which later ones are faster; for photographs, from start to report. Some trainings had pauses
or others beside them, so they would take less time alone: the head of each recipe's file says so.
± is the standard deviation over the draws."""
    return "\n".join([*head, *rows, text]) + "\n"


def _of_photographs() -> list[str]:
    result, rows = read_results("photographs"), []
    for part, what in PHOTOGRAPHS.items():
        if part in result:
            runs = result[part]
            ends = interval(runs["runs"][0]["accuracy"]["ci95"], digits=1) if runs["n"] == 1 else ""
            cells = [
                "`photos`",
                what,
                _accuracy(runs["accuracy"]["mean"], ends),
                str(runs["n"]),
                duration(runs["seconds"]["total"]),
            ]
            rows.append(_row(*cells, measured_on(runs)))
    return rows


def _of_few_shot() -> list[str]:
    result, rows = read_results("fewshot"), []
    for task in result["unseen_half"]:
        what = f"TrashNet, {task['images_per_class']} images per class"
        spread = f"± {100 * task['accuracy_sd']:.1f} points"
        rows.append(
            _row(
                "`thirtytwo teach`",
                what,
                _accuracy(task["accuracy"], spread),
                f"{result['draws']} draws",
                "–",
                "–",
            )
        )
    return rows


def _of_cifar() -> list[str]:
    rows = []
    for data, title in classic_table.DATA.items():
        on_cpu = [
            (recipe, read_results(f"accuracy-{data}-{recipe}-{device}"))
            for recipe in ON_CPU
            for device in ("cpu", "cpu_float32")
        ]
        rows += [_of_accuracy(recipe, data, result) for recipe, result in on_cpu if result]
        found = classic_table.results_on(data)
        for recipe in ("transfer-lite2", *CLASSIC):
            if one := found.get(recipe):
                took, place = duration(one.seconds), f"{one.hardware}, {one.date}"
                rows.append(
                    _row(f"`{recipe}`", title, _accuracy(one.accuracy, interval(one.ends, digits=1)), "1", took, place)
                )
    return rows


def _of_accuracy(recipe: str, data: str, result: dict[str, Any]) -> str:
    """A row from a result of `benchmarks/accuracy.py`."""
    run = result["runs"][0]
    ends = interval(run["accuracy"]["ci95"], digits=1) if result["n"] == 1 else ""
    accuracy = _accuracy(result["summary"]["accuracy"]["mean"], ends)
    seconds = seconds_by_machine(result["runs"])
    took, places = " and ".join(map(duration, seconds.values())), " and ".join(seconds)
    name, title = f"`{recipe}`{conditions(run, recipe, data)}", classic_table.DATA[data]
    return _row(name, title, accuracy, str(result["n"]), took, f"{places}, {run['date']}")


def _accuracy(value: float, spread: str) -> str:
    return f"**{percent(value, 1)}**" + (f" ({spread})" if spread else "")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def interval_table() -> str:
    """The 95 % interval of an accuracy, by the number of test images."""
    lines = [_row("test images", *(f"accuracy {percent(value, 0)}" for value in ACCURACIES)), "| --- " * 4 + "|"]
    for size in SIZES:
        ends = [interval(wilson(round(value * size), size), digits=1) for value in ACCURACIES]
        lines.append(_row(f"{size:,}", *ends))
    return "\n".join(lines) + "\n\nWilson's interval, as in reports.\n"


def api() -> str:
    """Reference of the public names of `thirtytwo`: functions, then classes."""
    names = [name for name in thirtytwo.__all__ if not name.startswith("_")]
    functions = [name for name in names if name.islower()]
    groups = {"Functions": functions, "Classes": [name for name in names if name not in functions]}
    parts = []
    for title, members in groups.items():
        parts.append(f"## {title}")
        parts += [_reference(f"thirtytwo.{thirtytwo._MODULES[name]}.{name}", f"thirtytwo.{name}") for name in members]
    return "\n\n".join(parts) + "\n"


def api_extensions() -> str:
    """Reference of the public names of the modules for extensions."""
    parts = []
    for title, names in EXTENSIONS.items():
        parts += [f"## {title}", *(_reference(name, _public(name)) for name in names)]
    return "\n\n".join(parts) + "\n"


def _public(name: str) -> str:
    """The name as extensions import it."""
    package = {"augment.operations": "augment", "doctor.base": "doctor"}
    package |= {"data.export.base": "data.export", "data.export.run": "data.export"}
    module, _, last = name.removeprefix("thirtytwo.").rpartition(".")
    return f"thirtytwo.{package.get(module, module)}.{last}"


def _reference(place: str, title: str) -> str:
    options = {"heading": title, "toc_label": title.rpartition(".")[2], "heading_level": 3}
    return "\n".join([f"::: {place}", "    options:", *(f"      {key}: {value}" for key, value in options.items())])


def commands() -> str:
    """Every command with its arguments and options."""
    parts = []
    for name, command in _leaves("thirtytwo", typer.main.get_command(app)):
        rows = [_option(one) for one in command.get_params(typer.Context(command)) if one.name != "help"]
        parts += [f"## {name}", "\n".join(inspect.cleandoc(command.help or "").split("\n\n")[0].splitlines())]
        if rows:
            parts.append("\n".join(["| argument or option | default | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands below a group, each with its full name, in the order of the help."""
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for part, one in below.items():
        if not getattr(one, "hidden", False):
            yield from _leaves(f"{name} {part}", one)


def _option(one: Any) -> str:
    if one.param_type_name == "argument":
        flags = f"`{(one.metavar or one.name).upper()}`"
    else:
        kind = one.type_descriptor.annotation
        values = one.metavar or "/".join(get_args(kind) if get_origin(kind) is Literal else ())
        value = f" {values}".replace("|", "/") if values and not one.is_flag else ""
        flags = ", ".join(f"`{flag}{value}`" for flag in (*one.opts, *one.secondary_opts))
    shown = one.show_default if isinstance(one.show_default, str) else one.default
    shown = getattr(shown, "value", shown)
    hidden = one.show_default is False or shown is None or callable(shown) or shown in (False, (), [])
    default = "" if hidden else "on" if shown is True else str(shown)
    return _row(flags, default, " ".join((one.help or "").split()).replace("|", "\\|"))
