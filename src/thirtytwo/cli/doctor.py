"""`thirtytwo data doctor`, `data checks` and `data fix`: check a data set, list the checks, and fix what they found."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from thirtytwo.cli.console import log, log_new_folder, show, show_table
from thirtytwo.cli.formats import BY_SUFFIX, STDOUT, ResultFormat, format_for
from thirtytwo.cli.options import Data, DataRoot
from thirtytwo.errors import DataError, OutputError, require
from thirtytwo.text import CsvWriter, capitalized, counted

if TYPE_CHECKING:
    from thirtytwo.doctor import Diagnosis, Finding

FailOn = Literal["error", "warning", "note", "never"]
FOUND = 3
"""Exit code where a finding is at or above `--fail-on`."""


def doctor(
    data: Data,
    data_root: DataRoot = None,
    mute: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Leave out a check, such as T103; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Run only this check; may be repeated.")
    ] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Also run the checks that take minutes.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Look for wrong labels (T501) by the predictions of a cross-validation: the directory that train "
            "--folds wrote, or its parquet file.",
        ),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Least severity with which the exit code is 3.", case_sensitive=False)
    ] = "error",
    format: Annotated[
        ResultFormat | None,
        typer.Option(help="table: sentences; csv: the images of each finding.", show_default=BY_SUFFIX),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write the findings to.", show_default="stdout")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with the images of each finding.", show_default=False),
    ] = None,
    fix_plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write a CSV file of suggested fixes, for data fix --plan or train --apply."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files if they exist.")] = False,
) -> None:
    """Check a data set before training, and say what to do about each finding; the data is never changed.

    The exit code is 0 if no finding is at or above --fail-on, 3 if one is, and 2 if the data cannot be used.
    """
    from thirtytwo.doctor import diagnose
    from thirtytwo.io import TEXT, write_text

    out = None if out == STDOUT else out
    format = format_for(out, format)
    written = TEXT if format == "table" else format.upper()
    files = {"--out": (out, written), "--html": (html, "HTML"), "--fix-plan": (fix_plan, "CSV")}
    _check_outputs(files, data, force)
    log_new_folder(out, html, fix_plan)
    if html is not None:
        require("jinja2", "train")
    diagnosis = diagnose(
        data, data_root=data_root, muted=mute or (), only=only or (), costly=thorough, predictions=predictions
    )
    if diagnosis.fixes is not None and diagnosis.data is not None:
        done = ", ".join(f"{count:,} {what}" for what, count in diagnosis.data.fixes.items())
        log(f"Checked with the fixes of {diagnosis.fixes.where} ({done}), as the predictions are.")
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
        no_plan = "" if fix_plan is None else f", so no plan of fixes was written to {fix_plan}"
        raise DataError(f"{data} cannot be used{no_plan}.", "Correct what is reported.")
    if fix_plan is not None:
        _write_plan(diagnosis, fix_plan)
    if diagnosis.reaches(fail_on):
        raise typer.Exit(FOUND)


def _check_outputs(files: Mapping[str, tuple[Path | None, str]], data: str, force: bool) -> None:
    """Check before the examination that its results, by option, can be written: files and their formats.

    Raises:
        OutputError: a file cannot be written or belongs to the data, or two are the same.
    """
    from thirtytwo.inputs import refuse_data_as_output
    from thirtytwo.io import check_writable, expand_home

    options: dict[Path, str] = {}
    for option, (path, format) in files.items():
        if path is None:
            continue
        refuse_data_as_output(path, data)
        check_writable(path, force=force, format=format)
        same = options.setdefault(expand_home(path).resolve(), option)
        if same != option:
            raise OutputError(f"{same} and {option} both name {path}.", "Give two files.")


def _write_plan(diagnosis: Diagnosis, file: Path) -> None:
    """Write the suggested fixes, and log their number and what they leave out."""
    from thirtytwo.data.fixes import write_fix_plan
    from thirtytwo.doctor.fix_plan import suggest_fixes

    found = suggest_fixes(diagnosis)
    write_fix_plan(file, found.plan, force=True)  # checked before
    log(f"Plan of fixes: {file}: " + ", ".join(f"{count:,} to {action}" for action, count in found.plan.counts.items()))
    if diagnosis.fixes is not None:
        log(f"It includes the fixes of {diagnosis.fixes.where}, and is for the data without them.")
    if found.test:
        log(f"{counted(found.test, 'test image')} with findings left unchanged, so that test results stay comparable.")
    if found.last:
        log(f"{counted(found.last, 'image')} with findings left, the last of a class in a split.")


def fix(
    data: Data,
    plan: Annotated[Path, typer.Option(metavar="FILE", help="Plan of fixes, as data doctor --fix-plan writes it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to create.")],
    link: Annotated[
        bool, typer.Option("--link", help="Link files (hard, else symbolic links) instead of copying them.")
    ] = False,
    new_classes: Annotated[
        bool, typer.Option("--new-classes", help="Allow the plan to name classes that the data does not have.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Write a copy of a data set to which a plan of fixes is applied; the data itself is not changed.

    The last output line is the new folder.
    """
    from thirtytwo.data.fixes import read_fix_plan
    from thirtytwo.data.repair import write_fixed

    found = read_fix_plan(plan)
    log_new_folder(out)
    if not found.fixes and not found.problems:
        log(f"{plan} has no rows: the copy is as the data.")
    written = write_fixed(data, found, out, data_root=data_root, link=link, new_classes=new_classes)
    log(f"{written.images:,} images: " + ", ".join(f"{count:,} {done}" for done, count in written.counts.items()))
    for note in written.notes:
        log(capitalized(note))
    show(str(out))


def checks() -> None:
    """List the checks of `data doctor`; its option --html shows the images of their findings."""
    from thirtytwo.doctor.output import described_checks

    show_table(["code", "severity", "problem"], described_checks())


def _formatted(diagnosis: Diagnosis, format: ResultFormat) -> str:
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
    if diagnosis.is_blocked:
        usable = "cannot be used for training as it is"
    return f"{diagnosis.spec} {usable}; {found}; {counted(len(diagnosis.ran), 'check')}."
