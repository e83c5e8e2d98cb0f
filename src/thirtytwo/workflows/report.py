"""Write the pages of a finished run: report, figures and model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from thirtytwo.arguments import optional_path
from thirtytwo.config.recipe import Recipe
from thirtytwo.data.run_data import load_run_data
from thirtytwo.data.split import Parts
from thirtytwo.errors import DataError, RunError, UnknownNameError, check_choice
from thirtytwo.io import check_writable, expand_home, write_text
from thirtytwo.report.card import write_card
from thirtytwo.report.gallery import PASSES, ROWS
from thirtytwo.report.page import render, write_page
from thirtytwo.report.paper import is_own, require_typst, write_paper
from thirtytwo.report.run_record import read_run_record
from thirtytwo.rundir import RunDir, lock_run_of
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.batches import augment_samples


@preserve_torch_state()
def write_report(
    run: Path | str,
    *,
    images: bool = True,
    format: Literal["html", "pdf"] | None = None,
    out: Path | str | None = None,
    force: bool = False,
    data_root: Path | str | None = None,
) -> Path:
    """Write `report.html`, the figures and the model card of a run again, or its report as a PDF; returns its path.

    Images come from the run's data where it can still be read; else the page says that they are missing, and the PDF
    has none.

    Args:
        run: the run directory.
        images: include images of the data; without them the report can be shared where the images may not.
        format: `html`, or `pdf` for a paper of a few pages, `report.pdf`; needs the extra `pdf`. None: by the suffix of
            `out`, else `html`.
        out: file to write the report to; the run directory stays unchanged then.
        force: replace `out` if it exists, or a `report.pdf` that is not one of these reports.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.

    Raises:
        ArgumentError: there is no such format, or `run`, `out` or `data_root` is no path.
        RunError: there is no run, or one of its files is damaged.
        OutputError: `out` exists, cannot be written, or has the suffix of another format.
        MissingExtraError: a PDF is asked for, and Typst is not installed.
    """
    if format is not None:
        check_choice("format", format, ("html", "pdf"))
    directory = RunDir.open(run)
    target, root = optional_path("out", out), optional_path("data_root", data_root)
    target = None if target is None else expand_home(target)
    if (format or ("pdf" if target is not None and target.suffix.lower() == ".pdf" else "html")) == "pdf":
        return _write_pdf(directory, target, images=images, force=force, data_root=root)
    if target is not None:
        check_writable(target, force=force, format="HTML")
    with directory.writing() if target is None else lock_run_of(target):
        recipe = directory.read_recipe()
        parts = _load_parts(directory, root) if images else None
        if target is None:
            return write_pages(directory, recipe, parts)
        write_text(target, render(read_run_record(directory, "test"), **_report_images(recipe, parts), passed_on=True))
        return target


def _write_pdf(run: RunDir, out: Path | None, *, images: bool, force: bool, data_root: Path | None) -> Path:
    require_typst()
    target = out or run.paper
    check_writable(target, force=force or (out is None and is_own(target)), format="PDF")
    with lock_run_of(target):
        parts = _load_parts(run, data_root) if images else None
        shown = {} if parts is None else {"train": parts.train, "val": parts.val, "test": parts.test}
        return write_paper(target, read_run_record(run, "test"), shown)


def _load_parts(run: RunDir, data_root: Path | None) -> Parts | None:
    """The images that the run was trained and evaluated on; None where they are missing or have changed."""
    if not run.environment.is_file() or not run.predictions("test").is_file():
        return None
    try:
        return load_run_data(run, data_root).parts
    except (DataError, RunError, UnknownNameError):
        return None


def write_pages(run: RunDir, recipe: Recipe, parts: Parts | None) -> Path:
    """Write report and model card, with images where they are available; returns the report's path."""
    record = read_run_record(run)
    page = write_page(run, **_report_images(recipe, parts), record=record)
    write_card(run, record)
    return page


def _report_images(recipe: Recipe, parts: Parts | None) -> dict[str, Any]:
    """The images of a report, as keyword arguments of `write_page`."""
    if parts is None:
        return {"images": None}
    samples = augment_samples(recipe, parts.train, ROWS, PASSES) if len(parts.train) else None
    return {"images": parts.test, "val": parts.val, "samples": samples}
