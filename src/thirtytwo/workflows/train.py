"""Train a model from start to end: recipe, data, split, network, training, test evaluation, model.onnx, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from thirtytwo.arguments import optional_path, optional_source
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.recommend import SMALL
from thirtytwo.config.resolve import seed_of
from thirtytwo.config.settings import plain
from thirtytwo.data.load import spec_of
from thirtytwo.errors import ArgumentError, OutputError, ThirtytwoError, check_least
from thirtytwo.evaluation.evaluators import evaluators
from thirtytwo.io import DISK_FULL
from thirtytwo.run_paths import default_path
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import UsageMeter
from thirtytwo.training.launch import joined
from thirtytwo.training.lr_finder import LRFinderResult, run_lr_finder
from thirtytwo.training.processes import current
from thirtytwo.training.tracking import tracked
from thirtytwo.workflows.along import describe_run, train_along
from thirtytwo.workflows.choose import choose_recipe
from thirtytwo.workflows.finish import Run, finish
from thirtytwo.workflows.prepare import Plan, prepare, write_plan
from thirtytwo.workflows.records import (
    check_same,
    first_session_record,
    log_start,
    matches_data,
    progress_logger,
    resume_usage,
    session_changes,
    write_session,
)


@preserve_torch_state()
def train(
    data: str | Path,
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
    fix_plan: str | Path | None = None,
    device: str = "auto",
    devices: int | None = None,
    nodes: int | None = None,
    data_root: Path | str | None = None,
    show: bool = True,
) -> Run:
    """Train a classifier on `data`, evaluate it once on test, and write the report and model.onnx.

    Args:
        data: a known data set (`cifar10`, `cifar100`, `digits`), `hf:owner/name`, or the path of a folder of
            images, a table (CSV, Parquet), an `.npz` file or an archive.
        recipe: name of a recipe, or path of a recipe file; by default `fast` for small images and `photos` for
            photographs, and the run's own with `resume`.
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
        fix_plan: CSV file of images to drop, relabel or move, as `thirtytwo data doctor --fix-plan` writes it; the
            recipe's by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        devices: number of processes on each machine, one for each GPU; as many as torchrun or SLURM started, or 1, by
            default. Where nothing started them, they are started here and run the same script again.
        nodes: number of machines; as many as torchrun or SLURM use, or 1, by default.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Returns:
        The run directory and the content of its `metrics.json`.

    Raises:
        ThirtytwoError: invalid input, data that cannot be read, or training that diverged. The message says how to fix
            it. What was trained so far stays in the run directory.
        KeyboardInterrupt: interrupted; continue with `resume`.
        SystemExit: the training ended, and this is not the first of its processes, in which this returns.
    """
    data = spec_of(data)
    check_least("limit_train", limit_train)
    settings = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train, "data.group_by": group_by}
    settings["data.fix_plan"] = optional_source("fix_plan", fix_plan)
    settings["transfer.pretrained"] = optional_source("pretrained", pretrained)
    changes = with_settings(overrides, settings)
    recipe, run = optional_source("recipe", recipe), optional_path("run", run)
    order = _Order(data, recipe, changes, run, resume, device, optional_path("data_root", data_root))
    with joined(devices, nodes, device, progress_logger(show)) as processes:
        if processes.is_first:
            return _train(order, show)
        train_along(data, device, order.data_root, partial(_advice, order))
        raise SystemExit(0)


@dataclass(frozen=True)
class _Order:
    """What `train` is asked for; `changes` replace values of the recipe."""

    data: str
    recipe: str | None
    changes: dict[str, Any]
    run: Path | None
    resume: bool
    device: str
    data_root: Path | None


@dataclass(frozen=True)
class _Started:
    """A run that is ready to train: what was resolved, its directory, and the recipe that it was resolved from."""

    plan: Plan
    directory: RunDir
    source: str | Path


def _train(order: _Order, show: bool) -> Run:
    """Train in the only process, or in the first of several."""
    log, processes = progress_logger(show), current()
    with ExitStack() as stack:
        meter = stack.enter_context(UsageMeter())
        started = processes.on_first(lambda: _start(order, stack, meter, log))
        if isinstance(started, Run):
            processes.from_first(None)
            return started
        assert started is not None
        processes.from_first(describe_run(started.plan, started.source, order.changes, started.directory, order.resume))
        processes.advice = partial(_advice, order, started.directory)
        processes.on_others(lambda: None)
        with _log_resume_command(log, order, started.directory):
            return _run_plan(started.plan, started.directory, log, meter, resume=order.resume, show=show)


def _start(order: _Order, stack: ExitStack, meter: UsageMeter, log: Callable[[str], None]) -> _Started | Run:
    """Resolve what the run needs and write it to its directory, locked until `stack` ends; a finished run itself."""
    data, recipe, changes, run, resume = order.data, order.recipe, order.changes, order.run, order.resume
    evaluators()  # imports those of other packages, which are used only after the training
    if run is not None and not resume:
        RunDir.refuse_used(run)
    chosen = None
    if recipe is None and not resume:
        chosen = choose_recipe(data, changes, order.data_root)
        recipe = chosen.value
    path = run if run is not None else _default_path(order, recipe)
    existing = RunDir.open(path) if resume else None
    precision = None
    if existing is not None:
        stack.enter_context(existing.writing())
        if existing.is_finished() and recipe is None and not changes and matches_data(existing, data):
            return _already_finished(existing, log)
        existing.check_resumable()
        resume_usage(existing, meter)
        precision = existing.read_recipe().train.precision
    source = recipe if recipe is not None else existing.recipe if existing else SMALL
    plan = prepare(data, source, changes, order.device, order.data_root, precision, chosen, existing)
    if existing is not None:
        check_same(existing, plan.recipe, plan.dataset, data, plan.split)
        if existing.is_finished():
            return _already_finished(existing, log)
        for change in session_changes(existing, plan.record):
            log(change)
        plan = replace(plan, record=plan.record | first_session_record(existing, plan.record))
    directory = existing or stack.enter_context(RunDir.create_locked(run, path))
    write_plan(plan, directory)
    log_start(log, plan.dataset, plan.parts, plan.recipe, plan.hardware, directory)
    return _Started(plan, directory, source)


def _default_path(order: _Order, recipe: str | Path | None) -> Path:
    """The directory of a run that is not named, also of one to resume; without a recipe, the data chooses it."""
    named = choose_recipe(order.data, order.changes, order.data_root).value if recipe is None else recipe
    return default_path(order.data, Path(named).stem, f"seed{seed_of(named, order.changes)}")


def with_settings(overrides: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values that replace those of the recipe: `overrides`, then those of `settings` that are not None.

    Raises:
        ArgumentError: `overrides` are not by key.
    """
    if overrides is not None and not (
        isinstance(overrides, Mapping) and all(isinstance(key, str) for key in overrides)
    ):
        example = '{"optimizer.lr": 0.1}'
        raise ArgumentError(f"overrides must be values by dotted key, such as {example}; found {overrides!r}.")
    changes = dict(overrides or {}) | {key: value for key, value in settings.items() if value is not None}
    return {key: plain(value) for key, value in changes.items()}


