"""Training on photographs: accuracy, cost, and comparison of settings, from `benchmarks/results/`."""

from typing import Any

from result_tables import measured_on, read_results

from thirtytwo.text import duration, interval, percent

SETTINGS_A = "18 epochs of three quarters of the layers, random erasing, last epoch, 160 then 192 pixels"
"""A setting that many others build on."""
RUNS = {
    "full": "all of TrashNet, 6 classes",
    "limit": "TrashNet with `--limit-train 300`",
    "two": "2 classes with 120 photographs each",
}
"""What each part of `benchmarks/photographs.py` trains on."""


def few_shot() -> str:
    """Accuracy, promised accuracy and unknown detection of models taught from a few photographs."""
    result = read_results("fewshot")
    lines = [
        (
            "| images per class | evaluated on | accuracy | expected | interval holds it | AUROC of unknown | "
            "unknown marked | false alarms |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part, where in (("tasks", "all other images"), ("unseen_half", "only the half that no setting was chosen on")):
        for task in result[part]:
            cells = [
                str(task["images_per_class"]),
                where,
                f"{100 * task['accuracy']:.1f} ± {percent(task['accuracy_sd'])}",
                percent(task["promised"]),
                f"{round(task['covered'] * result['draws'])} of {result['draws']}",
                f"{task['unknown_auroc']:.3f}",
                percent(task["unknown_detected"]),
                percent(task["false_alarms"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def photographs() -> str:
    """Accuracy, time and memory of training, and its throughput beside a plain script's."""
    result = read_results("photographs")
    lines = [
        "| data | trained on | test accuracy | start to report | peak memory | hardware, date |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for part, what in RUNS.items():
        if part in result:
            runs = result[part]
            first = runs["runs"][0]
            cells = [
                what,
                f"{first['n_train']:,} images",
                f"{_accuracy(runs)} of {first['n_test']}",
                duration(runs["seconds"]["total"]),
                f"{runs['peak_memory_mb'] / 1000:.1f} GB",
                measured_on(runs),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    text = ""
    if "throughput" in result:
        speeds, rounds = result["throughput"], len(result["throughput"]["rounds"]["plain"])
        text = f"""
Training steps of the recipe process {speeds["images_per_second"]["thirtytwo"]:.1f} images a second; those of a plain
PyTorch script with a DataLoader, torchvision's transforms and timm's network, which trains the same layers,
{speeds["images_per_second"]["plain"]:.1f}: ratio {speeds["ratio"]:.2f}, medians of {rounds} rounds in alternation,
steps of {speeds["batch_size"]} images. {measured_on(speeds)}."""
    return f"""{chr(10).join(lines)}

One view of each image. Where n > 1, the mean over n seeds with its range; with n = 1, the 95 % interval. Times are
those of runs that had the machine to themselves.
{text}
"""


def _accuracy(runs: dict[str, Any]) -> str:
    accuracy = runs["accuracy"]
    if runs["n"] == 1:
        ends = runs["runs"][0]["accuracy"]["ci95"]
        return f"**{percent(accuracy['mean'], 1)}** ({interval(ends, digits=1)}, n = 1)"
    return f"**{percent(accuracy['mean'], 1)}** ({interval(accuracy['range'], digits=1)}, n = {runs['n']})"


def photo_settings() -> str:
    """Accuracy of each setting of `photos` on the first fold, on all folds, and on those of two divisions."""
    result = read_results("photo_settings")
    runs = [run for run in result["runs"] if not run["limit"]]
    first = {run["setting"]: run for run in runs if (run["repeat"], run["fold"]) == (0, 0)}
    folds = len({run["fold"] for run in runs})
    size = next(iter(first.values()))["n"]
    whole = sum(run["n"] for run in runs if run["setting"] == "none")
    lines = [
        f"| changed | first fold ({size:,} images) | all three folds ({whole:,}) | mean of all trainings (number) |",
        "| --- | --- | --- | --- |",
    ]
    for name in sorted(first, key=lambda name: -first[name]["right"]):
        own = [run for run in runs if run["setting"] == name]
        division = [run for run in own if not run["repeat"]]
        every = _share(division) if len(division) == folds else "–"
        more = f"{_share(own)} ({len(own)})" if len(own) > len(division) else "–"
        shown = f"A: {name}" if name == SETTINGS_A else name.replace(f"{SETTINGS_A}, ", "A, ")
        lines.append(f"| {shown} | {_share([first[name]])} | {every} | {more} |")
    places = {run["hardware"] for run in runs}
    return "\n".join([*lines, f"\n{' and '.join(sorted(places))}, {result['date']}."]) + "\n"


def _share(runs: list[dict[str, Any]]) -> str:
    return percent(sum(run["right"] for run in runs) / sum(run["n"] for run in runs), 1)
