"""Corruptions and prediction sets, for report and model card."""

from __future__ import annotations

from typing import Any

from thirtytwo.report.confidence import coverage_note
from thirtytwo.report.run_record import RunRecord, interval, percent


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
