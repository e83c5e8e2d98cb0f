"""What thirtytwo wrote: folders and images that are no data, recognised by what they hold and not by name."""

from __future__ import annotations

import json
from pathlib import Path

RUN = "run directory"
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("recipe.toml", "split.json"), RUN),
    (("recipe.toml", "environment.json"), RUN),
    (("study.db", "base.toml"), "directory of tuning"),
)
EXPLANATIONS = "explanations.json"
SHEET = "contact-sheet.png"


def output_kind(folder: Path) -> str | None:
    """What of ours a folder is, or None where it is not ours; nothing in it is data."""
    return next((kind for names, kind in _SIGNS if all((folder / name).is_file() for name in names)), None)


def overlays_in(folder: Path) -> frozenset[str]:
    """Names of the images in a folder that `thirtytwo explain` wrote there; other images beside them are the user's."""
    try:
        told = json.loads((folder / EXPLANATIONS).read_text(encoding="utf-8"))
        return frozenset({SHEET, *(str(one["overlay"]) for one in told if "overlay" in one)})
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
