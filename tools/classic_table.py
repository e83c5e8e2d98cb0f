"""The steps of the classic transfer-learning notebook, from `benchmarks/results/`."""

from dataclasses import dataclass
from typing import Any

from result_tables import read_results

from thirtytwo.config.resolve import read_recipe
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.text import interval, percent

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
N_TEST = 10_000
"""Test images of CIFAR."""
NONE = "–"
STATED = {"classic-frozen": 0.318, "classic-finetuned": 0.710, "classic-96": 0.888}
"""Test accuracy on CIFAR-10 that the notebook states for ResNet-50; not measured here."""
STEPS = {
    "classic-frozen": "1. dense head on a frozen ImageNet network",
    "classic-finetuned": "2. all layers trained",
    "classic-96": "3. enlarged images, class weights",
    "transfer-lite2": "4. larger network and images, strong augmentation",
    "fast": "5. from scratch: a network for small images",
}
"""What each recipe adds."""
SIZES = {"classic-frozen": 32, "classic-finetuned": 32, "classic-96": 96, "fast": 32}
"""Pixels that each recipe works at, of those that are measured on a CPU as well."""


@dataclass(frozen=True)
class Result:
    """One training: accuracy on test with its 95 % interval, the size the network works at, and what training took."""

    accuracy: float
    ends: tuple[float, float]
    size: int
    epochs: int
    seconds: float
    hardware: str
    date: str


def classic() -> str:
    """One row for each step that was measured on some data set."""
    found = {data: results_on(data) for data in DATA}
    lines = [
        f"| step | recipe | pixels | {' | '.join(DATA.values())} | classic notebook, CIFAR-10 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for recipe, step in STEPS.items():
        measured = {data: results[recipe] for data, results in found.items() if recipe in results}
        if measured:
            sizes = " or ".join(dict.fromkeys(str(result.size) for result in measured.values()))
            cells = [_cell(measured[data]) if data in measured else NONE for data in DATA]
            stated = percent(STATED[recipe], 1) if recipe in STATED else NONE
            lines.append(f"| {' | '.join([step, f'`{recipe}`', sizes, *cells, stated])} |")
    text = f"""
Test accuracy of one view with its 95 % interval, one seed each. Steps 1 to 3 start from packaged ImageNet weights of
EfficientNet-Lite0, step 4 from those of Lite2. The last column is what the classic notebook states for ResNet-50.
{of_lite2()}"""
    return "\n".join([*lines, text]) + "\n"


def of_lite2() -> str:
    """With which settings `transfer-lite2` was measured, beside those of the recipe."""
    recipe = read_recipe("transfer-lite2")
    size, epochs = recipe.model.options["input_size"], recipe.schedule.epochs
    found = {name: results_on(data).get(recipe.name) for data, name in DATA.items()}
    measured = ", ".join(f"{one.size} pixels and {one.epochs} epochs on {name}" for name, one in found.items() if one)
    return f"`transfer-lite2` was measured with {measured}; the recipe has {size} pixels and {epochs} epochs."


def classic_costs() -> str:
    """Epochs, seconds and hardware of each training."""
    lines = ["| recipe | data | epochs | training | hardware, date |", "| --- | --- | --- | --- | --- |"]
    for recipe in STEPS:
        for data, name in DATA.items():
            result = results_on(data).get(recipe)
            if result is not None:
                took = f"{result.seconds:.0f} s" if result.seconds < 300 else f"{result.seconds / 60:.0f} minutes"
                cells = [f"`{recipe}`", name, str(result.epochs), took, f"{result.hardware}, {result.date}"]
                lines.append(f"| {' | '.join(cells)} |")
    notes = dict.fromkeys(whole["note"] for data in DATA if "note" in (whole := read_results(f"gpu/classic-{data}")))
    lines += ["", *(f"Steps 1 to 3: {note[0].lower()}{note[1:]}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _cell(result: Result) -> str:
    return f"**{percent(result.accuracy, 2)}** ({interval(result.ends, digits=1)})"


def results_on(data: str) -> dict[str, Result]:
    """Measured results on `data` by recipe."""
    found: dict[str, Result] = {}
    classic, photos = read_results(f"gpu/classic-{data}"), read_results(f"gpu/photos-{data}")
    for run in classic["results"]["runs"] if classic else ():
        found[run["name"]] = _of_gpu(classic, run, run["test"]["value"], run["test"]["n"], run["epochs"])
    if photos and "test_accuracy" in photos["results"]:
        one = photos["results"]
        n = one.get("n_test", N_TEST)
        found["transfer-lite2"] = _of_gpu(photos, one, one["test_accuracy"], n, len(one["history"]) - 1)
    for recipe, size in SIZES.items():
        on_cpu = read_results(f"accuracy-{data}-{recipe}-cpu")
        if on_cpu and recipe not in found:
            found[recipe] = _of_cpu(on_cpu["runs"][0], size)
    return found


def _of_cpu(run: dict[str, Any], size: int) -> Result:
    """A result of `benchmarks/accuracy.py`."""
    accuracy, hardware = run["accuracy"], run["hardware"]
    place = hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}"
    ends = (accuracy["ci95"][0], accuracy["ci95"][1])
    return Result(accuracy["value"], ends, size, run["epochs"], run["seconds_train"], place, run["date"])


def _of_gpu(whole: dict[str, Any], run: dict[str, Any], accuracy: float, n: int, epochs: int) -> Result:
    """A result of `benchmarks/gpu.py`."""
    if whole["tiny"]:
        raise ValueError("this is the result of a trial run, which must not be published")
    machine, size = whole["machine"], run["recipe"]["model"]["options"]["input_size"]
    place = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    return Result(accuracy, wilson(round(accuracy * n), n), size, epochs, run["seconds"], place, machine["date"])
