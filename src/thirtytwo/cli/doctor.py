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
from thirtytwo.errors import DataError, OutputError, require
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
    fail_on: Annotated[FailOn, typer.Option(help="Least severity with which the exit code is 3.")] = "error",
    format: Annotated[Format, typer.Option(help="table: sentences; csv: the images of each finding.")] = "table",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write the findings to.", show_default="stdout")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with the images of each finding.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files if they exist.")] = False,
) -> None:
    """Check a data set before training, and say what to do about each finding.

    The exit code is 0 if no finding is at or above --fail-on, 3 if one is, and 2 if the data cannot be used.
    """
    from thirtytwo.doctor import diagnose
    from thirtytwo.io import write_text

    _check_outputs(out, html, force)
    diagnosis = diagnose(data, data_root=data_root, muted=mute or (), only=only or (), costly=thorough)
    if html is not None:
        from thirtytwo.doctor.page import render_diagnosis

        write_text(html, render_diagnosis(diagnosis))
        log(f"Page: {html}")
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


def _check_outputs(out: Path | None, html: Path | None, force: bool) -> None:
    """Check before the examination that its results can be written.

    Raises:
        OutputError: a file cannot be written, or both are the same.
        MissingExtraError: there is a page to write, and Jinja2 is not installed.
    """
    from thirtytwo.io import check_writable, expand_home

    for path in (out, html):
        if path is not None:
            check_writable(path, force=force)
    if html is not None:
        require("jinja2", "train")
        if out is not None and expand_home(out).resolve() == expand_home(html).resolve():
            raise OutputError(f"--out and --html both name {html}.", "Give two files.")


def checks() -> None:
    """List the checks of `data doctor`; its option --html shows the images of their findings."""
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
