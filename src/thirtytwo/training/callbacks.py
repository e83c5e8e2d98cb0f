"""The history file, progress output, and detection of a diverged loss."""

from __future__ import annotations

import io
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from thirtytwo.config.recipe import MONITORS, Recipe
from thirtytwo.errors import DivergedError
from thirtytwo.io import atomic_write
from thirtytwo.progress import Bar, open_bar
from thirtytwo.rundir import RunDir
from thirtytwo.text import duration, for_terminal, image_rate, percent
from thirtytwo.training.hardware import UsageMeter, release_freed_memory
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.processes import current
from thirtytwo.training.tracking import Trackers

HISTORY_COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "seconds",
    "images_per_second",
    "val_macro_precision",
    "val_macro_recall",
    "val_top5_accuracy",
)
PLAIN_LINE_SECONDS = 30.0
BAR_SECONDS = 0.5
EPOCH_LINE_SECONDS = 1.0
"""Least time between two lines of epochs that are not the first or the last."""
RELEASE_SECONDS = 20.0
"""Seconds after a release of freed memory in which the start of an epoch releases none.

The step after a release takes some tenths of a second longer.
"""


class HistoryCallback(lightning.Callback):
    """Writes one row of `history.csv` per epoch, and shows progress on standard error; one process of several does.

    Progress is a bar on a terminal and in a notebook, and plain lines elsewhere. Checkpoints contain the rows and the
    state of `meter`, so that a resumed run continues both. Training stops after the first epoch for whose row
    `should_stop` returns True. The first `cached_epochs` epochs are on features that the first batch computes.
    """

    def __init__(
        self,
        run: RunDir,
        total_steps: int,
        recipe: Recipe,
        *,
        cached_epochs: int = 0,
        show: bool = True,
        should_stop: Callable[[Mapping[str, float]], bool] | None = None,
        meter: UsageMeter | None = None,
        trackers: Trackers | None = None,
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self._run, self._total_steps, self._recipe = run, total_steps, recipe
        self._epochs, self._cached_epochs = recipe.schedule.epochs, cached_epochs
        self._first_epoch = 0
        self._show = show
        self._should_stop = should_stop
        self._meter = meter
        self._trackers = trackers
        self._bar: Bar | None = None
        self._sums: Tensor | None = None
        self._batches = self._images = 0
        self._validated = False
        self._rate = 0.0
        self._epoch_start = self._last_line = time.perf_counter()
        self._last_epoch = -math.inf

    @property
    def state_key(self) -> str:
        """Key in checkpoints; a fixed name, so that checkpoints outlive changes of the class name."""
        return "Ledger"

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "meter": self._meter.state_dict() if self._meter is not None else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        measured = state_dict.get("meter")
        if self._meter is not None and measured is not None:
            self._meter.load_state_dict(measured)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._first_epoch = trainer.current_epoch
        if self._show:
            self._bar = open_bar("epoch", self._total_steps, done=self._done(trainer.current_epoch))

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._sums, self._batches, self._images = None, 0, 0
        self._validated = False
        self._epoch_start = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]  # after the batch it is that of the next step

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        metrics = torch.stack([outputs["mean_loss"].detach().float(), outputs["accuracy"].detach().float()])
        self._sums = metrics if self._sums is None else self._sums + metrics
        self._batches += 1
        self._images += len(batch[1]) * current().world_size
        now = time.perf_counter()
        waits = self._bar is None and self._batches == 1  # the first batch may include the features of all images
        if self._show and not waits and now - self._last_line >= self._line_seconds:
            self._last_line = now
            self._log_progress(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._sums is not None:
            self._sums = current().mean(self._sums)
        loss, accuracy = self._epoch_means()
        if not loss < float("inf"):
            raise DivergedError(
                f"Training diverged: the mean loss of epoch {trainer.current_epoch + 1} is {loss}.",
                "Lower optimizer.lr, or set train.precision to float32.",
            )
        seconds = time.perf_counter() - self._epoch_start
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self._rate,
            "train_loss": loss,
            "train_accuracy": accuracy,
            **(_validation(trainer.callback_metrics) if self._validated else {}),
            "seconds": round(seconds, 3),
            "images_per_second": float(f"{self._images / max(seconds, 1e-9):.6g}"),
        }
        self.rows.append(row)
        if current().is_first:
            self._run.write_history(self.rows, HISTORY_COLUMNS)
        if self._trackers is not None:
            self._trackers.log({key: row[key] for key in HISTORY_COLUMNS[2:] if key in row}, trainer.global_step)
        if self._should_stop is not None and self._should_stop(row):
            trainer.should_stop = True
        if self._bar is not None:
            self._bar.update(self._done(row["epoch"]), title=self._epoch_title(row["epoch"]), text=_metrics(row))
        elif self._show:
            self._log_epoch(row, last=trainer.should_stop or row["epoch"] == self._epochs)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _log_epoch(self, row: Mapping[str, float], *, last: bool) -> None:
        """Log an epoch; of epochs shorter than `EPOCH_LINE_SECONDS` not all, but the first and the last."""
        now = time.perf_counter()
        if last or now - self._last_epoch >= EPOCH_LINE_SECONDS:
            self._last_epoch = now
            log_line(_line(row, self._epochs))

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def _line_seconds(self) -> float:
        """Least time between two reports within an epoch."""
        return BAR_SECONDS if self._bar else PLAIN_LINE_SECONDS

    def _epoch_means(self) -> tuple[float, float]:
        if self._sums is None:
            return float("nan"), float("nan")
        loss, accuracy = (self._sums / self._batches).tolist()
        return loss, accuracy

    def _log_progress(self, trainer: lightning.Trainer) -> None:
        loss, accuracy = self._epoch_means()
        rate = image_rate(self._images, time.perf_counter() - self._epoch_start)
        metrics = f"loss {loss:.3f}  accuracy {percent(accuracy)}  {rate}"
        title = self._epoch_title(trainer.current_epoch + 1)
        epochs = trainer.current_epoch + self._batches / trainer.num_training_batches
        if self._bar is not None:
            self._bar.update(self._done(epochs), title=title, text=metrics)
            return
        log_line(f"{title}  {metrics}{self._time_left(trainer, epochs)}")

    def _done(self, epochs: float) -> int:
        """Position of the bar after so many epochs, in steps: by their work.

        By their number where some of them train only the head, as those count as no work.
        """
        share = epochs / self._epochs if self._recipe.head_epochs else self._recipe.work_done(epochs)
        return round(share * self._total_steps)

    def _epoch_title(self, epoch: float) -> str:
        return f"epoch {epoch:.0f}/{self._epochs}"

    def _time_left(self, trainer: lightning.Trainer, epochs: float) -> str:
        """The time left after so many epochs, by the time of this one so far; empty where later ones are unlike it."""
        module, epoch = trainer.lightning_module, trainer.current_epoch
        computes_features = epoch == self._first_epoch and epoch < self._cached_epochs
        other_stage = isinstance(module, ClassifierModule) and epoch < module.first_epochs < self._epochs
        if computes_features or other_stage:
            return ""
        work_done = self._recipe.work_done
        taken = (time.perf_counter() - self._epoch_start) / (work_done(epochs) - work_done(epoch))
        return f"  about {duration(taken * (1 - work_done(epochs)))} left"