def _run_plan(
    plan: Plan, directory: RunDir, log: Callable[[str], None], meter: UsageMeter, *, resume: bool, show: bool
) -> Run:
    """Train, evaluate and export."""
    options: dict[str, Any] = {"resume": resume, "show": show, "meter": meter, "initialized": plan.initialized}
    with (
        _recording_usage(directory, meter, plan.record["session_threads"]),
        tracked(plan.recipe, directory) as trackers,
    ):
        options["trackers"] = trackers
        fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, **options)
        metrics = finish(plan, fitted, directory, log, meter)
        trackers.log_metrics(metrics, int(directory.read_history()[-1]["step"]))
        return Run(directory.path, metrics)


def _already_finished(run: RunDir, log: Callable[[str], None]) -> Run:
    log(f"{run.path} is already finished; nothing to resume")
    return Run(run.path, run.read_json(run.metrics))


@contextmanager
def _recording_usage(directory: RunDir, meter: UsageMeter, threads: list[int]) -> Iterator[None]:
    """Record the time and memory of this session, at its start and when it ends without finishing the run."""
    write_session(directory, meter, threads)
    try:
        yield
    except BaseException:
        with suppress(ThirtytwoError):  # the original error is reported
            write_session(directory, meter)
        raise


@contextmanager
def _log_resume_command(log: Callable[[str], None], order: _Order, directory: RunDir) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        command = directory.resume_command(order.data, order.data_root)
        log(f"interrupted; {_kept(directory)}. Resume with: {command}")
        raise
    except OutputError as error:
        if error.fix != DISK_FULL:
            raise
        command = directory.resume_command(order.data, order.data_root)
        raise OutputError(error.message, f"Free disk space, then continue with: {command}") from error


def _kept(directory: RunDir) -> str:
    trained = any(directory.checkpoints.glob("last.ckpt"))
    return "the last completed epoch is saved" if trained else "no epoch was completed"


def _advice(order: _Order, directory: RunDir) -> str:
    """What to do after the loss of a process, as a sentence."""
    kept = _kept(directory)
    return f"{kept[0].upper()}{kept[1:]}. Resume with: {directory.resume_command(order.data, order.data_root)}"


@preserve_torch_state()
def find_lr(
    data: str | Path,
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
    data = spec_of(data)
    check_least("limit_train", limit_train)
    changes = with_settings(overrides, {"seed": seed, "data.limit_train": limit_train})
    recipe, root = optional_source("recipe", recipe), optional_path("data_root", data_root)
    chosen = choose_recipe(data, changes, root) if recipe is None else None
    source = chosen.value if chosen is not None else recipe
    plan = prepare(data, SMALL if source is None else source, changes, device, root, chosen=chosen)
    options: dict[str, Any] = {"log": progress_logger(show), "initialized": plan.initialized}
    return run_lr_finder(plan.recipe, plan.parts.train, plan.hardware, **options), plan.recipe
