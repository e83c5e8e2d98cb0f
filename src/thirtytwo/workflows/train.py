"""Train a model from start to end: recipe, data, split, network, training, test evaluation, model.onnx, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.augment.augmenter import check_augment
from thirtytwo.config.recipe import Precision, Recipe
from thirtytwo.config.resolve import DEFAULT_RECIPE, read_recipe_values, resolve_recipe, seed_of
from thirtytwo.config.settings import Choice
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import split_record, unused_of
from thirtytwo.data.split import Parts, divide
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import RecipeError, ThirtytwoError
from thirtytwo.evaluation.evaluators import evaluators
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models.base import check_options, with_resolved_options
from thirtytwo.models.ensemble import NAME as ENSEMBLE
from thirtytwo.rundir import RunDir, default_path
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.fit import InitializedNetwork, fit, initialize_network
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
from thirtytwo.workflows.loading import check_accepts_images, check_calibration_run
from thirtytwo.workflows.prepare import check_optimizer, check_training
from thirtytwo.workflows.provenance import check_unseen
from thirtytwo.workflows.records import (
    check_same,
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
        data: a known data set (`cifar10`, `cifar100`, `digits`), `hf:owner/name`, or the path of a folder of
            images or of parquet files.
        recipe: name of a recipe, or path of a recipe file; `fast` by default, and the run's own with `resume`.
        overrides: values that replace those of the recipe, by dotted key, such as `{"optimizer.lr": 0.1}`.
        run: the run directory to create, or to continue with `resume`; a new one under `runs/` by default.
        seed: seed of every random choice in training, at least 0; the recipe's by default.
        epochs: number of epochs, at least 1; the recipe's by default.
        resume: continue the run in `run` from its last completed epoch.
        limit_train: use at most this many training images, with the class shares of all; all by default.
        pretrained: weights to start from: `timm`, `imagenet` or a tag of timm's weights, a .safetensors file, or a run
            directory; the recipe's by default.
        group_by: how to group images that must stay in the same split: a regular expression on file paths, or a column
            name; the recipe's by default.
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
    settings = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train, "data.group_by": group_by}
    settings["transfer.pretrained"] = None if pretrained is None else str(pretrained)
    changes = with_settings(overrides, settings)
    path = Path(run) if run is not None else _default_path(data, recipe or DEFAULT_RECIPE, changes)
    root = Path(data_root) if data_root is not None else None
    with ExitStack() as stack:
        meter = stack.enter_context(UsageMeter())
        existing = RunDir.open(path) if resume else None
        precision = None
        if existing is not None:
            stack.enter_context(existing.writing())
            if is_finished(existing) and recipe is None and not changes and matches_data(existing, data):
                return _already_finished(existing, log)
            resume_usage(existing, meter)
            precision = existing.read_recipe().train.precision
        elif run is not None:
            RunDir.refuse_used(path)
        source = recipe or (existing.recipe if existing else DEFAULT_RECIPE)
        plan = prepare(data, source, changes, device, root, precision)
        if existing is not None:
            check_same(existing, plan.recipe, plan.dataset, data, plan.split)
            if is_finished(existing):
                return _already_finished(existing, log)
            plan = replace(plan, record=plan.record | first_session_record(existing, plan.record))
        directory = existing or stack.enter_context(RunDir.create_locked(run, path))
        with _log_resume_command(log, data, directory, data_root):
            return _run_plan(plan, directory, log, meter, resume=resume, show=show)


def _default_path(data: str, recipe: str | Path, changes: Mapping[str, Any]) -> Path:
    return default_path(data, Path(recipe).stem, f"seed{seed_of(recipe, changes)}")


def with_settings(overrides: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values that replace those of the recipe: `overrides`, then those of `settings` that are not None."""
    return dict(overrides or {}) | {key: value for key, value in settings.items() if value is not None}


def _run_plan(
    plan: Plan, directory: RunDir, log: Callable[[str], None], meter: UsageMeter, *, resume: bool, show: bool
) -> Run:
    """Write the plan to the run directory, train, evaluate and export."""
    write_plan(plan, directory)
    log_start(log, plan.dataset, plan.parts, plan.recipe, plan.hardware, directory)
    options: dict[str, Any] = {"resume": resume, "show": show, "meter": meter, "initialized": plan.initialized}
    with _recording_usage(directory, meter):
        fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, **options)
        return Run(directory.path, finish(plan, fitted, directory, log, meter))


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
        trained = any(directory.checkpoints.glob("last.ckpt"))
        kept = "the last completed epoch is saved" if trained else "no epoch was completed"
        log(f"interrupted; {kept}. Resume with: {directory.resume_command(data, data_root)}")
        raise


def prepare(
    data: str,
    recipe_source: str | Path,
    changes: Mapping[str, Any],
    device: str,
    data_root: Path | None,
    precision: Precision | None = None,
) -> Plan:
    """Resolve the recipe, hardware, images and split, and build the network.

    Settings are checked before the data is read. `precision` replaces `auto` where this training continues an earlier
    one that resolved it.
    """
    started = datetime.now(UTC)
    source = _RecipeSource.read(recipe_source, changes, precision)
    early = source.resolve(TYPICAL_CLASSES, TYPICAL_ROWS)
    hardware = choose_hardware(early.train, device)
    calibrated_by = _check_before_data(early, source.where)
    dataset, parts = _load_divided(data, early, data_root)
    unused = unused_of(dataset, parts)
    recipe = source.resolve(len(dataset.classes), len(parts.train))
    if recipe.train != early.train:
        hardware = choose_hardware(recipe.train, device)
    initialized = initialize_network(recipe, dataset.classes)
    _check_with_data(recipe, dataset, parts, initialized, calibrated_by)
    origins = check_unseen(data, dataset, parts, recipe, data_root)
    hardware = _with_choices(hardware, *_groups_of(dataset, early), *origins.choices)
    dataset = replace(dataset, train=parts.train, val=parts.val, test=parts.test)  # releases the undivided arrays
    recipe, hardware = _resolve_with_network(recipe, hardware, initialized, parts.train)
    if calibrated_by is not None:
        source_run = f"from {recipe.data.calibrate_from}"
        hardware = _with_choices(hardware, Choice("calibration", source_run, "this run trains on all of train"))
    environment = record(dataset, data, parts, recipe_source, changes, hardware, started)
    split = split_record(parts, recipe, unused, origins.as_dict())
    return Plan(data, dataset, parts, recipe, hardware, calibrated_by, environment, split, data_root, initialized)


