"""`thirtytwo tune`: the best trials as a table, and the recipe file last."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from thirtytwo.cli.console import say, show, show_table
from thirtytwo.errors import require

SHOWN = 5
Metric = Literal[
    "val_accuracy", "val_loss", "val_macro_f1", "val_macro_precision", "val_macro_recall", "val_top5_accuracy"
]
"""`recipe.Monitor` once more, which takes long to import."""


def tune(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="cifar10, cifar100, digits, hf:owner/name, or a folder of pictures or of parquet files.",
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What to start from: see thirtytwo recipes.", show_default="fast"),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, metavar="N", help="Trainings to do, or to add with --resume.")] = 20,
    metric: Annotated[
        Metric | None,
        typer.Option(help="What is to be best, on validation.", show_default="val_accuracy"),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML: which settings, within what bounds.",
            show_default="rates, decay, smoothing and augmentation around the recipe",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting for all trials; may be repeated."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory to write.", show_default="a new one under ./runs"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes what is drawn and every training.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training pictures, each trial.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Add trials to those in --run.")] = False,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on this many pictures only.")] = None,
    pruner: Annotated[
        Literal["median", "hyperband", "none"] | None,
        typer.Option(help="How trials that fall behind are ended early.", show_default="median"),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="What computes.")] = "auto",
    data_root: Annotated[
        Path | None,
        typer.Option(help="Where known data sets are looked for first.", show_default="THIRTYTWO_DATA"),
    ] = None,
) -> None:
    """Search for better settings of a recipe on validation, never on test; prints the best recipe's file last."""
    for module in ("torch", "lightning", "optuna"):
        require(module, "train")
    from thirtytwo.config.recipe import parse_overrides
    from thirtytwo.report.tuning import Tuning
    from thirtytwo.workflows import tune

    tuned = tune(
        data,
        recipe=recipe,
        trials=trials,
        metric=metric,
        space=space,
        overrides=parse_overrides(settings or []),
        run=run,
        seed=seed,
        epochs=epochs,
        resume=resume,
        limit_train=limit_train,
        pruner=pruner,
        device=device,
        data_root=data_root,
    )
    keys = list(tuned.best.drawn)
    rows = Tuning(tuned.metric, tuned.trials, keys).ranked[:SHOWN]
    show_table(
        ["trial", "outcome", tuned.metric, *keys],
        [
            (str(row.number), row.outcome, _cell(row.value), *(_cell(row.drawn.get(key)) for key in keys))
            for row in rows
        ],
    )
    say(f"the other trials: {tuned.path / 'trials.csv'}; figures: {tuned.path / 'figures'}")
    show(str(tuned.recipe))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
