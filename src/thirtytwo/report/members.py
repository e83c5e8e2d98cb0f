"""What an ensemble's report and card say of the runs it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.report.run_record import Facts, duration, interval, percent, quantity

COMPARISON = "comparison"
"""Directory inside an ensemble's run directory that holds it against its members."""


def members_table(facts: Facts) -> dict[str, Any] | None:
    """Rows of members and, last, of what they make together; None where the run is no ensemble.

    `soup` tells averaged weights from averaged probabilities; `page` is the comparison beside the report, where there
    is one.
    """
    members = facts.environment.get("members")
    if not members:
        return None
    page = Path(COMPARISON) / "comparison.html"
    together = {
        "run": "together",
        "in_it": True,
        "accuracy": facts.metrics and facts.metrics.get("accuracy"),
        "parameters": facts.environment.get("parameters"),
        "flops": facts.environment.get("flops"),
        "seconds_train": (facts.environment.get("seconds") or {}).get("train"),
    }
    return {
        "rows": [_row(member) for member in members],
        "together": _row(together),
        "soup": facts.recipe.model.name != "ensemble",
        "kept": sum(bool(member["in_it"]) for member in members),
        "page": page.as_posix() if (facts.run.path / page).is_file() else "",
    }


def _row(member: dict[str, Any]) -> dict[str, str]:
    accuracy = member.get("accuracy")
    made = [f"{member['recipe']}, seed {member['seed']}" if "recipe" in member else "", member.get("network") or ""]
    return {
        "run": str(member["run"]),
        "made": "; ".join(part for part in made if part),
        "left_out": "" if member["in_it"] else "left out",
        "accuracy": percent(accuracy["value"]) if accuracy else "not scored",
        "interval": interval(accuracy["ci95"]) if accuracy else "",
        "parameters": quantity(member.get("parameters")),
        "flops": quantity(member.get("flops")),
        "seconds": duration(member.get("seconds_train")),
    }
