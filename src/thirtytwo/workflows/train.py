"""The whole job, step by step: recipe, data, split, run directory, network, figures, model.onnx, report."""

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
from thirtytwo.config.recipe import Precision, Recipe, read_recipe_values, resolve_recipe, seed_of
from thirtytwo.data.load import load_dataset
from thirtytwo.data.parts import divide
from thirtytwo.data.run_data import split_record, unused_of
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import RecipeError, ThirtytwoError
from thirtytwo.models import Net
from thirtytwo.models.ensemble import NAME as ENSEMBLE
from thirtytwo.models.pretrained import start_from
from thirtytwo.rundir import RunDir
from thirtytwo.training.checks import check_optimizer, check_training
from thirtytwo.training.fit import build_net, fit
from thirtytwo.training.hardware import Choice, Hardware, choose_hardware, preserved
from thirtytwo.training.precision import timed_precision
from thirtytwo.training.transfer import adapted, stages_told, with_run
from thirtytwo.training.usage import Meter
from thirtytwo.workflows.finish import Plan, Run, begin, finish
from thirtytwo.workflows.leakage import check_unseen
from thirtytwo.workflows.parts import check_fits
from thirtytwo.workflows.records import (
    begun_as,
    check_same,
    default_path,
    is_finished,
    names_its_data,
    record,
    resume_meter,
    tell_start,
    teller,
    write_session,
)
from thirtytwo.workflows.scoring import (
    twin,
)

TYPICAL_CLASSES, TYPICAL_ROWS = 10, 45_000  # a recipe is checked against these before the data is read


@preserved()
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
    """Train on `data` by a recipe (`fast` when none is named), score test once, write report and model.onnx.

    `overrides` are dotted recipe keys and values; `run` is the new run directory (one under `runs/` when not given);
    `resume` continues the run in it from its last whole epoch. `pretrained` names weights to start from: `timm` or a
    tag of timm's weights, a .safetensors file, or a run directory. `group_by` keeps together what belongs together when
    validation and test are set aside: a regular expression on files' paths, or a column. `show` tells progress on
    standard error.

    Raises:
        ThirtytwoError: anything the user can mend; nothing is written then but what was trained so far.
        KeyboardInterrupt: stopped by hand; continue with `resume`.
    """
    say = teller(show)
    changes = dict(overrides or {})
    named: dict[str, Any] = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train}
    named |= {"transfer.pretrained": None if pretrained is None else str(pretrained), "data.group_by": group_by}
    changes |= {key: value for key, value in named.items() if value is not None}
    started_as = Path(run) if run is not None else _default_path(data, recipe or "fast", changes)
    with ExitStack() as held:
        meter = held.enter_context(Meter())
        begun = RunDir.open(started_as) if resume else None
        if begun is not None:
            held.enter_context(begun.writing())
            if is_finished(begun) and recipe is None and not changes and names_its_data(begun, data):
                return _nothing_left(begun, say)
            resume_meter(begun, meter)
        elif run is not None:
            RunDir.refuse_used(started_as)
        source = recipe or (begun.recipe if begun else "fast")
        precision = begun.read_recipe().train.precision if begun else None
        plan = settle(data, source, changes, device, Path(data_root) if data_root is not None else None, precision)
        if begun is not None:
            check_same(begun, plan.recipe, plan.dataset, data, plan.split)
            if is_finished(begun):
                return _nothing_left(begun, say)
            plan = replace(plan, record=plan.record | begun_as(begun, plan.record))
        directory = begun or held.enter_context(RunDir.begun(run, started_as))
        begin(plan, directory)
        tell_start(say, plan.dataset, plan.parts, plan.recipe, plan.hardware, directory)
        with _told_how_to_resume(say, data, directory, data_root), _noted(directory, meter):
            how: dict[str, Any] = {"resume": resume, "show": show, "meter": meter}
            fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, **how)
            metrics = finish(plan, fitted, directory, say, meter)
        return Run(directory.path, metrics)


def _default_path(data: str, recipe: str | Path, changes: Mapping[str, Any]) -> Path:
    return default_path(data, recipe, seed_of(recipe, changes))


def _nothing_left(run: RunDir, say: Callable[[str], None]) -> Run:
    say(f"{run.path} is finished; nothing is left to resume")
    return Run(run.path, run.read_json(run.metrics))


@contextmanager
def _noted(directory: RunDir, meter: Meter) -> Iterator[None]:
    """Keep what this session took, at its start and where it ends without finishing the run."""
    write_session(directory, meter)
    try:
        yield
    except BaseException:
        with suppress(ThirtytwoError):  # what ended it is told
            write_session(directory, meter)
        raise


@contextmanager
def _told_how_to_resume(
    say: Callable[[str], None], data: str, directory: RunDir, data_root: Path | str | None
) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        words = ["thirtytwo", "train", data, "--resume", "--run", str(directory.path)]
        words += ["--data-root", str(data_root)] if data_root is not None else []
        trained = any(directory.checkpoints.glob("last.ckpt"))
        kept = "the last whole epoch is kept" if trained else "no epoch was finished yet"
        say(f"stopped; {kept}. Go on with: {shlex.join(words)}")
        raise


