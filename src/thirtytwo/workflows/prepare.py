"""Resolve everything that a training run needs before its first step: recipe, data, split, network and hardware."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from thirtytwo.augment.augmenter import check_augment
from thirtytwo.config.recipe import KeepTogether, Precision, Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.config.settings import Choice
from thirtytwo.data.fixes import FixPlan, recipe_fixes
from thirtytwo.data.folds import divide_or_fold
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import split_record, unused_of
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor.together import Kept, kept_together
from thirtytwo.errors import RecipeError
from thirtytwo.evaluation.evaluators import evaluators
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import write_bytes
from thirtytwo.models import Network
from thirtytwo.models.base import check_options, preserve_modes, with_resolved_options
from thirtytwo.models.ensemble import NAME as ENSEMBLE
from thirtytwo.models.timm import fit_to_images
from thirtytwo.rundir import RunDir
from thirtytwo.training.cuda_graphs import can_record
from thirtytwo.training.distillation import check_teacher, open_teacher
from thirtytwo.training.fit import InitializedNetwork, initialize_network
from thirtytwo.training.freezing import trained_until
from thirtytwo.training.hardware import Hardware, choose_hardware
from thirtytwo.training.losses import class_weights, resolve_class_weights
from thirtytwo.training.optimizers import build_optimizer
from thirtytwo.training.precision import timed_precision
from thirtytwo.training.processes import current, share_batches
from thirtytwo.training.tracking import require_trackers
from thirtytwo.training.transfer import describe_stages, resolve_transfer, with_run_settings
from thirtytwo.workflows.provenance import check_unseen
from thirtytwo.workflows.records import (
    record,
)


def check_optimizer(recipe: Recipe) -> None:
    """Check that the optimizer exists and accepts `optimizer.options`.

    Raises:
        UnknownNameError: the optimizer is not known.
        RecipeError: it does not accept the options.
    """
    shapes = {"filters": (4, 3, 3, 3), "rest": (4,), "head": (2, 4)}
    roles = {role: [nn.Parameter(torch.zeros(shape))] for role, shape in shapes.items()}
    build_optimizer(roles, recipe.optimizer, recipe.schedule.batch_size)


def check_training(recipe: Recipe, classes: tuple[str, ...], held_out: bool) -> None:
    """Check that schedule, class weights and teacher fit data with these classes.

    Args:
        recipe: the recipe.
        classes: class names, in order.
        held_out: whether there are validation images.

    Raises:
        RecipeError: one of them does not fit.
        RunError: the teacher's run cannot be used.
    """
    if recipe.schedule.name == "plateau" and not held_out:
        raise RecipeError(
            "schedule.name is 'plateau', which needs validation images, and none are held out.",
            "Choose another schedule, or set data.val_fraction above 0 and data.train_on to 'train'.",
        )
    class_weights(recipe.train.class_weights, np.ones(len(classes), dtype=np.int64), classes)
    if recipe.train.distill.run:
        check_teacher(recipe.train.distill.run, classes)


TYPICAL_CLASSES, TYPICAL_ROWS = 10, 45_000  # a recipe is checked against these before the data is read


def prepare(
    data: str,
    recipe_source: str | Path,
    changes: Mapping[str, Any],
    device: str,
    data_root: Path | None,
    precision: Precision | None = None,
    chosen: Choice | None = None,
    resumed: RunDir | None = None,
) -> Plan:
    """Resolve the recipe, hardware, images and split, and build the network.

    Settings are checked before the data is read. `precision` replaces `auto` where this training continues an earlier
    one that resolved it. `chosen` is the choice of the recipe, where it was made by the data. `resumed` is the run that
    is continued, if one is.
    """
    started = datetime.now(UTC)
    keep = None if resumed is None else resumed.read_recipe().data.keep_together
    source = _RecipeSource.read(recipe_source, changes, precision, keep)
    early = source.resolve(TYPICAL_CLASSES, TYPICAL_ROWS)
    hardware = choose_hardware(early.train, device)
    calibrated_by = _check_before_data(early, source.where)
    fixes = recipe_fixes(early.data.fix_plan, recipe_source, changes, resumed)
    kept = kept_together(data, early.data, data_root, fixes)
    source = replace(source, keep=kept.value)
    dataset, parts = _load_divided(data, early, data_root, fixes, kept)
    unused = unused_of(dataset, parts)
    recipe = source.resolve(len(dataset.classes), len(parts.train))
    if recipe.train != early.train:
        hardware = choose_hardware(recipe.train, device)
    initialized = initialize_network(recipe, dataset.classes)
    _check_with_data(recipe, dataset, parts, initialized, calibrated_by)
    origins = check_unseen(data, dataset, parts, recipe, data_root)
    made = [*([chosen] if chosen else []), *_data_choices(dataset, early), *kept.choices, *origins.choices]
    hardware = _with_choices(hardware, *made)
    own_val = dataset.val is not None and parts.val is not None
    dataset = replace(dataset, train=parts.train, val=parts.val, test=parts.test)  # releases the undivided arrays
    recipe, hardware = _resolve_with_network(recipe, hardware, initialized, parts.train)
    shared = share_batches(recipe.schedule.batch_size, None if parts.val is None else len(parts.val))
    hardware = _with_choices(hardware, *shared)
    if calibrated_by is not None:
        source_run = f"from {recipe.data.calibrate_from}"
        hardware = _with_choices(hardware, Choice("calibration", source_run, "this run trains on all of train"))
    environment = record(dataset, data, parts, None if chosen else recipe_source, changes, hardware, started)
    split = split_record(parts, recipe, unused, origins.as_dict(), kept.together, own_val=own_val)
    applied = None if fixes is None else fixes.content
    return Plan(
        data, dataset, parts, recipe, hardware, calibrated_by, environment, split, data_root, initialized, applied
    )


def check_settings(recipe_source: str | Path, changes: Mapping[str, Any]) -> None:
    """Check a recipe with these changes as far as that is possible without data.

    Raises:
        ThirtytwoError: a setting is wrong.
    """
    source = _RecipeSource.read(recipe_source, changes)
    _check_before_data(source.resolve(TYPICAL_CLASSES, TYPICAL_ROWS), source.where)


@dataclass(frozen=True)
class _RecipeSource:
    """A recipe with its changes, which is resolved when the data is known; `where` names it in error messages."""

    values: Mapping[str, Any]
    changes: Mapping[str, Any]
    where: str
    precision: Precision | None
    keep: KeepTogether | None

    @classmethod
    def read(
        cls,
        source: str | Path,
        changes: Mapping[str, Any],
        precision: Precision | None = None,
        keep: KeepTogether | None = None,
    ) -> _RecipeSource:
        """Read the tables of a recipe, with those of the run that it starts from, if it asks for them."""
        values, where = read_recipe_values(source), f"Recipe {str(source)!r}"
        recipe = resolve_recipe(values, changes, classes=TYPICAL_CLASSES, rows=TYPICAL_ROWS, where=where)
        return cls(with_run_settings(values, recipe), changes, where, precision, keep)

    def resolve(self, classes: int, rows: int) -> Recipe:
        """The recipe for data with this number of classes and of training images."""
        recipe = resolve_recipe(self.values, self.changes, classes=classes, rows=rows, where=self.where)
        recipe = resolve_transfer(recipe)
        if recipe.data.image_size != "auto":
            recipe = recipe.model_copy(update={"model": fit_to_images(recipe.model, recipe.data.image_size)})
        return _with_resolved(recipe, self.precision, self.keep)


def _check_before_data(recipe: Recipe, where: str) -> ModelInfo | None:
    """Check the settings that do not depend on the data; returns the model of the calibration run, if there is one.

    Raises:
        RecipeError: a setting is wrong.
        RunError: the teacher's run does not exist, or did not finish.
        MissingExtraError: the library of a tracker is not installed.
        ThirtytwoError: an evaluator of another package cannot be imported.
    """
    if recipe.model.name == ENSEMBLE:
        raise RecipeError(
            f"{where}: model.name is {ENSEMBLE!r}, which is built from trained runs and cannot be trained.",
            "Build one with: thirtytwo ensemble RUN RUN... To distill from one, set train.distill.run to it.",
        )
    check_options(recipe.model)
    check_optimizer(recipe)
    check_augment(recipe.augment)
    if recipe.train.distill.run:
        open_teacher(recipe.train.distill.run)
    require_trackers(recipe)
    evaluators()  # imports those of other packages, which are used only after the training
    return calibration_run(recipe)


def _load_divided(
    data: str, recipe: Recipe, data_root: Path | None, fixes: FixPlan | None, kept: Kept
) -> tuple[DataSet, Parts]:
    """Load the data with the fixes of a plan, and divide it into train, validation and test."""
    settings = recipe.data
    dataset = load_dataset(
        data,
        data_root=data_root,
        image_size=settings.image_size,
        resize=settings.resize,
        seed=settings.split_seed,
        group_by=settings.group_by,
        large=_decode_size(recipe),
        skip_unreadable=settings.skip_unreadable,
        fix_plan=fixes,
        together=kept.together,
        split_test=not settings.folds,
    )
    return dataset, divide_or_fold(dataset, recipe)


CROP_MARGIN = 1.2
"""Side of the larger copies of training images, as a multiple of the image size."""


def _decode_size(recipe: Recipe) -> int:
    """Side of the larger copies of training images for random crops; 0: none, where nothing is cropped."""
    settings = recipe.data
    if not recipe.augment.crops:
        return 0
    if settings.decode_size != "auto":
        return settings.decode_size
    return round(CROP_MARGIN * settings.image_size) if settings.image_size != "auto" else 0


def _check_with_data(
    recipe: Recipe, dataset: DataSet, parts: Parts, initialized: InitializedNetwork, calibrated_by: ModelInfo | None
) -> None:
    """Check that network, calibration run, augmentation and training settings fit the data.

    Raises:
        RecipeError: one of them does not.
    """
    size = int(parts.train.images.shape[1])
    check_accepts_images(initialized.net, recipe, size)
    if initialized.start is None or recipe.transfer.batchnorm == "trained":
        images = min(recipe.schedule.batch_size, len(parts.train)) // current().world_size
        check_batch_size(initialized.net, recipe, images, size)
    check_calibration_run(dataset, calibrated_by)
    check_augment(recipe.augment, dataset.classes)
    check_training(recipe, dataset.classes, parts.val is not None)
    trained_until(initialized.net, recipe.schedule)


def _resolve_with_network(
    recipe: Recipe, hardware: Hardware, initialized: InitializedNetwork, train: ImageSet
) -> tuple[Recipe, Hardware]:
    """Resolve what depends on the network and the images; every choice is added to those that are logged."""
    net, size = initialized.net, int(train.images.shape[1])
    recipe = recipe.model_copy(update={"model": with_resolved_options(recipe.model, net)})
    recipe, limited = _limit_batch_size(recipe, len(train))
    recipe, weighted = _choose_class_weights(recipe, train)
    hardware = _with_choices(hardware, *net.choices, *limited, *weighted)
    if initialized.start is not None:
        stages = describe_stages(recipe, net, len(train), size)
        hardware = _with_choices(hardware, *initialized.start.choices, *stages)
    hardware = timed_precision(net, recipe, size, len(train.classes), hardware)
    if hardware.cuda_graphs and can_record(recipe, net):
        reason = "the kernels of a step are started together, which takes the CPU less time"
        hardware = _with_choices(hardware, Choice("CUDA graphs", "on", reason))
    return _resolve_auto(recipe, hardware, size), hardware


def _with_choices(hardware: Hardware, *choices: Choice) -> Hardware:
    """The hardware with further choices for the log."""
    return replace(hardware, choices=(*hardware.choices, *choices))


def _data_choices(dataset: DataSet, recipe: Recipe) -> tuple[Choice, ...]:
    """What the recipe's groups and plan of fixes did with the data, for the log."""
    if not dataset.fixes:
        return _groups_of(dataset, recipe)
    done = ", ".join(f"{count:,} {what}" for what, count in dataset.fixes.items())
    return (*_groups_of(dataset, recipe), Choice("fixes", done, f"data.fix_plan = {Path(recipe.data.fix_plan).name!r}"))


