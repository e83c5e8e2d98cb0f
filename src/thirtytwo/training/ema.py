"""Exponential moving average (EMA) of the weights, which is validated and becomes the model.

Lightning's own callback does not save the average in checkpoints with weights only, such as the best one.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn


class EMA(lightning.Callback):
    """Exponential moving average of a network's weights and running statistics, updated every step.

    The decay after n updates is the smaller of `decay` and (1 + n) / (10 + n), which discounts the first weights (as in
    TensorFlow's ExponentialMovingAverage). From the start of validation to the end of the epoch, the network contains
    the average, so that a checkpoint of the best epoch contains it too.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.average: dict[str, Tensor] = {}
        self._net, self._decay = net, decay
        self._updates = 0
        self._trained_weights: dict[str, Tensor] | None = None

    @property
    def state_key(self) -> str:
        """Key in checkpoints; a fixed name, so that checkpoints outlive changes of the class name."""
        return "Averaging"

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "updates": self._updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average, self._updates = state_dict["average"], state_dict["updates"]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.initialize()

    def initialize(self) -> None:
        """Start from the network's weights, or continue from those of a checkpoint."""
        weights = self._net.state_dict()
        start = self.average or weights
        self.average = {name: start[name].detach().to(value.device, copy=True) for name, value in weights.items()}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step > self._updates:  # not between accumulated batches
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network's weights; integers are copied."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        floats: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for name, value in self._net.state_dict().items():
            (floats if value.is_floating_point() else others).append((self.average[name], value))
        torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], 1 - decay)
        for mean, value in others:
            mean.copy_(value)
        self._updates += 1

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._trained_weights is None:
            self._trained_weights = {name: value.detach().clone() for name, value in self._net.state_dict().items()}
            self.copy_to_network()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._trained_weights is not None:
            self._net.load_state_dict(self._trained_weights)
            self._trained_weights = None

    def copy_to_network(self) -> None:
        """Copy the average to the network."""
        self._net.load_state_dict(self.average)
