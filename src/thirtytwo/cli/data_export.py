"""`thirtytwo data export DATA --format F --out DIR`: write a data set in another layout."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from thirtytwo.cli.console import log, log_new_folder, show
from thirtytwo.cli.options import Data, DataRoot, SkipUnreadable

_SECONDS = 5.0
"""Between messages on the progress."""


def export(
    data: Data,
    format: Annotated[str, typer.Option(metavar="NAME", help="folder, parquet, csv, npz, webdataset or cifar-binary.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to create.")],
    png: Annotated[bool, typer.Option("--png", help="Store every image as PNG instead of as it is encoded.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted export.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    skip_unreadable: SkipUnreadable = False,
    data_root: DataRoot = None,
) -> None:
    """Convert a data set to another layout, verify it by reading it again, and print its folder.

    Images keep their encoding. An interrupted export is continued by the same command with --resume.
    """
    from thirtytwo.data.export import export_dataset

    last = time.monotonic()
    log_new_folder(out)

    def shown(what: str) -> Callable[[int, int], None]:
        def progress(done: int, every: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _SECONDS:
                last = time.monotonic()
                log(f"{done:,} of {every:,} images {what}")

        return progress

    try:
        exported = export_dataset(
            data,
            format,
            out,
            data_root=data_root,
            png=png,
            skip_unreadable=skip_unreadable,
            resume=resume,
            force=force,
            progress=shown("written"),
            checking=shown("decoded, to check that they can be read"),
        )
    except KeyboardInterrupt:
        log("Continue this export with the same command and --resume.")
        raise
    for note in exported.skipped:
        log(note)
    if exported.resumed:
        log(f"continued after {exported.resumed:,} images")
    counts = ", ".join(f"{split} {count:,}" for split, count in exported.images.items())
    checked = "read again and equal" if exported.verified else "not read again: thirtytwo does not read this format"
    log(f"{sum(exported.images.values()):,} images ({counts}) in {exported.files:,} files; {checked}")
    show(str(exported.path))