def _groups_of(dataset: DataSet, recipe: Recipe) -> tuple[Choice, ...]:
    """How many groups `data.group_by` makes, for the log: a pattern that misses files leaves each of them alone."""
    found = [images.groups for images in dataset.stored.values() if images.groups is not None]
    if not found:
        return ()
    sizes = np.unique(np.concatenate(found), return_counts=True)[1]
    alone = int((sizes == 1).sum())
    reason = f"data.group_by = {recipe.data.group_by!r}; {alone:,} of {int(sizes.sum()):,} images are alone in theirs"
    return (Choice("groups", f"{len(sizes):,}", reason),)


def _with_resolved(recipe: Recipe, precision: Precision | None, keep: KeepTogether | None) -> Recipe:
    """The recipe with `auto` precision and `keep_together` replaced by an earlier resolution, if there is one."""
    if precision is not None and recipe.train.precision == "auto":
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})
    if keep is not None and recipe.data.keep_together == "auto":
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"keep_together": keep})})
    return recipe


def _resolve_auto(recipe: Recipe, hardware: Hardware, image_size: int) -> Recipe:
    """The recipe with every `auto` that can change the result replaced by the resolved value; threads stay `auto`."""
    chosen = {
        "precision": str(hardware.precision).removeprefix("torch."),
        "memory_format": "channels_last" if hardware.channels_last else "contiguous",
        "compile": "on" if hardware.compile else "off",
    }
    sizes: dict[str, int] = {"image_size": image_size}
    if recipe.augment.crops:
        sizes["decode_size"] = _decode_size(recipe) or image_size
    data = recipe.data.model_copy(update=sizes)
    return recipe.model_copy(update={"data": data, "train": recipe.train.model_copy(update=chosen)})


