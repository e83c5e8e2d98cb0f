"""Atomic checkpoint files, and early stopping that survives resuming."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import TorchCheckpointIO

from thirtytwo.io import written_whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a killed process or a full disk never leaves a partial file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one checkpoint.

        Raises:
            OutputError: the file cannot be written.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with written_whole(Path(path)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that stays in effect when a stopped run is resumed."""

    @property
    def state_key(self) -> str:
        """Key in checkpoints; a fixed name, so that checkpoints outlive changes of the class name."""
        return "Patience" + super().state_key.removeprefix(type(self).__qualname__)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self.stopped_epoch:
            trainer.should_stop = True
