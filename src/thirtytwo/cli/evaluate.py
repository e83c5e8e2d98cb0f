"""`thirtytwo evaluate`: evaluate a trained run again, or on other data."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from thirtytwo.cli.evaluators import show_evaluations
from thirtytwo.cli.options import DataRoot, Device, RunPath, Split


def evaluate(
    run: RunPath,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Evaluate on other data.", show_default="the run's data")
    ] = None,
    split: Annotated[Split, typer.Option(help="Split to evaluate on.")] = "test",
    tta: Annotated[bool, typer.Option("--tta", help="Also evaluate with test-time augmentation.")] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
    **options: Any,
) -> None:
    """Evaluate a finished run again, or on other data, and write its report again."""
    from thirtytwo.rundir import RunDir

    RunDir.open(run)  # before the slow imports
    import thirtytwo
    from thirtytwo.cli.models import show_metrics

    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    metrics = thirtytwo.evaluate(run, data=data, split=split, tta=tta, device=device, data_root=data_root, **options)
    show_metrics(metrics)
    show_evaluations(metrics, options)
