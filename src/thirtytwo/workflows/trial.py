"""One trial of a tuning: train it, stop it early where the study prunes it, and record its outcome."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    @property
    def base(self) -> Path:
        return base_recipe(self.path)


@dataclass(frozen=True)
class _Outcome:
    """How a trial ended: `done`, `pruned`, `diverged` or `failed`, the reason, and its validation metrics."""

    outcome: str
    reason: str
    metrics: Mapping[str, float]
    value: float
    """The tuned metric; NaN where it was not measured."""
    epochs: int
    seconds: float


class _Pruning:
    """Reports the tuned metric of each epoch to the study, and stops the training of a trial that it prunes."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self._trial, self._metric = trial, metric
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
        self._trial.report(row[self._metric], int(row["epoch"]))
        self.pruned = self._trial.should_prune() and row["epoch"] < self.recipe.schedule.epochs
        return self.pruned


def run_trial(tuner: Tuner, trial: optuna.Trial) -> None:
    """Train one trial with its sampled settings, and record the outcome in the study."""
    clock = time.perf_counter()
    directory = RunDir(tuner.path / "trials" / f"{trial.number:04d}")
    shutil.rmtree(directory.path, ignore_errors=True)
    pruning = _Pruning(trial, tuner.request.metric)
    outcome, reason = "done", ""
    try:
        _train_trial(tuner, trial, directory, pruning)
    except DivergedError as error:
        outcome, reason = "diverged", error.message
    except ThirtytwoError as error:
        outcome, reason = "failed", str(error)
    except torch.OutOfMemoryError:
        outcome, reason = "failed", "The device ran out of memory."
    finally:
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
    metrics = _metrics(pruning.rows, pruning.recipe) if pruning.recipe is not None else {}
    value = metrics.get(tuner.request.metric, math.nan)
    if outcome == "done" and not math.isfinite(value):
        outcome, reason = "diverged", f"{tuner.request.metric} is {value}."
    outcome = "pruned" if outcome == "done" and pruning.pruned else outcome
    ended = _Outcome(outcome, reason, metrics, value, len(pruning.rows), time.perf_counter() - clock)
    _record_trial(tuner, trial, ended)
    _log_trial(tuner, trial, ended)


def _train_trial(tuner: Tuner, trial: optuna.Trial, directory: RunDir, pruning: _Pruning) -> None:
    changes = {**tuner.request.changes, **tuner.space.values(trial.params)}
    plan = prepare(tuner.request.data, tuner.base, changes, tuner.device, tuner.data_root, tuner.precision)
    pruning.recipe = plan.recipe
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.write_recipe(plan.recipe, f"Trial {trial.number}.")
    fit(
        plan.recipe,
        plan.parts.train,
        plan.parts.val,
        directory,
        plan.hardware,
        show=tuner.show,
        should_stop=pruning.should_stop,
        initialized=plan.initialized,
    )


def _record_trial(tuner: Tuner, trial: optuna.Trial, ended: _Outcome) -> None:
    """Store the outcome of a trial in the study."""
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


def _log_trial(tuner: Tuner, trial: optuna.Trial, ended: _Outcome) -> None:
    result = f"{tuner.request.metric} {ended.value:.4f}" if math.isfinite(ended.value) else ended.reason
    settings = ", ".join(f"{key} {_format_value(sampled)}" for key, sampled in trial.params.items())
    tuner.log(f"trial {trial.number} {ended.outcome}: {result} ({settings})")


def _metrics(rows: list[Mapping[str, float]], recipe: Recipe) -> dict[str, float]:
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
