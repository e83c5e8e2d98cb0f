"""What report and model card say of calibration and of pictures unlike those trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thirtytwo.evaluation.metrics import Reliability
from thirtytwo.report.run_record import Facts, interval, percent

STAGES = (("before", "As trained"), ("temperature_only", "Temperature alone"), ("after", "Calibrated"))


def calibration_note(found: Mapping[str, Any], split: str) -> str:
    """What else the validation images decided that probabilities were calibrated on; nothing where they did not."""
    chosen = found.get("validation_chose") or ()
    if not chosen:
        return ""
    return (
        f"The same validation images also chose {', '.join(chosen)}, so confidence fitted on them may come out a "
        f"little too high; what is measured on {split} is free of that"
    )


def coverage_note(found: Mapping[str, Any], split: str) -> str:
    """How far the coverage of prediction sets is promised, and how far it is only measured."""
    chosen = ["temperature and curvature", *(found.get("validation_chose") or ())]
    return (
        "The coverage asked for is promised for validation images that were used for nothing else; these also chose "
        f"{', '.join(chosen)}. What holds is the coverage measured on {split}, with its interval"
    )


def reliability_before(facts: Facts) -> Reliability | None:
    """Confidence against accuracy before calibration; None where it was not measured."""
    bins = ((facts.metrics or {}).get("calibration") or {}).get("before", {}).get("bins")
    if not bins:
        return None
    return Reliability(
        edges=np.array(bins["edges"], dtype=np.float64),
        counts=np.array(bins["counts"], dtype=np.int64),
        confidence=np.array(bins["confidence"], dtype=np.float64),  # None becomes NaN
        accuracy=np.array(bins["accuracy"], dtype=np.float64),
    )


def calibration_table(facts: Facts) -> dict[str, Any] | None:
    """Calibration error and likelihood before and after, ready to be shown; None where they were not measured."""
    found = (facts.metrics or {}).get("calibration")
    if not found or not found.get("before") or not found.get("after"):
        return None
    curvature = float(found.get("curvature") or 0.0)
    rows = [
        {
            "stage": name,
            "ece": percent(found[key]["ece"]["value"]),
            "ece_interval": interval(found[key]["ece"]["ci95"]),
            "nll": f"{found[key]['nll']['value']:.4f}",
            "nll_interval": interval(found[key]["nll"]["ci95"], as_percent=False, digits=4),
        }
        for key, name in STAGES
        if found.get(key) and (key != "temperature_only" or curvature)
    ]
    return {
        "temperature": f"{found['temperature']:.3f}",
        "curvature": f"{curvature:.4f}" if curvature else "",
        "fitted_on": int(found.get("fitted_on") or 0),
        "before": rows[0]["ece"],
        "after": rows[-1]["ece"],
        "rows": rows,
        "note": calibration_note(found, facts.split),
    }


def unknown_table(facts: Facts) -> dict[str, Any] | None:
    """How well pictures of other kinds are told, ready to be shown; None where it was not measured."""
    found = (facts.metrics or {}).get("unknown")
    if not found:
        return None
    validation, test = found.get("validation") or {}, found.get("test") or {}
    return {
        "score": str(found["score"]).replace("_", " "),
        "what": _phrase(found.get("what")),
        "source": _phrase(found.get("source")),
        "share": f"{100 * found['share']:g}%",
        "threshold": f"{found['threshold']:.4g}",
        "validation": None
        if validation.get("called_unknown") is None
        else {"called": percent(validation["called_unknown"], 1), "n": validation["n"]},
        "test": None
        if not test
        else {
            "called": percent(test["called_unknown"]["value"]),
            "interval": interval(test["called_unknown"]["ci95"]),
            "n": test["n"],
        },
        "rows": [
            {
                "what": row.get("what") or row["name"],
                "n": row["n"],
                "auroc": f"{row['auroc']:.3f}",
                "fpr95": percent(row["fpr95"], 1),
                "called": percent(row["called_unknown"], 1),
            }
            for row in found.get("against") or ()
        ],
        "skipped": [f"{row['name']}, since {row['reason']}" for row in found.get("skipped") or ()],
    }


def _phrase(text: str | None) -> str:
    """Text without a full stop at its end."""
    return (text or "").strip().rstrip(".")
