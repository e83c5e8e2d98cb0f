"""Training on photographs: accuracy, cost, and comparison of settings, from `benchmarks/results/`."""

from typing import Any

from result_tables import read_results

from thirtytwo.text import duration, interval, percent

RUNS = {
    "full": "all of TrashNet, 6 classes",
    "limit": "TrashNet with `--limit-train 300`",
    "two": "2 classes with 120 photographs each",
}
"""What each part of `benchmarks/photographs.py` trains on."""


def photographs() -> str:
    """Accuracy, time and memory of training, and its throughput beside a plain script's."""
    result = read_results("photographs")
    lines = [
        "| data | trained on | test accuracy | start to report | peak memory |",
        "| --- | --- | --- | --- | --- |",
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
            ]
            lines.append(f"| {' | '.join(cells)} |")
    hardware, text = result["hardware"], ""
    if "throughput" in result:
        speeds, rounds = result["throughput"], len(result["throughput"]["rounds"]["plain"])
        text = f"""
A training step of all layers processes {speeds["images_per_second"]["thirtytwo"]:.1f} images a second; a plain PyTorch
script with a DataLoader, torchvision's transforms and timm's network, {speeds["images_per_second"]["plain"]:.1f}: ratio
{speeds["ratio"]:.2f}, medians of {rounds} rounds in alternation, batches of {speeds["batch_size"]}."""
    return f"""{chr(10).join(lines)}

One view of each image. Where n > 1, the mean over n seeds with its range, and means of the time; with n = 1, the 95 %
interval. {hardware["cores"]} cores of {hardware["cpu"]}, {result["date"]}.
{text}
"""


def _accuracy(runs: dict[str, Any]) -> str:
    accuracy = runs["accuracy"]
    if runs["n"] == 1:
        ends = runs["runs"][0]["accuracy"]["ci95"]
        return f"**{percent(accuracy['mean'], 1)}** ({interval(ends, digits=1)}, n = 1)"
    return f"**{percent(accuracy['mean'], 1)}** ({interval(accuracy['range'], digits=1)}, n = {runs['n']})"


def photo_settings() -> str:
    """Settings of `photos` that were trained on every fold, best first."""
    result = read_results("photo_settings")
    most = max(row["trainings"] for row in result["table"])
    rows = [row for row in result["table"] if row["trainings"] == most]
    lines = ["| changed | accuracy | images |", "| --- | --- | --- |"]
    lines += [f"| {row['setting']} | {percent(row['accuracy'], 1)} | {row['n']:,} |" for row in rows]
    hardware = result["hardware"]
    place = hardware["gpu"] or f"{hardware['cores']} cores of {hardware['cpu']}"
    return "\n".join([*lines, f"\nOne seed; {place}, {result['date']}."]) + "\n"
