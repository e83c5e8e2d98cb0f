"""Formats of results that commands print or write to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

DEFAULT_TOP = 5
"""Number of classes that `predict` reports by default."""
ResultFormat = Literal["table", "json", "csv"]
STDOUT = Path("-")
"""Results that may be written to a file are printed if it is named so, as by many programs."""
BY_SUFFIX = "by the suffix of --out, else table"
"""What the help shows for the default of a `ResultFormat`: the rule of `format_for`."""


def format_for(out: Path | None, chosen: ResultFormat | None) -> ResultFormat:
    """The format of results: the chosen one, else that of the suffix of the file they are written to, else a table."""
    if chosen is not None:
        return chosen
    suffix = "" if out is None else out.suffix.lower()
    return "json" if suffix == ".json" else "csv" if suffix == ".csv" else "table"
