"""Tables of calibration, corruptions and OOD detection, from `benchmarks/results/`."""

from result_tables import read_results

from thirtytwo.text import percent

COLUMNS = {"colours": "plain colors"}


def confidence() -> str:
    """ECE and negative log likelihood before and after calibration, prediction sets and corruptions."""
    found = read_results("confidence")
    lines = [
        "| data | ECE before | temperature alone | after | NLL (same order) | coverage (95 %) | set size | corrupted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in found["runs"]:
        steps = [run["calibration"][key] for key in ("before", "temperature_only", "after")]
        sets, corrupted = run["conformal"], run["corruptions"]["mean_corruption_accuracy"]
        cells = [
            run["data"],
            *(percent(step["ece"]["value"], 2) for step in steps),
            ", ".join(f"{step['nll']['value']:.3f}" for step in steps),
            percent(sets["measured"]["value"], 2),
            f"{sets['mean_size']['value']:.2f}",
            f"{percent(corrupted['value'], 1)} (clean: {percent(run['accuracy']['value'], 1)})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    first = found["runs"][0]
    counts = " or ".join(dict.fromkeys(f"{run['corruptions']['n']:,}" for run in found["runs"]))
    text = f"""
Recipe `{first["recipe"]}`, seed {first["seed"]}, {first["n"]:,} test images each; calibrated on
{first["calibration"]["fitted_on"]:,} validation images. *Coverage*: how often the true class is in a prediction set
whose requested coverage is 95 %. *Corrupted*: mean accuracy over 75 corruptions, compared with clean images
({counts} images for each corruption). {found["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def ood() -> str:
    """AUROC of each OOD score."""
    found = read_results("ood")
    kinds = list(dict.fromkeys(kind for run in found["runs"] for kind in run["scores"][found["chosen"]]["against"]))
    heads = ["data", "score", "selection", *(COLUMNS.get(kind, kind) for kind in kinds), "test images unknown"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for run in found["runs"]:
        for name, score in sorted(run["scores"].items(), key=lambda item: -found["mean_auroc_choosing"][item[0]]):
            against = score["against"]
            cells = [
                run["data"],
                f"**`{name}`**" if name == found["chosen"] else f"`{name}`",
                f"{found['mean_auroc_choosing'][name]:.3f}",
                *(f"{against[kind]['auroc']:.3f}" if kind in against else "" for kind in kinds),
                percent(score["test_called_unknown"], 1),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    chosen = {run["data"]: run["scores"][found["chosen"]]["against"] for run in found["runs"]}
    missed = "; ".join(
        f"{data}: " + ", ".join(f"{COLUMNS.get(kind, kind)} {percent(row['fpr95'], 0)}" for kind, row in rows.items())
        for data, rows in chosen.items()
    )
    hardware = found["hardware"]
    text = f"""
AUROC of test images against OOD images. *Selection* is the mean over the images made for the choice and both runs, by
which `{found["chosen"]}` was chosen. *Test images unknown* is the false-alarm rate. False positive rate at 95 % true
positives of the chosen score: {missed}.
{hardware["cores"]} cores of {hardware["cpu"]}, {found["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def tta() -> str:
    """Accuracy and cost of the bundled models by the setting of test-time augmentation."""
    result = read_results("tta")
    lines = [
        "| model | test images | threshold | `off` | `auto` | views | time | `all` | views | time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in result["models"].items():
        cells = [f"`{name}`", f"{record['n']:,}", f"{record['threshold']:.2f}"]
        cells.append(percent(record["off"]["accuracy"]["value"]))
        for setting in ("auto", "all"):
            found = record[setting]
            time = "–" if found["time"] is None else f"× {found['time']:.2f}"
            cells += [f"**{percent(found['accuracy']['value'])}**", f"{found['views']:.2f}", time]
        lines.append(f"| {' | '.join(cells)} |")
    where = f"{result['cores']} cores of {result['cpu']}, {result['date']}"
    return f"{chr(10).join(lines)}\n\n{where}: `benchmarks/tta.py`. Views per image; times relative to `off`."
