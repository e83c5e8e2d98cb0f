"""Tables of what the commands that look at data cost and find, from `benchmarks/results/`."""

from collections.abc import Mapping
from typing import Any

from result_tables import read_results

from thirtytwo.text import percent

COMMANDS = {"show": "`data show --html`", "doctor": "`data doctor`", "thorough": "`data doctor --thorough`"}
DATA = {
    "cifar10": "CIFAR-10, 60,000 images",
    "cifar100": "CIFAR-100, 60,000 images",
    "trashnet": "TrashNet, 2,527 photographs",
}


def data_commands() -> str:
    """Seconds and memory of each command, and how well T501 finds flipped labels."""
    found = read_results("data_commands")["found"]
    lines = [
        "| data | command | first time | again | memory | page |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    places: dict[str, list[str]] = {}
    for name, title in DATA.items():
        for command, shown in COMMANDS.items():
            if figures := found.get(name, {}).get(command):
                first, again = figures["first_time"], figures["from_cache"]
                cells = [title, shown, f"{first['seconds']:.0f} s", f"{again['seconds']:.0f} s"]
                cells += [f"{first['peak_mb'] / 1000:.1f} GB", f"{first['page_mb']:.1f} MB"]
                lines.append(f"| {' | '.join(cells)} |")
                place = f"{figures['cores']} cores of {figures['cpu']}, {figures['date']}"
                titles = places.setdefault(place, [])
                titles += [] if title in titles else [title]
    labels = read_results("label_errors")
    return "\n".join(lines) + (
        f"\n\nOne run each, with an empty cache and again; `benchmarks/data_commands.py`. {_places(places)}\n\n"
        f"Of CIFAR-10's {labels['n']:,} training labels, {percent(labels['share'], 0)} were changed at random. T501 "
        f"orders the labels with an average precision of {labels['average_precision']:.2f}; it lists "
        f"{labels['listed']:,}, of which {percent(labels['precision'], 0)} were changed, and "
        f"{percent(labels['recall'], 0)} of the changed ones "
        f"are among them (seed {labels['seed']}, {labels['date']}; `benchmarks/label_errors.py`).\n" + _repair()
    )


def _places(places: Mapping[str, list[str]]) -> str:
    """Which data was measured on which machine."""
    if len(places) == 1:
        return f"Measured on {next(iter(places))}."
    return " ".join(f"Measured on {place}: {'; '.join(titles)}." for place, titles in places.items())


def _repair() -> str:
    """What the suggested fixes name, and how much of the accuracy that changed labels cost they won back."""
    plan, found = read_results("label_plans"), read_results("label_repair")
    clean, flipped, repaired = (percent(found["mean_accuracy"][arm], 2) for arm in ("clean", "flipped", "repaired"))
    runs, machine = found["accuracy"], found["machines"]["repaired"]
    return (
        f"\nThe suggested fixes name {_named(plan)} (seed {plan['seed']}, {plan['date']}; "
        f"`benchmarks/label_errors.py --plans`). Trained with `{found['recipe']}`, the network has {clean} on test "
        f"with the original labels, {flipped} with the changed ones and {repaired} after the fixes: they win back "
        f"{percent(found['recovered'], 0)} of the loss (means of {len(runs['clean'])}, {len(runs['flipped'])} and "
        f"{len(runs['repaired'])} seeds, one {machine['gpu']}, {machine['date']}; "
        "`benchmarks/label_errors.py --train`).\n"
    )


def _named(plan: Mapping[str, Any]) -> str:
    """How many of the changed labels a plan names, and how many others."""
    others = sum(plan["suggested"].values()) - plan["suggested_for_flipped"]
    return f"{percent(plan['suggested_for_flipped'] / plan['flipped'], 0)} of the changed labels and {others:,} others"
