"""`thirtytwo train`, with the learning-rate finder, and `thirtytwo tune`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.cli.options import Apply, Data, DataRoot, Device, Devices, LimitTrain, NewRun, Nodes, On, SkipUnreadable
from thirtytwo.errors import RecipeError, ThirtytwoError, require

if TYPE_CHECKING:
    from thirtytwo.config.recipe import Recipe
    from thirtytwo.workflows.tune import Search, Tuned

MAX_ROWS = 15
_OF_PROCESSES = ("WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_ID")
"""Environment variables of processes that torchrun, SLURM or another process started."""
BY_DATA = "by the data: fast for small images, photos for photographs"


def train(
    data: Data,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Training recipe: see thirtytwo recipes.",
            show_default=BY_DATA,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe; may be repeated."),
    ] = None,
    run: NewRun = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Train one run per seed and summarize them.")
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="Train N runs with consecutive seeds, starting at --seed.",
            show_default="1",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100,
            metavar="K",
            help="Cross-validate: train one run per fold of the training images, tested on its fold.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --run.")] = False,
    limit_train: LimitTrain = None,
    skip_unreadable: SkipUnreadable = False,
    apply: Apply = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX|COLUMN",
            help="Column, or pattern on file paths such as '/(patient\\d+)_', that groups samples; a "
            "group is never split between train, validation and test.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="imagenet|timm|TAG|FILE|RUN", help="Initial weights.", show_default="those of the recipe"),
    ] = None,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="tensorboard|mlflow|wandb",
            help="Also log history and metrics to this experiment tracker; may be repeated.",
            show_default="none",
        ),
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Run the learning-rate finder only (about 100 steps); writes nothing.")
    ] = False,
    device: Device = "auto",
    devices: Devices = None,
    nodes: Nodes = None,
    data_root: DataRoot = None,
) -> None:
    """Train a classifier, evaluate it once on test, and write a report and model.onnx.

    The last output line is the run directory.
    """
    import thirtytwo
    from thirtytwo.cli.compare import holds_folds, parse_seeds, refuse_several, train_folds, train_seeds
    from thirtytwo.cli.models import show_metrics
    from thirtytwo.config.resolve import parse_overrides
    from thirtytwo.run_paths import holds_seeds

    overrides = parse_overrides(settings or [])
    overrides |= {} if pretrained is None else {"transfer.pretrained": pretrained}
    overrides |= {} if group_by is None else {"data.group_by": group_by}
    overrides |= {"data.skip_unreadable": True} if skip_unreadable else {}
    overrides |= {"train.log": log_to} if log_to else {}
    if apply is not None and overrides.get("data.fix_plan", str(apply)) != str(apply):
        raise typer.BadParameter("--apply and --set data.fix_plan name two plans of fixes: give one.")
    overrides |= {} if apply is None else {"data.fix_plan": str(apply)}
    shared: dict[str, Any] = {
        "recipe": recipe,
        "overrides": overrides,
        "limit_train": limit_train,
        "device": device,
        "data_root": data_root,
    }
    if find_lr:
        if resume or run or seeds or repeat or folds or epochs:
            raise typer.BadParameter(
                "--find-lr writes no run: remove --run, --resume, --seeds, --repeat, --folds and --epochs."
            )
        check_names(data, recipe, run, resume=resume, data_root=data_root)
        refuse_processes("--find-lr", devices, nodes)
        find_learning_rate(data, seed=seed, **shared)
        return
    if not _is_one_of_several(devices, nodes):
        check_names(data, recipe, run, resume=resume, data_root=data_root)
    if folds is not None:
        refuse_several(seeds, repeat)
    seed_list = parse_seeds(seeds, repeat, seed, recipe)
    options = shared | {"run": run, "epochs": epochs, "resume": resume}
    if folds is not None or (seed_list is None and resume and run is not None and holds_folds(run)):
        refuse_processes("--folds", devices, nodes)
        train_folds(data, folds, seed=seed, **options)
        return
    if seed_list is not None or (resume and run is not None and holds_seeds(run)):
        refuse_processes("--seeds and --repeat", devices, nodes)
        train_seeds(data, seed_list, seed, **options)
        return
    trained = thirtytwo.train(data, seed=seed, devices=devices, nodes=nodes, **options)
    if trained.metrics:
        show_metrics(trained.metrics)
    show(str(trained.path))


def _is_one_of_several(devices: int | None, nodes: int | None) -> bool:
    """Whether the training may have several processes, which meet first and end together where something is missing."""
    return max(devices or 1, nodes or 1) > 1 or any(name in os.environ for name in _OF_PROCESSES)


def check_names(data: str, recipe: str | None, run: Path | None, *, resume: bool, data_root: Path | None) -> None:
    """Check that the data, recipe and run of a command line are there, before PyTorch is imported, which takes seconds.

    Whatever else is wrong is found by the training.

    Raises:
        ThirtytwoError: there is no such data, recipe or run to resume, or the directory of a new run is in use.
    """
    from thirtytwo.config.resolve import read_recipe_values
    from thirtytwo.data.load import parse
    from thirtytwo.rundir import RunDir

    if run is not None and not resume:
        RunDir.refuse_used(run)
    parse(data, data_root=data_root)
    if recipe is not None:
        read_recipe_values(recipe)
    if run is not None and resume and not run.is_dir():
        RunDir.open(run)


def refuse_processes(option: str, devices: int | None, nodes: int | None) -> None:
    """Check that a command that does not train a single run is one process.

    Raises:
        RecipeError: several are asked for, or were started by torchrun or SLURM.
    """
    require("lightning", "train")
    from thirtytwo.training.layout import started_elsewhere

    if max(devices or 1, nodes or 1) > 1 or started_elsewhere():
        raise RecipeError(
            f"{option} cannot be used with several processes, which train one run.",
            "Remove --devices, --nodes, torchrun and srun, or train each run by itself.",
        )


def find_learning_rate(data: str, **settings: Any) -> None:
    """Print the loss at increasing learning rates and finally the settings for the suggested learning rate.

    Raises:
        ThirtytwoError: the loss did not decrease at any learning rate.
    """
    from thirtytwo.workflows.train import find_lr

    found, recipe = find_lr(data, **settings)
    every = max(1, len(found.rates) // MAX_ROWS)
    pairs = list(zip(found.rates, found.losses, strict=True))
    show_table(["optimizer.lr", "loss"], [(f"{rate:.2g}", f"{loss:.4f}") for rate, loss in pairs[::every]])
    if found.suggestion is None:
        check = shlex.join(["thirtytwo", "data", "doctor", data])
        raise ThirtytwoError(
            "The loss did not decrease at any learning rate, so there is no suggestion.",
            f"Increase schedule.batch_size, or check the data with: {check}",
        )
    log(f"Suggested learning rate: {found.suggestion:.2g} (steepest decrease of the loss). Settings:")
    show(" ".join(f"--set {key}={value:.2g}" for key, value in scaled_learning_rates(recipe, found.suggestion).items()))


def scaled_learning_rates(recipe: Recipe, learning_rate: float) -> dict[str, float]:
    """The recipe's learning rates, scaled so that `optimizer.lr` equals `learning_rate`."""
    keys = ("lr", "lr_rest", "lr_head") if recipe.optimizer.per_image else ("lr",)
    return {f"optimizer.{key}": getattr(recipe.optimizer, key) * learning_rate / recipe.optimizer.lr for key in keys}