@dataclass(frozen=True)
class _RecipeSource:
    """A recipe with its changes, which is resolved when the data is known; `where` names it in error messages."""

    values: Mapping[str, Any]
    changes: Mapping[str, Any]
    where: str
    precision: Precision | None

    @classmethod
    def read(cls, source: str | Path, changes: Mapping[str, Any], precision: Precision | None) -> _RecipeSource:
        """Read the tables of a recipe, with those of the run that it starts from, if it asks for them."""
        values, where = read_recipe_values(source), f"Recipe {str(source)!r}"
        recipe = resolve_recipe(values, changes, classes=TYPICAL_CLASSES, rows=TYPICAL_ROWS, where=where)
        return cls(with_run_settings(values, recipe), changes, where, precision)

    def resolve(self, classes: int, rows: int) -> Recipe:
        """The recipe for data with this number of classes and of training images."""
        recipe = resolve_recipe(self.values, self.changes, classes=classes, rows=rows, where=self.where)
        return _with_precision(resolve_transfer(recipe), self.precision)


def _check_before_data(recipe: Recipe, where: str) -> ModelInfo | None:
    """Check the settings that do not depend on the data; returns the model of the calibration run, if there is one.

    Raises:
        RecipeError: a setting is wrong.
        ThirtytwoError: an evaluator of another package cannot be imported.
    """
    if recipe.model.name == ENSEMBLE:
        raise RecipeError(
            f"{where} describes an ensemble, which is built from trained runs and cannot be trained.",
            "Build one with: thirtytwo ensemble RUN RUN... To distill from one, set train.distill.run to it.",
        )
    check_options(recipe.model)
    check_optimizer(recipe)
    check_augment(recipe.augment)
    evaluators()  # imports those of other packages, which are used only after the training
    return calibration_run(recipe)


def _load_divided(data: str, recipe: Recipe, data_root: Path | None) -> tuple[DataSet, Parts]:
    """Load the data and divide it into train, validation and test."""
    settings = recipe.data
    dataset = load_dataset(
        data,
        data_root=data_root,
        image_size=settings.image_size,
        resize=settings.resize,
        seed=settings.split_seed,
        group_by=settings.group_by,
    )
    return dataset, divide(dataset, recipe)


def _check_with_data(
    recipe: Recipe, dataset: DataSet, parts: Parts, initialized: InitializedNetwork, calibrated_by: ModelInfo | None
) -> None:
    """Check that network, calibration run, augmentation and training settings fit the data.

    Raises:
        RecipeError: one of them does not.
    """
    check_accepts_images(initialized.net, recipe, int(parts.train.images.shape[1]))
    check_calibration_run(dataset, calibrated_by)
    check_augment(recipe.augment, dataset.classes)
    check_training(recipe, dataset.classes, parts.val is not None)


def _resolve_with_network(
    recipe: Recipe, hardware: Hardware, initialized: InitializedNetwork, train: ImageSet
) -> tuple[Recipe, Hardware]:
    """Resolve what depends on the network and the images; every choice is added to those that are logged."""
    net, size = initialized.net, int(train.images.shape[1])
    recipe = recipe.model_copy(update={"model": with_resolved_options(recipe.model, net)})
    recipe, limited = _limit_batch_size(recipe, len(train))
    hardware = _with_choices(hardware, *net.choices, *limited)
    if initialized.start is not None:
        stages = describe_stages(recipe, net, len(train), size)
        hardware = _with_choices(hardware, *initialized.start.choices, *stages)
    hardware = timed_precision(net, recipe, size, len(train.classes), hardware)
    return _resolve_auto(recipe, hardware, size), hardware


def _with_choices(hardware: Hardware, *choices: Choice) -> Hardware:
    """The hardware with further choices for the log."""
    return replace(hardware, choices=(*hardware.choices, *choices))


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


def _limit_batch_size(recipe: Recipe, rows: int) -> tuple[Recipe, tuple[Choice, ...]]:
    """Limit the batch size to the number of training images; returns the choice for the log if it was larger."""
    if recipe.schedule.batch_size <= rows:
        return recipe, ()
    schedule = recipe.schedule.model_copy(update={"batch_size": rows})
    choice = Choice("batch size", str(rows), f"there are only {rows} training images")
    return recipe.model_copy(update={"schedule": schedule}), (choice,)


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
    changes = with_settings(overrides, {"seed": seed, "data.limit_train": limit_train})
    root = Path(data_root) if data_root is not None else None
    plan = prepare(data, recipe or DEFAULT_RECIPE, changes, device, root)
    options: dict[str, Any] = {"log": progress_logger(show), "initialized": plan.initialized}
    return run_lr_finder(plan.recipe, plan.parts.train, plan.hardware, **options), plan.recipe