def _choose_class_weights(recipe: Recipe, train: ImageSet) -> tuple[Recipe, tuple[Choice, ...]]:
    """Replace `auto` class weights by the resolved value; returns the choice for the log if there was one."""
    choice = resolve_class_weights(recipe.train.class_weights, train.counts, recipe.train.sampler)
    if choice is None:
        return recipe, ()
    settings = recipe.train.model_copy(update={"class_weights": choice.value})
    return recipe.model_copy(update={"train": settings}), (choice,)


def _limit_batch_size(recipe: Recipe, rows: int) -> tuple[Recipe, tuple[Choice, ...]]:
    """Limit the batch size to the number of training images; returns the choice for the log if it was larger."""
    if recipe.schedule.batch_size <= rows:
        return recipe, ()
    schedule = recipe.schedule.model_copy(update={"batch_size": rows})
    choice = Choice("batch size", str(rows), f"there are only {rows} training images")
    return recipe.model_copy(update={"schedule": schedule}), (choice,)


@dataclass(frozen=True)
class Plan:
    """Everything resolved before training; `record` becomes `environment.json`, `split` becomes `split.json`.

    `initialized` is the network to train; training modifies it, so a plan is trained once. `fixes` is the content of
    the plan of fixes that was applied to the data, if there was one.
    """

    spec: str
    dataset: DataSet
    parts: Parts
    recipe: Recipe
    hardware: Hardware
    calibrated_by: ModelInfo | None
    record: dict[str, Any]
    split: dict[str, Any]
    data_root: Path | None
    initialized: InitializedNetwork | None = None
    fixes: bytes | None = None