MAX_TRIALS_SHOWN = 5
Metric = Literal[
    "val_accuracy", "val_loss", "val_macro_f1", "val_macro_precision", "val_macro_recall", "val_top5_accuracy"
]
"""A copy of `config.recipe.Monitor`, which is slow to import."""


def tune(
    data: Data,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Base recipe: see thirtytwo recipes.", show_default=BY_DATA),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Number of trials to run, or to add with --resume.")
    ] = 20,
    metric: Annotated[
        Metric | None,
        typer.Option(help="Validation metric to optimize.", show_default="val_accuracy"),
    ] = None,
    space: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file: settings to search and their bounds.",
            show_default="learning rates, weight decay, label smoothing and augmentation around the recipe",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting for all trials; may be repeated."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Directory to create.", show_default="a new one under ./runs"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the sampler and of every trial.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images in each trial.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Add trials to the study in --run.")] = False,
    limit_train: LimitTrain = None,
    skip_unreadable: SkipUnreadable = False,
    pruner: Annotated[
        Literal["median", "asha", "hyperband", "none"] | None,
        typer.Option(help="Method to stop unpromising trials early.", show_default="median; with --on, asha"),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
    on: On = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --on: number of trials at a time.",
            show_default="one for each GPU, or for 4 CPU cores",
        ),
    ] = None,
) -> None:
    """Search for better settings of a recipe on validation, never on test.

    The last output line is the file of the best recipe.
    """
    check_names(data, recipe, None if resume else run, resume=resume, data_root=data_root)
    for module in ("torch", "lightning", "optuna"):
        require(module, "train")
    from thirtytwo.config.resolve import parse_overrides
    from thirtytwo.workflows.tune import tune

    with _searching(on, workers) as search:
        tuned = tune(
            data,
            recipe=recipe,
            trials=trials,
            metric=metric,
            space=space,
            overrides=parse_overrides(settings or []) | ({"data.skip_unreadable": True} if skip_unreadable else {}),
            run=run,
            seed=seed,
            epochs=epochs,
            resume=resume,
            limit_train=limit_train,
            pruner=pruner or ("asha" if search is not None and not resume else None),
            device=device,
            data_root=data_root,
            search=search,
        )
    _show_best(tuned)
    log(f"All trials: {tuned.path / 'trials.csv'}; figures: {tuned.path / 'figures'}")
    show(str(tuned.recipe))


@contextmanager
def _searching(on: str | None, workers: int | None) -> Iterator[Search | None]:
    """How trials are trained: on the cluster `on`, or None for this process."""
    if on is None:
        if workers is not None:
            raise ThirtytwoError("--workers is for a cluster.", "Name it with --on.")
        yield None
        return
    from thirtytwo.scale.cluster import open_cluster
    from thirtytwo.scale.tuning import MODULES, RaySearch

    with open_cluster(on, modules=MODULES) as cluster:
        yield RaySearch(cluster, workers)


def _show_best(tuned: Tuned) -> None:
    """Show the best trials with their settings."""
    from thirtytwo.report.tuning import Tuning

    keys = list(tuned.best.drawn)
    rows = Tuning(tuned.metric, tuned.trials, keys).ranked[:MAX_TRIALS_SHOWN]
    show_table(
        ["trial", "outcome", tuned.metric, *keys],
        [
            (str(row.number), row.outcome, _format_cell(row.value), *(_format_cell(row.drawn.get(key)) for key in keys))
            for row in rows
        ],
    )


def _format_cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
