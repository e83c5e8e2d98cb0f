"""Tables of what was measured about confidence and strangers, from `benchmarks/results/`."""

import json
from typing import Any

from figures import RESULTS


def confidence() -> str:
    """ECE and likelihood before and after calibration, prediction sets and corruptions."""
    found = _read("judgement")
    lines = [
        "| data | ECE before | temperature alone | after | NLL, likewise | sets for 95 % | size | corrupted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in found["runs"]:
        steps = [run["calibration"][key] for key in ("before", "temperature_only", "after")]
        sets, spoilt = run["conformal"], run["corruptions"]["mean_corruption_accuracy"]
        cells = [
            run["data"],
            *(f"{step['ece']['value']:.2%}" for step in steps),
            ", ".join(f"{step['nll']['value']:.3f}" for step in steps),
            f"{sets['measured']['value']:.2%}",
            f"{sets['mean_size']['value']:.2f}",
            f"{spoilt['value']:.1%} of {run['accuracy']['value']:.1%}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    first = found["runs"][0]
    counts = ", ".join(f"{run['corruptions']['n']:,}" for run in found["runs"])
    text = f"""
Recipe `{first["recipe"]}`, seed {first["seed"]}, {first["n"]:,} test pictures each; calibrated on
{first["calibration"]["fitted_on"]:,} validation pictures. `sets for 95 %`: how often the truth is in a prediction set
that was to hold it 95 % of the time, and the mean size of such sets. `corrupted`: mean accuracy over 75 corruptions
({counts} pictures under each). {found["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def strangers() -> str:
    """How well each score tells strangers."""
    found = _read("unknown")
    kinds = list(dict.fromkeys(kind for run in found["runs"] for kind in run["scores"][found["chosen"]]["against"]))
    heads = ["data", "score", "choosing", *kinds, "test called unknown"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for run in found["runs"]:
        for name, score in sorted(run["scores"].items(), key=lambda item: -found["mean_auroc_choosing"][item[0]]):
            against = score["against"]
            cells = [
                run["data"],
                f"**`{name}`**" if name == found["chosen"] else f"`{name}`",
                f"{found['mean_auroc_choosing'][name]:.3f}",
                *(f"{against[kind]['auroc']:.3f}" if kind in against else "" for kind in kinds),
                f"{score['test_called_unknown']:.1%}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    chosen = {run["data"]: run["scores"][found["chosen"]]["against"] for run in found["runs"]}
    missed = "; ".join(
        f"{data}: " + ", ".join(f"{kind} {row['fpr95']:.0%}" for kind, row in rows.items())
        for data, rows in chosen.items()
    )
    hardware = found["hardware"]
    text = f"""
AUROC of test pictures against strangers; `choosing` is the mean over the pictures made for the choice and both runs, by
which `{found["chosen"]}` was chosen. Strangers taken for known where 95 % of test pictures are: {missed}.
{hardware["cores"]} cores of {hardware["cpu"]}, {found["date"]}."""
    return "\n".join([*lines, text]) + "\n"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found