def write_plan(plan: Plan, directory: RunDir) -> None:
    """Write the recipe, the split and the environment of a run; files of a resumed run stay as they are."""
    if not directory.recipe.is_file():
        _write_recipe(plan, directory)
    if plan.fixes is not None and not directory.fixes.is_file():
        write_bytes(directory.fixes, plan.fixes)
    if not directory.split.is_file():
        counted = directory.read_json(directory.metrics)["test_evaluations"] if directory.metrics.is_file() else 0
        directory.write_json(directory.split, plan.split | {"test_evaluations": counted})
    if not directory.environment.is_file():
        directory.write_json(directory.environment, plan.record)


def write_combination(plan: Plan, directory: RunDir) -> None:
    """Write the same files of a combination of runs, over those of an interrupted one, which the first identifies."""
    directory.write_json(directory.environment, plan.record)
    _write_recipe(plan, directory)
    if plan.fixes is not None:
        write_bytes(directory.fixes, plan.fixes)
    directory.write_json(directory.split, plan.split)


def _write_recipe(plan: Plan, directory: RunDir) -> None:
    version = plan.record["versions"]["thirtytwo"]
    directory.write_recipe(plan.recipe, f"thirtytwo {version}: resolved for {plan.dataset.name}.")


def calibration_run(recipe: Recipe) -> ModelInfo | None:
    """The model of the run that `data.calibrate_from` names; None where this run holds out validation itself.

    Raises:
        RecipeError: the run trains on all of train, and names no calibration run, or one without validation.
    """
    if recipe.data.train_on != "all":
        return None
    if not recipe.data.calibrate_from:
        raise RecipeError(
            "data.train_on is 'all', so there is no validation to fit the temperature and the threshold for unknown "
            "images on.",
            "Train the same recipe with data.train_on = 'train' first, and set data.calibrate_from to that run.",
        )
    run = RunDir.open(recipe.data.calibrate_from)
    if not run.read_json(run.split)["n_val"]:
        raise RecipeError(
            f"data.calibrate_from is {run.path}, which has no validation either.",
            "Set it to a run of the same recipe with data.train_on = 'train'.",
        )
    return read_info(run.onnx)


