"""Calibration and OOD detection, for report and model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.label_issues import find_label_issues
from thirtytwo.evaluation.metrics import Reliability
from thirtytwo.images.render import data_uri, is_pixelated
from thirtytwo.report.gallery import locate
from thirtytwo.report.run_record import RunRecord
from thirtytwo.text import duration, interval, percent, quantity

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


def corruption_table(record: RunRecord) -> dict[str, Any] | None:
    """Accuracy by kind and strength of corruption, formatted; None where it was not measured."""
    found = record.corruptions
    if found is None:
        return None
    clean = found["clean_accuracy"]["value"]
    rows = []
    for number, kind in enumerate(found["kinds"]):
        first = not number or found["kinds"][number - 1]["family"] != kind["family"]
        cells = [
            {
                "text": percent(cell["value"], 1),
                "interval": interval(cell["ci95"], digits=1),
                "drop": round(max(0.0, 1.0 - cell["value"] / clean) if clean else 0.0, 3),
            }
            for cell in kind["accuracy"]
        ]
        rows.append(
            {
                "kind": display_name(kind["kind"]),
                "family": kind["family"] if first else "",
                "cells": cells,
                "mean": percent(kind["mean"], 1),
            }
        )
    mean = found["mean_corruption_accuracy"]
    return {
        "n": found["n"],
        "seed": found["seed"],
        "strengths": found["strengths"],
        "clean": percent(clean),
        "mean": percent(mean["value"]),
        "interval": interval(mean["ci95"]),
        "families": [(family, percent(value, 1)) for family, value in found["families"].items()],
        "rows": rows,
    }


def prediction_sets(record: RunRecord) -> dict[str, Any] | None:
    """Requested and measured coverage, and set sizes, formatted; None where they were not measured."""
    found = (record.metrics or {}).get("conformal")
    if not found:
        return None
    weakest = found["least_covered"]
    return {
        "asked": f"{100 * found['coverage']:g}%",
        "measured": percent(found["measured"]["value"]),
        "interval": interval(found["measured"]["ci95"]),
        "size": f"{found['mean_size']['value']:.2f}",
        "size_interval": interval(found["mean_size"]["ci95"], as_percent=False, digits=2),
        "n": found["n"],
        "calibrated_on": found["calibrated_on"],
        "least": percent(found["least_probability"], 1),
        "note": coverage_note(found, record.split),
        "weakest": weakest["class"],
        "weakest_coverage": percent(weakest["coverage"], 1),
        "sizes": [
            {"size": size, "count": count, "share": percent(count / found["n"], 1)} for size, count in _sizes(found)
        ],
    }


def _sizes(found: dict[str, Any], most: int = 6) -> list[tuple[str, int]]:
    """Number of images by set size; large sets in one row."""
    sizes = sorted((int(size), count) for size, count in found["sizes"].items())
    few = [(str(size), count) for size, count in sizes if size < most]
    many = sum(count for size, count in sizes if size >= most)
    return [*few, (f"{most} and more", many)] if many else few


def display_name(kind: str) -> str:
    """`gaussian_noise` as `Gaussian noise`, `jpeg` as `JPEG`."""
    return "JPEG" if kind == "jpeg" else kind.replace("_", " ").capitalize()


MAX_SHOWN = 24
MAX_LISTED = 300


def label_issues_table(record: RunRecord, images: Mapping[str, ImageSet | None]) -> dict[str, Any] | None:
    """Label issues of every split with predictions that was not trained on; None where there is no such split.

    `images` holds the images of a split where they are available; without them issues are listed but not shown.
    """
    found, counts = [], []
    for split, predictions in record.out_of_sample.items():
        if len(predictions.classes) < 2 or not len(predictions.truth):
            continue
        issues = find_label_issues(predictions)
        places, _ = locate(predictions, images.get(split), issues.positions)
        split_name = _split_name(split, record)
        counts.append({"split": split_name, "count": len(issues), "n": len(predictions.truth)})
        for number, position in enumerate(issues.positions.tolist()):
            found.append(
                {
                    "split": split_name,
                    "name": predictions.name_of(position),
                    "given": predictions.classes[int(predictions.truth[position])],
                    "suggested": predictions.classes[int(issues.suggested[number])],
                    "confidence": percent(float(predictions.confidence[position]), 1),
                    "quality": float(issues.quality[number]),
                    "image": None if places is None else (split, int(places[number])),
                }
            )
    if not counts:
        return None
    found.sort(key=lambda issue: float(str(issue["quality"])))
    with_image = [issue for issue in found if issue["image"] is not None][:MAX_SHOWN]
    return {
        "counts": counts,
        "total": len(found),
        "shown": [issue | _image(images, issue["image"]) for issue in with_image],
        "listed": found[:MAX_LISTED],
    }


def _split_name(split: str, record: RunRecord) -> str:
    """The displayed name of a split; row numbers of held-out validation are those of train."""
    if split != "val":
        return split
    return "held-out train" if record.splits.get("val_rows") else "validation"


def _image(images: Mapping[str, ImageSet | None], at: Any) -> dict[str, Any]:
    split, place = at
    part = images[split]
    assert part is not None
    image = part.images[place]
    return {"source": data_uri(image), "pixelated": is_pixelated(image)}


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
