"""Calibration and OOD detection, for report and model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thirtytwo.evaluation.metrics import Reliability
from thirtytwo.report.run_record import RunRecord, interval, percent

STAGES = (("before", "As trained"), ("temperature_only", "Temperature only"), ("after", "Calibrated"))


def calibration_note(found: Mapping[str, Any], split: str) -> str:
    """What else the calibration images were used to choose; empty where they were not."""
    chosen = found.get("validation_chose") or ()
    if not chosen:
        return ""
    return (
        f"The validation images were also used to choose {', '.join(chosen)}, so the fitted confidence may be slightly "
        f"too high; metrics on {split} are not affected"
    )


def coverage_note(found: Mapping[str, Any], split: str) -> str:
    """A sentence on when the coverage of prediction sets is guaranteed, without full stop."""
    chosen = ["temperature and curvature", *(found.get("validation_chose") or ())]
    return (
        "The requested coverage is guaranteed only for validation images that were used for nothing else; these were "
        f"also used to choose {', '.join(chosen)}. Rely on the coverage measured on {split}, with its interval"
    )


def reliability_before(record: RunRecord) -> Reliability | None:
    """The reliability diagram before calibration; None where it was not measured."""
    bins = ((record.metrics or {}).get("calibration") or {}).get("before", {}).get("bins")
    if not bins:
        return None
    return Reliability(
        edges=np.array(bins["edges"], dtype=np.float64),
        counts=np.array(bins["counts"], dtype=np.int64),
        confidence=np.array(bins["confidence"], dtype=np.float64),  # None becomes NaN
        accuracy=np.array(bins["accuracy"], dtype=np.float64),
    )


def calibration_table(record: RunRecord) -> dict[str, Any] | None:
    """ECE and NLL before and after calibration, formatted; None where they were not measured."""
    found = (record.metrics or {}).get("calibration")
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
        "note": calibration_note(found, record.split),
    }


def unknown_table(record: RunRecord) -> dict[str, Any] | None:
    """Metrics of OOD detection, formatted; None where they were not measured."""
    found = (record.metrics or {}).get("unknown")
    if not found:
        return None
    validation, test = found.get("validation") or {}, found.get("test") or {}
    return {
        "score": str(found["score"]).replace("_", " "),
        "what": _without_stop(found.get("what")),
        "source": _without_stop(found.get("source")),
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
        "skipped": [f"{row['name']}: {row['reason']}" for row in found.get("skipped") or ()],
    }


def _without_stop(text: str | None) -> str:
    """Text without a full stop at its end."""
    return (text or "").strip().rstrip(".")
