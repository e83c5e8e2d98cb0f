"""Experiment trackers: the history and the metrics of a run, logged to TensorBoard, MLflow or Weights & Biases.

Nothing is logged by default. Names are those of `history.csv` and, after the name of the split, of `metrics.json`.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from thirtytwo.config.recipe import Recipe, Tracker
from thirtytwo.config.resolve import flatten
from thirtytwo.errors import OutputError, require
from thirtytwo.process import quiet_loggers
from thirtytwo.rundir import RunDir
from thirtytwo.text import first_line

PROJECT = "thirtytwo"
"""Name of the experiment or project, where the tracker's own environment variable gives none."""
LIBRARIES: Mapping[Tracker, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "train"),
    "mlflow": ("mlflow", "track"),
    "wandb": ("wandb", "track"),
}
"""Module of each tracker, and the extra that installs it."""

logger = logging.getLogger(__name__)


class Trackers:
    """The open trackers of a run. One that fails is named in a warning and left out; training goes on."""

    def __init__(self, opened: Mapping[Tracker, Logger] | None = None) -> None:
        self._opened = dict(opened or {})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name."""
        self._each(lambda tracker: tracker.log_metrics(dict(values), step))

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log the content of `metrics.json`: `accuracy` on test as `test_accuracy`, and so on."""
        found = {
            key: value["value"] for key, value in metrics.items() if isinstance(value, Mapping) and "value" in value
        }
        self.log({f"{metrics['split']}_{key}": value for key, value in found.items() if value is not None}, step)

    def close(self, status: str) -> None:
        """Close all; `status` is `success` or `failed`."""

        def end(tracker: Logger) -> None:
            tracker.finalize(status)
            if isinstance(tracker, WandbLogger):
                tracker.experiment.finish(exit_code=0 if status == "success" else 1)

        self._each(end)
        self._opened.clear()

    def _each(self, work: Callable[[Logger], object]) -> None:
        for name, tracker in list(self._opened.items()):
            try:
                with _quiet():
                    work(tracker)
            except Exception as error:  # training must not end because a server does
                del self._opened[name]
                logger.warning("nothing more is logged to %s: %s", name, first_line(error))


def require_trackers(recipe: Recipe) -> None:
    """Check that the libraries of the recipe's trackers are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for name in recipe.train.trackers:
        _import(name)


@contextmanager
def tracked(recipe: Recipe, run: RunDir) -> Iterator[Trackers]:
    """Open the trackers of the recipe, and close them when the block ends. A resumed run continues its entries.

    Raises:
        MissingExtraError: the library of a tracker is not installed.
        OutputError: a tracker cannot be started, because of its settings or its server.
    """
    known = run.read_json(run.tracking) if run.tracking.is_file() else {}
    opened: dict[Tracker, Logger] = {}
    for name in recipe.train.trackers:
        _import(name)
        try:
            with _quiet():
                opened[name] = _OPENERS[name](run, known)
                opened[name].log_hyperparams(flatten(recipe.model_dump(mode="json")))
        except Exception as error:  # each library has errors of its own
            raise OutputError(
                f"{name} could not be started: {first_line(error)}.",
                "Check its settings and its server, or train without --log.",
            ) from error
    if known:
        run.write_json(run.tracking, known)
    trackers = Trackers(opened)
    try:
        yield trackers
    except BaseException:
        trackers.close("failed")
        raise
    trackers.close("success")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries; what fails is reported as an error."""
    with quiet_loggers("lightning.pytorch", "mlflow", "wandb", "alembic"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _import(name: Tracker) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    module, extra = LIBRARIES[name]
    return require(module, extra)


def _open_tensorboard(run: RunDir, known: dict[str, Any]) -> Logger:
    return TensorBoardLogger(str(run.path), name="tensorboard", version="")


def _open_mlflow(run: RunDir, known: dict[str, Any]) -> Logger:
    """MLflow's own settings say where entries are stored: by default a file in the working directory."""
    uri = _import("mlflow").get_tracking_uri()
    entry = known.get("mlflow") or {}
    found = MLFlowLogger(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run.path.resolve().name,
        tracking_uri=uri,
        run_id=entry.get("run_id") if entry.get("uri") == uri else None,
    )
    known["mlflow"] = {"run_id": found.run_id, "uri": uri}
    return found


def _open_wandb(run: RunDir, known: dict[str, Any]) -> Logger:
    """Offline unless WANDB_MODE says otherwise; entries are stored in `wandb/` of the run directory."""
    wandb = _import("wandb")
    known.setdefault("wandb", {"id": token_hex(4)})
    found = WandbLogger(
        run.path.resolve().name,
        save_dir=run.path,
        id=known["wandb"]["id"],
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        mode=os.environ.get("WANDB_MODE", "offline"),
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
    )
    _ = found.experiment  # starts it, so that errors are reported before training
    return found


_OPENERS: Mapping[Tracker, Callable[[RunDir, dict[str, Any]], Logger]] = {
    "tensorboard": _open_tensorboard,
    "mlflow": _open_mlflow,
    "wandb": _open_wandb,
}
