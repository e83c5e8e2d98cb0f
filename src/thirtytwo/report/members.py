"""The members of an ensemble or soup, for report and model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.report.run_record import RunRecord, duration, interval, percent, quantity

COMPARISON = "comparison"
"""Directory of the comparison with the members, inside the run directory of an ensemble."""


def members_table(record: RunRecord) -> dict[str, Any] | None:
    """Rows of the members and of the combined model; None where the run was not combined from others.

    `soup` is true for averaged weights; `page` is the comparison with the members, if there is one.
    """
    members = record.environment.get("members")
    if not members:
        return None
    page = Path(COMPARISON) / "comparison.html"
    combined = {
        "run": "combined",
        "in_it": True,
        "accuracy": record.metrics and record.metrics.get("accuracy"),
        "parameters": record.environment.get("parameters"),
        "flops": record.environment.get("flops"),
        "seconds_train": (record.environment.get("seconds") or {}).get("train"),
    }
    return {
        "rows": [_row(member) for member in members],
        "together": _row(combined),
        "soup": record.recipe.model.name != "ensemble",
        "kept": sum(bool(member["in_it"]) for member in members),
        "page": page.as_posix() if (record.run.path / page).is_file() else "",
    }


def _row(member: dict[str, Any]) -> dict[str, str]:
    accuracy = member.get("accuracy")
    made_by = [f"{member['recipe']}, seed {member['seed']}" if "recipe" in member else "", member.get("network") or ""]
    return {
        "run": str(member["run"]),
        "made_by": "; ".join(part for part in made_by if part),
        "left_out": "" if member["in_it"] else "left out",
        "accuracy": percent(accuracy["value"]) if accuracy else "not evaluated",
        "interval": interval(accuracy["ci95"]) if accuracy else "",
        "parameters": quantity(member.get("parameters")),
        "flops": quantity(member.get("flops")),
        "seconds": duration(member.get("seconds_train")),
    }
