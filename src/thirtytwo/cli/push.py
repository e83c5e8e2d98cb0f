"""`thirtytwo push`: upload a run to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.cli.options import RunPath
from thirtytwo.text import size


def push(
    run: RunPath,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; created if missing.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; it is private otherwise.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be uploaded.")] = False,
) -> None:
    """Upload a run to the Hugging Face hub: model card, model.onnx, weights, recipe, metrics, report without images.

    The last output line is the address. Predict with it: thirtytwo predict IMAGES --model hf:OWNER/NAME
    """
    from thirtytwo.rundir import RunDir

    RunDir.open(run)  # before the slow imports
    from thirtytwo.workflows.push import push

    found = push(run, repository, public=public, dry_run=dry_run)
    show_table(["file", "size"], [(name, size(count)) for name, count in found.files.items()])
    if found.dry_run:
        log("Nothing was uploaded (--dry-run).")
    show(found.url)
