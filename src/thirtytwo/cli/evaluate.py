"""`thirtytwo evaluate`: evaluate a trained run again, or on other data."""

from __future__ import annotations

from typing import Annotated

import typer

from thirtytwo.cli.options import DataRoot, Device, RunPath, Split


def evaluate(
    run: RunPath,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Evaluate on other data.", show_default="the run's data")
    ] = None,
    split: Annotated[Split, typer.Option(help="Split to evaluate on.")] = "test",
    tta: Annotated[bool, typer.Option("--tta", help="Also evaluate with test-time augmentation.")] = False,
    corruptions: Annotated[
        bool,
        typer.Option(
            "--corruptions", help="Also evaluate under noise, blur, weather and other corruptions, at five strengths."
        ),
    ] = False,
    corruption_images: Annotated[
        int, typer.Option(min=1, metavar="N", help="Corrupt at most this many images.")
    ] = 2000,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Also compute prediction sets that contain the true class with this probability, such as 0.95.",
        ),
    ] = None,
    ood: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA", help="Also measure detection of this out-of-distribution data; may be repeated."),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Evaluate a trained run again, or on other data."""
    import thirtytwo
    from thirtytwo.cli.models import show_corruptions, show_metrics, show_sets, show_unknown

    metrics = thirtytwo.evaluate(
        run,
        data=data,
        split=split,
        tta=tta,
        corruptions=corruptions,
        corruption_images=corruption_images,
        coverage=coverage,
        ood=ood or (),
        device=device,
        data_root=data_root,
    )
    show_metrics(metrics)
    if coverage is not None:
        show_sets(metrics["conformal"])
    if ood:
        show_unknown(metrics["unknown"])
    if corruptions:
        show_corruptions(metrics["corruptions"])
