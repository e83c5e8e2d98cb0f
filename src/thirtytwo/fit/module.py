"""How a network is trained: loss, optimiser, schedule and augmentation, as one LightningModule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.fast import cutout, flip_mask, mirrored, padded, resized, shifted
from thirtytwo.data.batches import Batches, generator_for, normalised
from thirtytwo.fit.optim import build_optimizer, rate_factor
from thirtytwo.models import Net
from thirtytwo.recipe import Recipe


class TrainingBatches(Batches):
    """Training images on the device, augmented a batch at a time as the recipe says.

    `pixels` uint8 `(N, H, W, 3)`, `labels` int64 `(N,)`. Gives normalised float `(B, 3, h, w)` and labels `(B,)`.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        recipe: Recipe,
        memory_format: torch.memory_format,
    ) -> None:
        super().__init__(len(labels), recipe.schedule.batch_size, recipe.seed, self._augmented)
        self.steps = len(self) * recipe.schedule.epochs
        self._pixels, self._labels = pixels, labels
        self._mean, self._std = mean, std
        self._recipe = recipe
        self._memory_format = memory_format
        flips = torch.rand(len(labels), generator=generator_for(recipe.seed, 0, "flip"))
        self._flip_first = (flips < 0.5).to(labels.device)

    def size_at(self, progress: float) -> int:
        """Side of the training images after the part `progress` of all steps."""
        full = int(self._pixels.shape[1])
        for stage in self._recipe.schedule.resolution:
            if progress < stage.until:
                return min(stage.size, full)
        return full

    def _augmented(self, positions: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        settings = self._recipe.augment
        positions = positions.to(self._labels.device)
        number = epoch * len(self) + step
        generator = generator_for(self.seed, number, "augment")
        images = normalised(self._pixels[positions], self._mean, self._std)
        images = mirrored(images, flip_mask(self._flip_first[positions], epoch, settings.flip, generator))
        images = shifted(padded(images, settings.translate), images.shape[-1], settings.translate, generator)
        images = cutout(images, settings.cutout, generator)
        images = resized(images, self.size_at(number / self.steps))
        return images.contiguous(memory_format=self._memory_format), self._labels[positions]


class Training(lightning.LightningModule):
    """One network in training; the network itself knows nothing of it."""

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        steps: int,
        *,
        compile_net: bool = False,
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.steps = steps
        self._arithmetic = arithmetic
        self._run_net = torch.compile(net) if compile_net else net
        self._stem_bias = net.parameter_groups().get("stem_bias", [])

    def configure_optimizers(self) -> Any:
        schedule = self.recipe.schedule
        optimizer = build_optimizer(
            self.net.parameter_groups(), self.recipe.optimizer, schedule.batch_size, self._arithmetic
        )
        factors: list[Callable[[int], float]] = [
            partial(self._factor, group["role"]) for group in optimizer.param_groups
        ]
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def _factor(self, role: str, step: int) -> float:
        return rate_factor(self.recipe.schedule, role, step, self.steps)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # a bias that no longer moves needs no gradient, and then nothing below it does
        moves = self.global_step < self.recipe.schedule.stem_bias_until * self.steps
        for bias in self._stem_bias:
            bias.requires_grad_(moves)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self._run_net(images).float()
        smoothing = self.recipe.train.label_smoothing
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
        return {
            "loss": loss,
            "mean_loss": loss.detach() / len(labels),
            "accuracy": (logits.argmax(dim=1) == labels).float().mean(),
        }
