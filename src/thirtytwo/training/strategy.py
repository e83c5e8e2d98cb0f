"""How Lightning runs a training on several processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import lightning
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DDPStrategy
from torch import nn


class ChangingDDP(DDPStrategy):
    """DDP for networks whose trainable parameters change during training.

    PyTorch averages the gradients of the parameters that require one when the network is wrapped. So it is wrapped
    again where these change: before the first step, at the second stage of transfer learning, and when a bias is
    trained no longer. Running statistics are not broadcast but averaged (`Processes.average_statistics`).
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(broadcast_buffers=False, **rest)
        self._wrapped: frozenset[int] = frozenset()

    def configure_ddp(self) -> None:
        """Give all processes the weights of process 0; the network is wrapped before its first step."""
        assert isinstance(self.model, lightning.LightningModule)
        _sync_module_states(self.model)

    def follow_trainable(self, has_unused: Callable[[], bool]) -> None:
        """Wrap the network again if other parameters require gradients than when it was last wrapped.

        `has_unused` tells whether some of them have no influence on the loss, for which PyTorch would wait.
        """
        module = self.lightning_module
        if module is None or _trainable(module) == self._wrapped:
            return
        self._wrapped = _trainable(module)
        self._ddp_kwargs["find_unused_parameters"] = has_unused()
        self.model = module
        super().configure_ddp()


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