def log_line(text: str) -> None:
    """Write one line to standard error and flush it."""
    sys.stderr.write(for_terminal(text) + "\n")
    sys.stderr.flush()


def _validation(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(metrics[name]) for name in MONITORS if name in metrics}


def _line(row: Mapping[str, float], epochs: int) -> str:
    return f"epoch {row['epoch']:.0f}/{epochs} done  {_metrics(row)}"


def _metrics(row: Mapping[str, float]) -> str:
    parts = [
        f"loss {row['train_loss']:.3f}",
        f"accuracy {percent(row['train_accuracy'])}",
    ]
    if "val_accuracy" in row:
        parts.append(f"validation {percent(row['val_accuracy'])}")
    parts += [image_rate(row["images_per_second"], 1), duration(row["seconds"])]
    return "  ".join(parts)


class MemoryRelease(lightning.Callback):
    """Gives freed memory back to the system when the size of training images changes, and sometimes between epochs.

    It is in pieces, left by reading the data or by steps on smaller images, that a larger step may find no room in: it
    would add to the memory of training, and more so from epoch to epoch.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._shape: tuple[int, ...] = ()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if time.perf_counter() - self._last >= RELEASE_SECONDS:
            self._release()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        shape = tuple(batch[0].shape[1:])
        if shape != self._shape:
            self._release()
            self._shape = shape

    def _release(self) -> None:
        release_freed_memory()
        self._last = time.perf_counter()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a killed process or a full disk never leaves a partial file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one checkpoint.

        Raises:
            OutputError: the file cannot be written.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that stays in effect when a stopped run is resumed.

    Of transfer learning, validations before the base is trained, from epoch `start`, do not count: there the head may
    stop improving long before the second stage.
    """

    def __init__(self, monitor: str, *, start: int = 0, **rest: Any) -> None:
        super().__init__(monitor, **rest)
        self._start = start

    def _run_early_stopping_check(self, trainer: lightning.Trainer) -> None:
        if trainer.current_epoch >= self._start:  # both hooks of Lightning's callback end here
            super()._run_early_stopping_check(trainer)

    @property
    def state_key(self) -> str:
        """Key in checkpoints; a fixed name, so that checkpoints outlive changes of the class name."""
        return "Patience" + super().state_key.removeprefix(type(self).__qualname__)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.stopped_epoch:
            trainer.should_stop = True


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's callback, of which a run that was moved or copied goes on with the best score so far.

    Lightning itself drops that score where the absolute path of the checkpoints is another one, and the next
    validation would replace the best weights, however bad it is.
    """

    @property
    def state_key(self) -> str:
        """Key in checkpoints: that of Lightning's own callback, which earlier versions wrote."""
        return "ModelCheckpoint" + super().state_key.removeprefix(type(self).__qualname__)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        here = {key: self._here(state_dict[key]) for key in paths if key in state_dict}
        kept = {self._here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict({**state_dict, **here, "best_k_models": kept, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        """The path of a checkpoint in the present folder; an empty path, of none, stays as it is."""
        return str(Path(self.dirpath or "", re.split(r"[/\\]", path)[-1])) if path else path
