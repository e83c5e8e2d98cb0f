"""One trial of a tuning: train it, stop it early where the study prunes it, and record its outcome."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from thirtytwo.config.recipe import Precision, Recipe
from thirtytwo.errors import DivergedError, ThirtytwoError
from thirtytwo.report.tuning import METRICS
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.workflows.prepare import prepare
from thirtytwo.workflows.search_space import Space
from thirtytwo.workflows.study import TuningRequest, base_recipe

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Tuner:
    """The shared state of all trials."""

    path: Path
    request: TuningRequest
    space: Space
    study: optuna.Study
    device: str
    data_root: Path | None
    show: bool
    log: Callable[[str], None]
    precision: Precision
    """Precision of every trial, unless the space contains it."""


@dataclass(frozen=True)
class TrialJob:
    """What training one trial needs, in this process or another one.

    Attributes:
        number: number of the trial.
        sampled: values of the recipe that were sampled, by dotted key.
        path: the tuning directory.
        data: the data.
        changes: values of every trial that replace those of the recipe, by dotted key.
        metric: the tuned metric.
        device: device to compute on.
        data_root: directory searched first for known data sets.
        precision: precision, unless it is sampled.
        show: log progress on standard error.
    """

    number: int
    sampled: Mapping[str, Any]
    path: Path
    data: str
    changes: Mapping[str, Any]
    metric: str
    device: str
    data_root: Path | None
    precision: Precision
    show: bool


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `done`, `pruned`, `diverged` or `failed`, the reason, and its validation metrics."""

    outcome: str
    reason: str
    metrics: Mapping[str, float]
    value: float
    """The tuned metric; NaN where it was not measured."""
    epochs: int
    seconds: float


Report: TypeAlias = Callable[[Mapping[str, float], float], bool]
"""Takes the metrics of an epoch and the tuned one; returns whether to prune the trial."""


class _Pruning:
    """Reports the tuned metric of each epoch, and stops the training of a trial that is pruned."""

    def __init__(self, metric: str, report: Report) -> None:
        self._metric, self._report = metric, report
        self.rows: list[Mapping[str, float]] = []
        self.recipe: Recipe | None = None
        """The trial's recipe, once it is known."""
        self.pruned = False

    def should_stop(self, row: Mapping[str, float]) -> bool:
        """Whether to stop after the epoch with these metrics."""
        self.rows.append(dict(row))
        if not math.isfinite(row.get(self._metric, math.nan)):
            return False
        assert self.recipe is not None
        self.pruned = self._report(row, row[self._metric]) and row["epoch"] < self.recipe.schedule.epochs
        return self.pruned


def _directory(path: Path, number: int) -> RunDir:
    return RunDir(path / "trials" / f"{number:04d}")


def remove_checkpoints(tuner: Tuner, trial: optuna.Trial) -> None:
    """Remove the checkpoints of a trial that is not continued."""
    shutil.rmtree(_directory(tuner.path, trial.number).checkpoints, ignore_errors=True)


def job_of(tuner: Tuner, trial: optuna.Trial) -> TrialJob:
    """What training a trial needs."""
    request = tuner.request
    sampled = tuner.space.values(trial.params)
    return TrialJob(
        trial.number,
        sampled,
        tuner.path,
        request.data,
        request.changes,
        request.metric,
        tuner.device,
        tuner.data_root,
        tuner.precision,
        tuner.show,
    )


def run_trial(tuner: Tuner, trial: optuna.Trial) -> None:
    """Train one trial with its sampled settings, and record the outcome in the study."""

    def report(row: Mapping[str, float], value: float) -> bool:
        trial.report(value, int(row["epoch"]))
        return trial.should_prune()

    record_trial(tuner, trial, train_trial(job_of(tuner, trial), report))


def train_trial(job: TrialJob, report: Report) -> Outcome:
    """Train one trial, which may fail."""
    clock = time.perf_counter()
    directory = _directory(job.path, job.number)
    shutil.rmtree(directory.path, ignore_errors=True)
    pruning = _Pruning(job.metric, report)
    outcome, reason = "done", ""
    try:
        _fit_trial(job, directory, pruning)
    except DivergedError as error:
        outcome, reason = "diverged", error.message
    except ThirtytwoError as error:
        outcome, reason = "failed", str(error)
    except (torch.OutOfMemoryError, MemoryError):
        outcome, reason = "failed", "The device ran out of memory."
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what PyTorch says on a CPU
            raise
        outcome, reason = "failed", "This computer ran out of memory."
    finally:
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
    metrics = metrics_of(pruning.rows, pruning.recipe) if pruning.recipe is not None else {}
    value = metrics.get(job.metric, math.nan)
    if outcome == "done" and not math.isfinite(value):
        outcome, reason = "diverged", f"{job.metric} is {value}."
    outcome = "pruned" if outcome == "done" and pruning.pruned else outcome
    return Outcome(outcome, reason, metrics, value, len(pruning.rows), time.perf_counter() - clock)


def _fit_trial(job: TrialJob, directory: RunDir, pruning: _Pruning) -> None:
    changes = {**job.changes, **job.sampled}
    plan = prepare(job.data, base_recipe(job.path), changes, job.device, job.data_root, job.precision)
    pruning.recipe = plan.recipe
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.write_recipe(plan.recipe, f"Trial {job.number}.")
    fit(
        plan.recipe,
        plan.parts.train,
        plan.parts.val,
        directory,
        plan.hardware,
        show=job.show,
        should_stop=pruning.should_stop,
        initialized=plan.initialized,
    )


def record_trial(tuner: Tuner, trial: optuna.Trial, ended: Outcome) -> None:
    """Store the outcome of a trial in the study, and log it."""
    from optuna.trial import TrialState

    attributes = {
        "outcome": ended.outcome,
        "reason": ended.reason,
        "figures": ended.metrics,
        "epochs": ended.epochs,
        "seconds": ended.seconds,
    }
    for name, attribute in attributes.items():
        trial.set_user_attr(name, attribute)
    if ended.outcome == "done":
        tuner.study.tell(trial, ended.value)
    else:
        tuner.study.tell(trial, state=TrialState.FAIL if ended.outcome == "failed" else TrialState.PRUNED)
    _log_trial(tuner, trial, ended)


def _log_trial(tuner: Tuner, trial: optuna.Trial, ended: Outcome) -> None:
    result = f"{tuner.request.metric} {ended.value:.4f}" if math.isfinite(ended.value) else ended.reason
    settings = ", ".join(f"{key} {_format_value(sampled)}" for key, sampled in trial.params.items())
    tuner.log(f"trial {trial.number} {ended.outcome}: {result} ({settings})")


def metrics_of(rows: Sequence[Mapping[str, float]], recipe: Recipe) -> dict[str, float]:
    """The validation metrics of the weights that this training would keep."""
    evaluated = [row for row in rows if "val_loss" in row]
    if not evaluated:
        return {}
    row = evaluated[-1]
    if recipe.train.keep == "best":
        monitor = recipe.train.monitor
        row = min(evaluated, key=lambda row: row[monitor] if monitor == "val_loss" else -row[monitor])
    return {name: float(row[name]) for name in METRICS if name in row and math.isfinite(row[name])}


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