def settle(
    data: str,
    recipe_source: str | Path,
    changes: Mapping[str, Any],
    device: str,
    data_root: Path | None,
    precision: Precision | None = None,
) -> Plan:
    """Settle recipe, hardware, pictures and split; quick mistakes come before slow reading.

    `precision` is what `auto` came to before, where this training belongs to one that has begun.
    """
    started = datetime.now(UTC)
    values = read_recipe_values(recipe_source)
    where = f"Recipe {str(recipe_source)!r}"
    typical: dict[str, Any] = {"classes": TYPICAL_CLASSES, "rows": TYPICAL_ROWS, "where": where}
    values = with_run(values, resolve_recipe(values, changes, **typical))
    early = _as_before(adapted(resolve_recipe(values, changes, **typical)), precision)
    if early.model.name == ENSEMBLE:
        raise RecipeError(
            f"{where} is that of an ensemble, which is put together from trained runs and not trained itself.",
            "Put one together with: thirtytwo ensemble RUN RUN... To learn from one, name it in train.distill.run.",
        )
    hardware = choose_hardware(early.train, device)
    net = build_net(early, TYPICAL_CLASSES)
    check_optimizer(early)
    check_augment(early.augment)
    measured_by_twin = twin(early)
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
    recipe = _as_before(adapted(resolve_recipe(values, changes, **known)), precision)
    if recipe.train != early.train:
        hardware = choose_hardware(recipe.train, device)
    check_fits(dataset, parts, recipe, measured_by_twin)
    origins = check_unseen(data, dataset, parts, recipe, data_root)
    hardware = replace(hardware, choices=(*hardware.choices, *_groups_of(dataset, early), *origins.choices))
    dataset = replace(dataset, train=parts.train, val=parts.val, test=parts.test)  # lets go of what was divided
    check_augment(recipe.augment, dataset.classes)
    if recipe.model != early.model or recipe.transfer.pretrained or len(dataset.classes) != TYPICAL_CLASSES:
        net = build_net(recipe, len(dataset.classes))
    check_training(recipe, dataset.classes, parts.val is not None)
    recipe, hardware = _heard(net, recipe, hardware)
    recipe, hardware = _fit_batch(recipe, len(parts.train), hardware)
    if recipe.transfer.pretrained:
        hardware = _started(net, recipe, parts.train, hardware)
    size = int(parts.train.images.shape[1])
    hardware = timed_precision(net, recipe, size, len(dataset.classes), hardware)
    recipe = _settled(recipe, hardware, size)
    if measured_by_twin is not None:
        borrowed = Choice("calibration", f"from {recipe.data.calibrate_from}", "all of train is trained on here")
        hardware = replace(hardware, choices=(*hardware.choices, borrowed))
    written_down = record(dataset, data, parts, recipe_source, changes, hardware, started)
    split = split_record(parts, recipe, unused, origins.as_dict())
    return Plan(data, dataset, parts, recipe, hardware, measured_by_twin, written_down, split, data_root)


def _groups_of(dataset: DataSet, recipe: Recipe) -> tuple[Choice, ...]:
    """How many groups `data.group_by` makes, for the log: a pattern that misses files leaves each of them alone."""
    found = [images.groups for images in dataset.stored.values() if images.groups is not None]
    if not found:
        return ()
    sizes = np.unique(np.concatenate(found), return_counts=True)[1]
    alone = int((sizes == 1).sum())
    reason = f"data.group_by = {recipe.data.group_by!r}; {alone:,} of {int(sizes.sum()):,} images are alone in theirs"
    return (Choice("groups", f"{len(sizes):,}", reason),)


def _as_before(recipe: Recipe, precision: Precision | None) -> Recipe:
    """The recipe with the precision that `auto` came to before, where it did."""
    if precision is None or recipe.train.precision != "auto":
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": precision})})


def _settled(recipe: Recipe, hardware: Hardware, image_size: int) -> Recipe:
    """The recipe with every `auto` that can change the outcome replaced by what was chosen; threads stay free."""
    chosen = {
        "precision": str(hardware.precision).removeprefix("torch."),
        "memory_format": "channels_last" if hardware.channels_last else "contiguous",
        "compile": "on" if hardware.compile else "off",
    }
    data = recipe.data.model_copy(update={"image_size": image_size})
    return recipe.model_copy(update={"data": data, "train": recipe.train.model_copy(update=chosen)})


def _heard(net: Net, recipe: Recipe, hardware: Hardware) -> tuple[Recipe, Hardware]:
    """What was left to the network to choose, told with everything else and settled in the recipe."""
    told = [Choice(choice.what, choice.value, choice.reason) for choice in net.choices]
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **net.settled}})
    return recipe.model_copy(update={"model": model}), replace(hardware, choices=(*hardware.choices, *told))


def _started(net: Net, recipe: Recipe, train: ImageSet, hardware: Hardware) -> Hardware:
    """What the network starts from and what is trained when, told with everything else."""
    start = start_from(net, recipe.transfer.pretrained, recipe.model, train.classes)
    told = [Choice(choice.what, choice.value, choice.reason) for choice in start.choices]
    told += stages_told(recipe, net, len(train), int(train.images.shape[1]))
    return replace(hardware, choices=(*hardware.choices, *told))


def _fit_batch(recipe: Recipe, rows: int, hardware: Hardware) -> tuple[Recipe, Hardware]:
    """A batch no larger than the training set."""
    if recipe.schedule.batch_size <= rows:
        return recipe, hardware
    choice = Choice("batch size", str(rows), f"there are only {rows} training pictures")
    schedule = recipe.schedule.model_copy(update={"batch_size": rows})
    return recipe.model_copy(update={"schedule": schedule}), replace(hardware, choices=(*hardware.choices, choice))
