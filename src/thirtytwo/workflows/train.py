"""Train a model from start to end: recipe, data, split, network, training, test evaluation, model.onnx, report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.augment.augmenter import check_augment
from thirtytwo.config.recipe import Precision, Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe, seed_of
from thirtytwo.config.settings import Choice
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import split_record, unused_of
from thirtytwo.data.split import divide
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import RecipeError, ThirtytwoError
from thirtytwo.models import Network
from thirtytwo.models.ensemble import NAME as ENSEMBLE
from thirtytwo.models.pretrained import start_from
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.fit import build_network, fit
from thirtytwo.training.hardware import Hardware, UsageMeter, choose_hardware
from thirtytwo.training.lr_finder import LRFinderResult, run_lr_finder
from thirtytwo.training.precision import timed_precision
from thirtytwo.training.transfer import describe_stages, resolve_transfer, with_run_settings
from thirtytwo.workflows.finish import (
    Plan,
    Run,
    calibration_run,
    finish,
    write_plan,
)
from thirtytwo.workflows.loading import check_fits
from thirtytwo.workflows.prepare import check_optimizer, check_training
from thirtytwo.workflows.provenance import check_unseen
from thirtytwo.workflows.records import (
    check_same,
    default_path,
    first_session_record,
    is_finished,
    log_start,
    matches_data,
    progress_logger,
    record,
    resume_usage,
    write_session,
)

TYPICAL_CLASSES, TYPICAL_ROWS = 10, 45_000  # a recipe is checked against these before the data is read


@preserve_torch_state()
def train(
    data: str,
    *,
    recipe: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    resume: bool = False,
    limit_train: int | None = None,
    pretrained: str | Path | None = None,
    group_by: str | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> Run:
    """Train a classifier on `data`, evaluate it once on test, and write the report and model.onnx.

    Args:
        data: a known data set (`cifar10`, `cifar100`, `digits`), `hf:owner/name`, or the path of a folder, CSV file or
            folder of parquet files.
        recipe: name of a recipe, or path of a recipe file; `fast` by default, and the run's own with `resume`.
        overrides: values that replace those of the recipe, by dotted key, such as `{"optimizer.lr": 0.1}`.
        run: the run directory to create, or to continue with `resume`; a new one under `runs/` by default.
        seed: seed of every random choice in training, at least 0; the recipe's by default.
        epochs: number of epochs, at least 1; the recipe's by default.
        resume: continue the run in `run` from its last completed epoch.
        limit_train: use at most this many training images, with the class shares of all; all by default.
        pretrained: weights to start from: `timm`, `imagenet` or a tag of timm's weights, a .safetensors file, or a run
            directory; none by default.
        group_by: how to group images that must stay in the same split: a regular expression on file paths, or a column
            name; no groups by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Returns:
        The run directory and the content of its `metrics.json`.

    Raises:
        ThirtytwoError: invalid input, data that cannot be read, or training that diverged. The message says how to fix
            it. What was trained so far stays in the run directory.
        KeyboardInterrupt: interrupted; continue with `resume`.
    """
    log = progress_logger(show)
    changes = dict(overrides or {})
    named: dict[str, Any] = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train}
    named |= {"transfer.pretrained": None if pretrained is None else str(pretrained), "data.group_by": group_by}
    changes |= {key: value for key, value in named.items() if value is not None}
    run_path = Path(run) if run is not None else _default_path(data, recipe or "fast", changes)
    with ExitStack() as stack:
        meter = stack.enter_context(UsageMeter())
        existing = RunDir.open(run_path) if resume else None
        if existing is not None:
            stack.enter_context(existing.writing())
            if is_finished(existing) and recipe is None and not changes and matches_data(existing, data):
                return _already_finished(existing, log)
            resume_usage(existing, meter)
        elif run is not None:
            RunDir.refuse_used(run_path)
        source = recipe or (existing.recipe if existing else "fast")
        precision = existing.read_recipe().train.precision if existing else None
        plan = prepare(data, source, changes, device, Path(data_root) if data_root is not None else None, precision)
        if existing is not None:
            check_same(existing, plan.recipe, plan.dataset, data, plan.split)
            if is_finished(existing):
                return _already_finished(existing, log)
            plan = replace(plan, record=plan.record | first_session_record(existing, plan.record))
        directory = existing or stack.enter_context(RunDir.create_locked(run, run_path))
        write_plan(plan, directory)
        log_start(log, plan.dataset, plan.parts, plan.recipe, plan.hardware, directory)
        with _log_resume_command(log, data, directory, data_root), _recording_usage(directory, meter):
            options: dict[str, Any] = {"resume": resume, "show": show, "meter": meter}
            fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, **options)
            metrics = finish(plan, fitted, directory, log, meter)
        return Run(directory.path, metrics)


def _default_path(data: str, recipe: str | Path, changes: Mapping[str, Any]) -> Path:
    return default_path(data, recipe, seed_of(recipe, changes))


def _already_finished(run: RunDir, log: Callable[[str], None]) -> Run:
    log(f"{run.path} is already finished; nothing to resume")
    return Run(run.path, run.read_json(run.metrics))


@contextmanager
def _recording_usage(directory: RunDir, meter: UsageMeter) -> Iterator[None]:
    """Record the time and memory of this session, at its start and when it ends without finishing the run."""
    write_session(directory, meter)
    try:
        yield
    except BaseException:
        with suppress(ThirtytwoError):  # the original error is reported
            write_session(directory, meter)
        raise


@contextmanager
def _log_resume_command(
    log: Callable[[str], None], data: str, directory: RunDir, data_root: Path | str | None
) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        words = ["thirtytwo", "train", data, "--resume", "--run", str(directory.path)]
        words += ["--data-root", str(data_root)] if data_root is not None else []
        trained = any(directory.checkpoints.glob("last.ckpt"))
        kept = "the last completed epoch is saved" if trained else "no epoch was completed"
        log(f"interrupted; {kept}. Resume with: {shlex.join(words)}")
        raise


def prepare(
    data: str,
    recipe_source: str | Path,
    changes: Mapping[str, Any],
    device: str,
    data_root: Path | None,
    precision: Precision | None = None,
) -> Plan:
    """Resolve the recipe, hardware, images and split; settings are checked before the data is read.

    `precision` replaces `auto` where this training continues an earlier one that resolved it.
    """
    started = datetime.now(UTC)
    values = read_recipe_values(recipe_source)
    where = f"Recipe {str(recipe_source)!r}"
    typical: dict[str, Any] = {"classes": TYPICAL_CLASSES, "rows": TYPICAL_ROWS, "where": where}
    values = with_run_settings(values, resolve_recipe(values, changes, **typical))
    early = _with_precision(resolve_transfer(resolve_recipe(values, changes, **typical)), precision)
    if early.model.name == ENSEMBLE:
        raise RecipeError(
            f"{where} describes an ensemble, which is built from trained runs and cannot be trained.",
            "Build one with: thirtytwo ensemble RUN RUN... To distill from one, set train.distill.run to it.",
        )
    hardware = choose_hardware(early.train, device)
    net = build_network(early, TYPICAL_CLASSES)
    check_optimizer(early)
    check_augment(early.augment)
    calibrated_by = calibration_run(early)
    dataset = load_dataset(
        data,
        data_root=data_root,
        image_size=early.data.image_size,
        resize=early.data.resize,
        seed=early.data.split_seed,
        group_by=early.data.group_by,
    )
    parts = divide(dataset, early)
    unused = unused_of(dataset, parts)
    known: dict[str, Any] = {"classes": len(dataset.classes), "rows": len(parts.train), "where": where}
    recipe = _with_precision(resolve_transfer(resolve_recipe(values, changes, **known)), precision)
    if recipe.train != early.train:
        hardware = choose_hardware(recipe.train, device)
    check_fits(dataset, parts, recipe, calibrated_by)
    origins = check_unseen(data, dataset, parts, recipe, data_root)
    hardware = replace(hardware, choices=(*hardware.choices, *_groups_of(dataset, early), *origins.choices))
    dataset = replace(dataset, train=parts.train, val=parts.val, test=parts.test)  # releases the undivided arrays
    check_augment(recipe.augment, dataset.classes)
    if recipe.model != early.model or recipe.transfer.pretrained or len(dataset.classes) != TYPICAL_CLASSES:
        net = build_network(recipe, len(dataset.classes))
    check_training(recipe, dataset.classes, parts.val is not None)
    recipe, hardware = _with_network_choices(net, recipe, hardware)
    recipe, hardware = _limit_batch_size(recipe, len(parts.train), hardware)
    if recipe.transfer.pretrained:
        hardware = _with_initialization(net, recipe, parts.train, hardware)
    size = int(parts.train.images.shape[1])
    hardware = timed_precision(net, recipe, size, len(dataset.classes), hardware)
    recipe = _resolve_auto(recipe, hardware, size)
    if calibrated_by is not None:
        borrowed = Choice("calibration", f"from {recipe.data.calibrate_from}", "this run trains on all of train")
        hardware = replace(hardware, choices=(*hardware.choices, borrowed))
    environment = record(dataset, data, parts, recipe_source, changes, hardware, started)
    split = split_record(parts, recipe, unused, origins.as_dict())
    return Plan(data, dataset, parts, recipe, hardware, calibrated_by, environment, split, data_root)


def _groups_of(dataset: DataSet, recipe: Recipe) -> tuple[Choice, ...]:
    """How many groups `data.group_by` makes, for the log: a pattern that misses files leaves each of them alone."""
    found = [images.groups for images in dataset.stored.values() if images.groups is not None]
    if not found:
        return ()
    sizes = np.unique(np.concatenate(found), return_counts=True)[1]
    alone = int((sizes == 1).sum())
    reason = f"data.group_by = {recipe.data.group_by!r}; {alone:,} of {int(sizes.sum()):,} images are alone in theirs"
    return (Choice("groups", f"{len(sizes):,}", reason),)


def _with_precision(recipe: Recipe, precision: Precision | None) -> Recipe:
    """The recipe with `auto` precision replaced by an earlier resolution, if there is one."""
    if precision is None or recipe.train.precision != "auto":
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})


def _resolve_auto(recipe: Recipe, hardware: Hardware, image_size: int) -> Recipe:
    """The recipe with every `auto` that can change the result replaced by the resolved value; threads stay `auto`."""
    chosen = {
        "precision": str(hardware.precision).removeprefix("torch."),
        "memory_format": "channels_last" if hardware.channels_last else "contiguous",
        "compile": "on" if hardware.compile else "off",
    }
    data = recipe.data.model_copy(update={"image_size": image_size})
    return recipe.model_copy(update={"data": data, "train": recipe.train.model_copy(update=chosen)})


def _with_network_choices(net: Network, recipe: Recipe, hardware: Hardware) -> tuple[Recipe, Hardware]:
    """Add the options that the network resolved itself to the recipe and to the logged choices."""
    choices = [Choice(choice.what, choice.value, choice.reason) for choice in net.choices]
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **net.settled}})
    return recipe.model_copy(update={"model": model}), replace(hardware, choices=(*hardware.choices, *choices))


def _with_initialization(net: Network, recipe: Recipe, train: ImageSet, hardware: Hardware) -> Hardware:
    """Load initial weights; add them and the training stages to the logged choices."""
    start = start_from(net, recipe.transfer.pretrained, recipe.model, train.classes)
    choices = [Choice(choice.what, choice.value, choice.reason) for choice in start.choices]
    choices += describe_stages(recipe, net, len(train), int(train.images.shape[1]))
    return replace(hardware, choices=(*hardware.choices, *choices))


def _limit_batch_size(recipe: Recipe, rows: int, hardware: Hardware) -> tuple[Recipe, Hardware]:
    """Limit the batch size to the number of training images."""
    if recipe.schedule.batch_size <= rows:
        return recipe, hardware
    choice = Choice("batch size", str(rows), f"there are only {rows} training images")
    schedule = recipe.schedule.model_copy(update={"batch_size": rows})
    return recipe.model_copy(update={"schedule": schedule}), replace(hardware, choices=(*hardware.choices, choice))


@preserve_torch_state()
def find_lr(
    data: str,
    *,
    recipe: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    limit_train: int | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> tuple[LRFinderResult, Recipe]:
    """Train about a hundred steps with a rising learning rate and suggest one; writes nothing.

    Arguments and errors are as in `train`.

    Returns:
        The loss at each learning rate with the suggestion, and the resolved recipe.
    """
    changes = dict(overrides or {})
    named = {"seed": seed, "data.limit_train": limit_train}
    changes |= {key: value for key, value in named.items() if value is not None}
    root = Path(data_root) if data_root is not None else None
    plan = prepare(data, recipe or "fast", changes, device, root)
    return run_lr_finder(plan.recipe, plan.parts.train, plan.hardware, tell=progress_logger(show)), plan.recipe
