"""How a network is trained, as one LightningModule; the network itself knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.batches import generator_for
from thirtytwo.models import Net
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.distillation import Teacher
from thirtytwo.training.losses import Loss, distillation
from thirtytwo.training.optimizers import build_optimizer
from thirtytwo.training.sam import sam_closure
from thirtytwo.training.schedules import Plateau, lr_factor


class Loop(lightning.LightningModule):
    """Loss, steps, rates, a look at validation, and a seed for each epoch."""

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        batches: int,
        *,
        loss_function: Loss | None = None,
        teacher: Teacher | None = None,
        plateau: Plateau | None = None,
        scales: Mapping[nn.Parameter, float] | None = None,
        compile_net: bool = False,
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        """`batches` is how many there are in an epoch; `scales` is a factor on the rate of single parameters."""
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.steps = -(-batches // recipe.schedule.accumulate) * recipe.schedule.epochs
        self._batches = batches
        self._loss = loss_function or Loss(recipe.train)
        self.plateau = plateau
        self._teacher, self._scales = teacher, scales
        self._arithmetic = arithmetic
        self._run_net = torch.compile(net) if compile_net else net
        self._stem_bias = net.parameter_groups().get("stem_bias", [])
        self._step_metrics: dict[str, Tensor] | None = None
        self._images = 0
        self._class_counts: Tensor | None = None

    def configure_optimizers(self) -> Any:
        schedule = self.recipe.schedule
        images = schedule.batch_size * schedule.accumulate
        roles = self.net.parameter_groups()
        optimizer = build_optimizer(roles, self.recipe.optimizer, images, self._arithmetic, self._scales)
        factors: list[Callable[[int], float]] = [
            partial(self._factor, group["role"]) for group in optimizer.param_groups
        ]
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def _factor(self, role: str, step: int) -> float:
        scale = self.plateau.scale if self.plateau else 1.0
        return scale * lr_factor(self.recipe.schedule, role, step, self.steps)

    @property
    def first_epochs(self) -> int:
        """In how many epochs, from the first on, the same part of the network is trained."""
        return self.recipe.schedule.epochs

    @property
    def first_lr_factor(self) -> float:
        """What every rate is multiplied with in these epochs."""
        return 1.0

    def set_trainable(self, epoch: int) -> None:
        """Freeze what is frozen in `epoch`, and nothing else: here nothing ever is."""

    def on_train_epoch_start(self) -> None:
        batches = self.trainer.train_dataloader
        if isinstance(batches, TrainingBatches):
            batches.epoch = self.current_epoch
        last = self.current_epoch + 1 == self.recipe.schedule.epochs
        self.trainer.check_val_every_n_epoch = 1 if last else self.recipe.train.validate_every
        # dropout and the like draw from torch's own generator: fixed an epoch at a time, so that resuming is exact
        torch.manual_seed(generator_for(self.recipe.seed, self.current_epoch, "layers").initial_seed())
        self.set_trainable(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # a bias that no longer moves needs no gradient, and then nothing below it does
        moves = self.global_step < self.recipe.schedule.stem_bias_until * self.steps
        for bias in self._stem_bias:
            bias.requires_grad_(moves)
        self.reset_step_metrics()

    def reset_step_metrics(self) -> None:
        """Forget the batch before: loss and accuracy are told of the first pass over a batch."""
        self._step_metrics = None

    def training_logits(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of a training batch."""
        logits: Tensor = self._run_net(images)
        return logits

    def validation_logits(self, images: Tensor, batch: int) -> Tensor:
        """Logits `(B, C)` of the validation batch of this number."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        images, labels = batch
        logits = self.training_logits(images).float()
        loss = self._loss(logits, labels)
        if self._teacher is not None:
            taught = self.recipe.train.distill
            apart = distillation(logits, self._teacher.logits(images), taught.temperature)
            loss = (1 - taught.weight) * loss + taught.weight * apart
        if self._step_metrics is None:  # a second pass over the batch is made from weights that nobody has
            right = (logits.argmax(dim=1) == hard_labels(labels)).float().mean()
            self._step_metrics = {"mean_loss": loss.detach() / len(labels), "accuracy": right}
        accumulate = self.recipe.schedule.accumulate
        first = batch_idx - batch_idx % accumulate
        self._images = len(labels) * min(accumulate, self._batches - first)
        # Lightning divides by `accumulate` after this
        share = accumulate if self.recipe.optimizer.per_picture else accumulate / self._images
        return {"loss": loss * share, **self._step_metrics}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        longest = self.recipe.train.clip
        if longest:
            summed = self._images if self.recipe.optimizer.per_picture else 1
            self.clip_gradients(optimizer, longest * summed, "norm")

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        rho = self.recipe.optimizer.sam
        if rho and optimizer_closure is not None:
            optimizer_closure = sam_closure(optimizer_closure, self.net, rho)
        optimizer.step(closure=optimizer_closure)

    def on_validation_epoch_start(self) -> None:
        self._class_counts = None

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.validation_logits(images, batch_idx).float()
        predicted = logits.argmax(dim=1)
        right = (predicted == labels).float().mean()
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels), logger=False)
        self.log("val_accuracy", right, batch_size=len(labels), logger=False)
        width = logits.shape[1]
        near = logits.topk(min(5, width), dim=1).indices.eq(labels[:, None]).any(dim=1).float().mean()
        self.log("val_top5_accuracy", near, batch_size=len(labels), logger=False)
        counts = [torch.bincount(part, minlength=width) for part in (labels, predicted, labels[predicted == labels])]
        self._class_counts = torch.stack(counts) + (0 if self._class_counts is None else self._class_counts)  # (3, C)

    def on_validation_epoch_end(self) -> None:
        if self._class_counts is not None:
            for name, value in macro_metrics(*self._class_counts).items():
                self.log(f"val_{name}", value, logger=False)


def hard_labels(labels: Tensor) -> Tensor:
    """The class of each image, int64 `(B,)`; of soft labels `(B, C)` the one with the largest share."""
    return labels.argmax(dim=1) if labels.is_floating_point() else labels


def macro_metrics(support: Tensor, predicted: Tensor, hits: Tensor) -> dict[str, Tensor]:
    """Mean F1, precision and recall over the classes there are, from each one's images, calls and right calls.

    All int64 `(C,)`. Precision of a class that is never called is 0, as is recall of one without images.
    """
    present = (support + predicted) > 0
    support, predicted, hits = (part[present].float() for part in (support, predicted, hits))
    return {
        "macro_f1": (2 * hits / (support + predicted)).mean(),
        "macro_precision": (hits / predicted.clamp(min=1)).mean(),
        "macro_recall": (hits / support.clamp(min=1)).mean(),
    }
