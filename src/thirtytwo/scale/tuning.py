"""Train the trials of a tuning on a Ray cluster, several at a time, with Ray Tune; the study stays as it is.

Optuna samples the settings, as without a cluster, and keeps every outcome: a tuning can be continued either way.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import ClusterError, require
from thirtytwo.process import environment
from thirtytwo.scale.address import EXTRA, HEAD_PORT
from thirtytwo.scale.cluster import Cluster
from thirtytwo.scale.nodes import NEEDED, TRAINING, enter_folder
from thirtytwo.text import counted
from thirtytwo.workflows.study import FILE
from thirtytwo.workflows.trial import (
    Outcome,
    TrialJob,
    Tuner,
    job_of,
    metrics_of,
    record_trial,
    remove_checkpoints,
    train_trial,
)
from thirtytwo.workflows.tune import ASHA_FACTOR, STARTUP, ask, is_pruned, write_results

if TYPE_CHECKING:
    import optuna

MODULES = (*NEEDED, *TRAINING)
"""What every worker needs."""
CORES = 4
"""CPU cores of a trial by default."""
RETRIES = 3
"""How often a trial is trained again whose worker died."""
EPOCH, ROW, ENDED = "epoch", "row", "ended"
"""Keys of a report: the epoch, its metrics (pairs, because Ray flattens dictionaries), and the outcome of a trial that
ended by itself."""
STATE = ".ray"
"""Folder of Ray Tune's own files in the tuning directory, removed afterwards."""
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, which then says how to resume
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class RaySearch:
    """Trains trials on a cluster: the argument `search` of `workflows.tune.tune`.

    Attributes:
        cluster: the cluster.
        workers: number of trials at a time; by default one for each GPU, or for each `CORES` CPU cores.
    """

    cluster: Cluster
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.cluster.client:
            raise ClusterError(
                f"Tuning needs a machine of the cluster; {self.cluster.address} connects from outside of it.",
                f"Run the command on a machine of the cluster, with --on HOST:{HEAD_PORT}.",
            )

    def __call__(self, tuner: Tuner, recipe: Recipe, trials: int) -> None:
        """Train `trials` trials."""
        resources, at_once = self._resources(tuner)
        tuner.log(
            f"on {self.cluster}: {counted(at_once, 'trial')} at a time, each with "
            + ", ".join(f"{count:g} {kind.upper()}" for kind, count in resources.items() if count)
        )
        searcher = _searcher(tuner, recipe)
        state = tuner.path / STATE
        with ExitStack() as stack:
            for name, value in _ENVIRONMENT.items():
                stack.enter_context(environment(name, value))
            stack.callback(shutil.rmtree, state, ignore_errors=True)
            stack.callback(searcher.close)
            _fit(tuner, recipe, searcher, resources, trials, at_once)

    def _resources(self, tuner: Tuner) -> tuple[dict[str, float], int]:
        """What Ray reserves for each trial, and the number of trials at a time."""
        gpus = int(self.cluster.ray.cluster_resources().get("GPU", 0)) if tuner.device in ("auto", "cuda") else 0
        most = gpus or max(1, self.cluster.cpus // CORES)
        at_once = min(self.workers or most, gpus or self.cluster.cpus)
        cores = min(self.cluster.cpus // at_once, self._cores_for_one(bool(gpus)))
        return {"cpu": max(1, cores), "gpu": 1 if gpus else 0}, at_once

    def _cores_for_one(self, with_gpu: bool) -> int:
        """Cores that a trial can have on one machine; with a GPU, that machine's share for each of its GPUs."""
        found = [node["Resources"] for node in self.cluster.ray.nodes() if node["Alive"]]
        if with_gpu:
            return int(min(one.get("CPU", 0) // one["GPU"] for one in found if one.get("GPU", 0) >= 1))
        return int(max(one.get("CPU", 0) for one in found))


def _fit(
    tuner: Tuner, recipe: Recipe, searcher: Any, resources: Mapping[str, float], trials: int, at_once: int
) -> None:
    from ray import tune

    metric, mode = _objective(tuner)
    trainable = tune.with_resources(_train, dict(resources))
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=metric,
            mode=mode,
            search_alg=searcher,
            scheduler=_scheduler(tuner, recipe.schedule.epochs),
            num_samples=trials,
            max_concurrent_trials=at_once,
            reuse_actors=False,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((tuner.path / STATE).resolve()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()


def _name(trial: Any) -> str:
    return str(trial.trial_id)


def _objective(tuner: Tuner) -> tuple[str, str]:
    metric = tuner.request.metric
    return metric, "min" if metric == "val_loss" else "max"


def _scheduler(tuner: Tuner, epochs: int) -> Any:
    schedulers = require("ray.tune.schedulers", EXTRA)
    if not is_pruned(tuner):
        return schedulers.FIFOScheduler()
    if tuner.request.pruner == "median":
        return schedulers.MedianStoppingRule(time_attr=EPOCH, grace_period=1, min_samples_required=STARTUP)
    return schedulers.ASHAScheduler(
        time_attr=EPOCH,
        max_t=epochs + 1,  # a trial ends by itself, with a report after its last epoch
        grace_period=1,
        reduction_factor=ASHA_FACTOR,
        brackets=3 if tuner.request.pruner == "hyperband" else 1,
        stop_last_trials=False,
    )


def _train(config: dict[str, Any]) -> None:
    """Train one trial in a worker, with a report after each epoch and one at the end."""
    from ray import tune

    job: TrialJob = config["job"]
    enter_folder(config["folder"])
    if not (job.path / FILE).is_file():
        raise ClusterError(
            f"The Ray worker {platform.node()} does not see the directory {job.path}.",
            "Give a --run that all machines share, such as a folder on network storage.",
        )

    def report(row: Mapping[str, float], value: float) -> bool:
        tune.report({ROW: tuple(row.items()), job.metric: value, EPOCH: int(row["epoch"])})
        return False  # Ray stops a pruned trial during its report

    outcome = train_trial(job, report)
    tune.report({job.metric: outcome.value, EPOCH: config["epochs"] + 1, ENDED: outcome})


def _searcher(tuner: Tuner, recipe: Recipe) -> Any:
    """A searcher of Ray Tune that asks the study for settings, and records outcomes in it."""
    from ray.tune.search import Searcher

    class StudySearcher(Searcher):
        def __init__(self) -> None:
            metric, mode = _objective(tuner)
            super().__init__(metric=metric, mode=mode)
            self._running: dict[str, _Running] = {}

        def suggest(self, trial_id: str) -> dict[str, Any]:
            trial = ask(tuner, recipe)
            self._running[trial_id] = _Running(trial, [])
            return {"job": job_of(tuner, trial), "folder": os.getcwd(), "epochs": recipe.schedule.epochs}  # noqa: PTH109

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if ROW in result:
                self._running[trial_id].add(dict(result[ROW]))

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            running = self._running.pop(trial_id)
            remove_checkpoints(tuner, running.trial)  # where its worker was ended, it has not done so
            if result and ROW in result:  # of the epoch after which Ray stopped it
                running.add(dict(result[ROW]))
            record_trial(tuner, running.trial, _outcome(tuner, running, result or {}, recipe, error=error))
            write_results(tuner)

        def close(self) -> None:
            """Remove the checkpoints of trials that are interrupted; they start again later."""
            for running in self._running.values():
                remove_checkpoints(tuner, running.trial)

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the study is the state."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing, likewise."""

        def __deepcopy__(self, memo: dict[int, Any]) -> StudySearcher:
            return self

        def __reduce__(self) -> tuple[Any, ...]:
            return (str, ())  # Ray Tune stores its arguments; a study is open in one process only

    return StudySearcher()


@dataclass
class _Running:
    """A trial that is being trained, and the metrics of its epochs."""

    trial: optuna.Trial
    rows: list[Mapping[str, float]]

    def add(self, row: Mapping[str, float]) -> None:
        """Add an epoch; the first one again where the trial was started again."""
        self.rows = [other for other in self.rows if other["epoch"] < row["epoch"]] + [row]


def _outcome(tuner: Tuner, running: _Running, result: Mapping[str, Any], recipe: Recipe, *, error: bool) -> Outcome:
    """The outcome that a trial reported, or that of one which Ray stopped."""
    if isinstance(found := result.get(ENDED), Outcome):
        return found
    metrics = metrics_of(running.rows, recipe)
    value = metrics.get(tuner.request.metric, math.nan)
    seconds = float(result.get("time_total_s", 0.0))
    if error:
        reason = "Its worker ended, or failed; see the logs of Ray."
        return Outcome("failed", reason, metrics, value, len(running.rows), seconds)
    return Outcome("pruned", "", metrics, value, len(running.rows), seconds)
