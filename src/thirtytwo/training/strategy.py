"""How Lightning runs a training on several processes."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Any

import lightning
from lightning.pytorch.strategies import DDPStrategy
from torch import nn


class ChangingDDP(DDPStrategy):
    """DDP for networks whose trainable parameters change during training.

    PyTorch averages the gradients of the parameters that require one when the network is wrapped. So it is wrapped
    again where these change: at the second stage of transfer learning, and when a bias is trained no longer.
    """

    def __init__(self, **rest: Any) -> None:
        # buffers: `Processes.average_statistics`; unused parameters: networks may have some
        super().__init__(broadcast_buffers=False, find_unused_parameters=True, **rest)
        self._wrapped: frozenset[int] = frozenset()

    def configure_ddp(self) -> None:
        assert self.lightning_module is not None
        self._wrapped = _trainable(self.lightning_module)
        super().configure_ddp()

    def follow_trainable(self) -> None:
        """Wrap the network again if other parameters require gradients than when it was last wrapped."""
        if self.lightning_module is not None and _trainable(self.lightning_module) != self._wrapped:
            self.model = self.lightning_module
            self.configure_ddp()


def _trainable(module: nn.Module) -> frozenset[int]:
    return frozenset(id(parameter) for parameter in module.parameters() if parameter.requires_grad)


class OwnSigterm(lightning.Callback):
    """Handles SIGTERM as before the training.

    Lightning's handler waits for a message to the other processes, which a process that is to end may never get.
    """

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, self._before)