def check_accepts_images(net: Network, recipe: Recipe, full: int) -> None:
    """Check that the network accepts images of side `full` and of the sizes of the schedule.

    Raises:
        RecipeError: the images are too small.
    """
    for size in sorted({full, *(min(stage.size, full) for stage in recipe.schedule.resolution)}):
        try:
            with preserve_modes(net), torch.no_grad():  # tensors of the inference mode could not be trained later
                net.eval()(torch.zeros((1, 3, size, size)))
        except (RuntimeError, IndexError):
            raise RecipeError(
                f"Images of {size}×{size} pixels are too small for the network {recipe.model.name}.",
                "Increase data.image_size or schedule.resolution, or use fewer groups in model.options.",
            ) from None


def check_batch_size(net: Network, recipe: Recipe, batch_size: int, full: int) -> None:
    """Check that the network can be trained on batches of one image, if they are that small.

    Raises:
        RecipeError: BatchNorm would have to normalize a single value.
    """
    if batch_size > 1:
        return
    size = min([full, *(stage.size for stage in recipe.schedule.resolution)])
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            deepcopy(net).train()(torch.zeros((1, 3, size, size)))
    except ValueError:
        raise RecipeError(
            f"schedule.batch_size is {batch_size}, but BatchNorm in the network {recipe.model.name} normalizes over "
            "the images of a batch and needs at least 2.",
            "Increase schedule.batch_size, and use schedule.accumulate for larger effective batches.",
        ) from None


def check_calibration_run(dataset: DataSet, calibrated_by: ModelInfo | None) -> None:
    """Check that the calibration run, if there is one, has the classes of the data.

    Raises:
        RecipeError: the classes differ.
    """
    if calibrated_by is not None and calibrated_by.classes != dataset.classes:
        raise RecipeError(
            f"data.calibrate_from is a run on {calibrated_by.dataset}, with other classes than {dataset.name}.",
            "Set it to a run of the same recipe on the same data with data.train_on = 'train'.",
        )
