"""Recognize outputs of thirtytwo, which are not data, by their content and not by their name."""

from __future__ import annotations

import json
from pathlib import Path

RUN = "run directory"
_MARKERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("recipe.toml", "split.json"), RUN),
    (("recipe.toml", "environment.json"), RUN),
    (("study.db", "base.toml"), "tuning directory"),
)
EXPLANATIONS = "explanations.json"
SHEET = "contact-sheet.png"


def output_kind(folder: Path) -> str | None:
    """Kind of output that a folder is, or None where thirtytwo did not write it; nothing in an output is data."""
    return next((kind for names, kind in _MARKERS if all((folder / name).is_file() for name in names)), None)


def overlays_in(folder: Path) -> frozenset[str]:
    """Names of the images in a folder that `thirtytwo explain` wrote; other images in it belong to the user."""
    try:
        explanations = json.loads((folder / EXPLANATIONS).read_text(encoding="utf-8"))
        return frozenset({SHEET, *(str(one["overlay"]) for one in explanations if "overlay" in one)})
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
