"""`thirtytwo data doctor DATA` and `thirtytwo data checks`: run or list the checks of a data set."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.cli.options import Data, DataRoot
from thirtytwo.errors import DataError
from thirtytwo.text import CsvWriter

if TYPE_CHECKING:
    from thirtytwo.doctor import Diagnosis, Finding

FailOn = Literal["error", "warning", "note", "never"]
Format = Literal["table", "json", "csv"]
FOUND = 3
"""Exit code where a finding is at or above `--fail-on`."""


def doctor(
    data: Data,
    data_root: DataRoot = None,
    mute: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Leave out a check, such as T103; repeatable.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="CODE", help="Run only this check; repeatable.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Also run the checks that take minutes.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Look for wrong labels (T501) by the predictions of a cross-validation: the directory that train "
            "--folds wrote, or its parquet file.",
        ),
    ] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Least severity with which the exit code is 3.")] = "error",
    format: Annotated[Format, typer.Option(help="table: sentences; csv: the images of each finding.")] = "table",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write the findings to.", show_default="stdout")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file --out if it exists.")] = False,
) -> None:
    """Check a data set before training, and say what to do about each finding.

    The exit code is 0 if no finding is at or above --fail-on, 3 if one is, and 2 if the data cannot be used.
    """
    from thirtytwo.doctor import diagnose
    from thirtytwo.io import check_writable, write_text

    if out is not None:
        check_writable(out, force=force)
    diagnosis = diagnose(
        data, data_root=data_root, muted=mute or (), only=only or (), costly=thorough, predictions=predictions
    )
    if out is not None:
        write_text(out, _formatted(diagnosis, format))
        log(f"Findings: {out}")
    elif format == "table":
        show(_formatted(diagnosis, format).rstrip("\n"))
    else:
        sys.stdout.write(_formatted(diagnosis, format))
    if diagnosis.data is None:
        raise DataError(f"{data} cannot be used.", "Correct what is reported.")
    if diagnosis.reaches(fail_on):
        raise typer.Exit(FOUND)


def checks() -> None:
    """List the checks of `data doctor`."""
    from thirtytwo.doctor.output import described_checks

    show_table(["code", "severity", "problem"], described_checks())


def _formatted(diagnosis: Diagnosis, format: Format) -> str:
    from thirtytwo.doctor.output import COLUMNS, as_json, file_rows

    if format == "json":
        return json.dumps(as_json(diagnosis), indent=1) + "\n"
    if format == "csv":
        stream = io.StringIO()
        writer = CsvWriter(stream)
        for row in (COLUMNS, *file_rows(diagnosis)):
            writer.writerow(row)
        return stream.getvalue()
    return "\n".join([*map(_sentence, diagnosis.findings), _conclusion(diagnosis)]) + "\n"


def _sentence(finding: Finding) -> str:
    return " ".join(f"{finding.severity} {finding.code}: {finding.what} {finding.fix}".split())


def _conclusion(diagnosis: Diagnosis) -> str:
    errors, warnings = (diagnosis.count(severity) for severity in ("error", "warning"))
    found = f"errors: {errors or 'none'}; warnings: {warnings or 'none'}"
    if diagnosis.data is None:
        return f"{diagnosis.spec} could not be checked; {found}."
    usable = "can be used for training" if not errors else "has errors; the rest can be used for training"
    return f"{diagnosis.spec} {usable}; {found}; {len(diagnosis.ran)} checks."
