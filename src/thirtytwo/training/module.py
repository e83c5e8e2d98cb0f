"""The training of a network as one LightningModule."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.models import Network
from thirtytwo.tensors import generator_for
from thirtytwo.training.batches import Batch, TrainingBatches
from thirtytwo.training.cuda_graphs import RecordedNetwork, can_record
from thirtytwo.training.freezing import trained_until
from thirtytwo.training.losses import Loss, distillation
from thirtytwo.training.optimizers import MuonSGD, build_optimizer
from thirtytwo.training.processes import current
from thirtytwo.training.sam import preserve_statistics, sam_closure
from thirtytwo.training.schedules import Plateau, lr_factor
from thirtytwo.training.strategy import ChangingDDP


class ClassifierModule(lightning.LightningModule):
    """Training step, optimizer and learning-rate schedule, validation metrics, and a random seed for each epoch."""

    def __init__(
        self,
        net: Network,
        recipe: Recipe,
        batches: int,
        *,
        loss_function: Loss | None = None,
        plateau: Plateau | None = None,
        scales: Mapping[nn.Parameter, float] | None = None,
        compile_net: bool = False,
        record: bool = False,
        arithmetic: torch.dtype = torch.float32,
    ) -> None:
        """Set up training.

        Args:
            net: the network.
            recipe: how it is trained.
            batches: number of batches in an epoch.
            loss_function: defaults to the recipe's loss without class weights.
            plateau: callback that scales learning rates, or None.
            scales: factors on the learning rates of single parameters, 1 by default.
            compile_net: whether to call `torch.compile`.
            record: whether to run steps as CUDA graphs, where the recipe and the network allow it.
            arithmetic: dtype of the optimizer's matrix products.
        """
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.steps = -(-batches // recipe.schedule.accumulate) * recipe.schedule.epochs
        self._batches = batches
        self._loss = loss_function or Loss(recipe.train)
        self.plateau = plateau
        self._scales = scales
        self._arithmetic = arithmetic
        self._record = record and can_record(recipe, net)
        self._train_net = self._trained_net(compile_net)
        self._trained_until = trained_until(net, recipe.schedule)
        self._step_metrics: dict[str, Tensor] | None = None
        self._images = 0
        self._class_counts: Tensor | None = None
        self._validation_sums: Tensor | float = 0.0
        self._restored_selection: dict[str, Tensor] | None = None

    def _trained_net(self, compile_net: bool) -> Callable[[Tensor], Tensor]:
        """What computes the logits of training batches; no module, as checkpoints would hold its parameters again."""
        if self._record:
            return RecordedNetwork(self.net)
        if compile_net:  # each size of the schedule by itself; PyTorch's default is one network for all but the first
            return partial(torch.compile(self.net, dynamic=False))
        return partial(self.net)

    def release_graphs(self) -> None:
        """Free the memory of CUDA graphs, if steps ran as such; Lightning's references would keep it."""
        if self._record:
            self._train_net = partial(self.net)
            for optimizer in self._trainer.optimizers if self._trainer is not None else []:
                if isinstance(optimizer, MuonSGD):
                    optimizer.release_graphs()
            gc.collect()  # older versions of PyTorch have references in circles

    def configure_optimizers(self) -> Any:
        schedule = self.recipe.schedule
        images = schedule.batch_size * schedule.accumulate
        roles = self.net.parameter_groups()
        settings, until = self.recipe.optimizer, self._trained_until
        optimizer = build_optimizer(roles, settings, images, self._arithmetic, self._scales, until, record=self._record)
        factors: list[Callable[[int], float]] = [
            partial(self._factor, group["role"], group["until"]) for group in optimizer.param_groups
        ]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, role: str, until: float, step: int) -> float:
        scale = self.plateau.scale if self.plateau else 1.0
        return scale * lr_factor(self.recipe.schedule, role, step, self.steps, until)

    @property
    def first_epochs(self) -> int:
        """Number of epochs, from the first, in which the same parameters are trained."""
        return self.recipe.schedule.epochs

    @property
    def first_lr_factor(self) -> float:
        """Factor on every learning rate in these epochs."""
        return 1.0

    def set_trainable(self, epoch: int) -> None:
        """Freeze the parameters that are frozen in `epoch`, unfreeze the others; without transfer none are frozen."""

    def on_train_epoch_start(self) -> None:
        batches = self.trainer.train_dataloader
        if isinstance(batches, TrainingBatches):
            batches.epoch = self.current_epoch
            if batches.selection is not None and self._restored_selection is not None:
                batches.selection.load_state_dict(self._restored_selection)
                self._restored_selection = None
        last = self.current_epoch + 1 == self.recipe.schedule.epochs
        self.trainer.check_val_every_n_epoch = 1 if last else self.recipe.train.validate_every
        # dropout uses torch's global generator: it is seeded each epoch, so that resuming is exact
        purpose = current().purpose("layers")
        torch.manual_seed(generator_for(self.recipe.seed, self.current_epoch, purpose).initial_seed())
        self.set_trainable(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.freeze_stopped(self.global_step)
        self.start_step(batch)

    def freeze_stopped(self, step: int) -> None:
        """Freeze the parameters that stop before `step`: without gradients, the layers below them need none either."""
        for parameter, until in self._trained_until.items():
            parameter.requires_grad_(step < until * self.steps)

    def start_step(self, batch: Batch) -> None:
        """Prepare a step whose trained parameters are known."""
        self.reset_step_metrics()
        if self._trainer is not None and isinstance(self._trainer.strategy, ChangingDDP):
            self._trainer.strategy.follow_trainable(partial(self._has_unused, batch[0]))

    def _has_unused(self, images: Tensor) -> bool:
        """Whether some trained parameter has no influence on the logits of a training batch."""
        trained = [one for one in self.net.parameters() if one.requires_grad]
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices), preserve_statistics(self.net):
            logits = self.training_logits(images)
        return any(one is None for one in torch.autograd.grad(logits.sum(), trained, allow_unused=True))

    def reset_step_metrics(self) -> None:
        """Clear the metrics of the previous batch; loss and accuracy are those of the first pass over a batch."""
        self._step_metrics = None

    def training_logits(self, images: Tensor) -> Tensor:
        """Logits `(B, C)` of a training batch."""
        return self._train_net(images)

    def validation_logits(self, images: Tensor, batch: int) -> Tensor:
        """Logits `(B, C)` of validation batch number `batch`."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        images, labels, *taught = batch
        logits = self.training_logits(images).float()
        loss = self._loss(logits, labels)
        if taught:
            settings = self.recipe.train.distill
            distilled = distillation(logits, taught[0], settings.temperature)
            loss = (1 - settings.weight) * loss + settings.weight * distilled
        if self._step_metrics is None:  # SAM's second pass uses perturbed weights, whose metrics mean nothing
            accuracy = (logits.argmax(dim=1) == hard_labels(labels)).float().mean()
            self._step_metrics = {"mean_loss": loss.detach() / len(labels), "accuracy": accuracy}
            if (batches := self._training_batches) is not None:
                batches.record_losses(logits.detach(), labels)
        accumulate = self.recipe.schedule.accumulate
        first = batch_idx - batch_idx % accumulate
        self._images = current().world_size * len(labels) * min(accumulate, self._batches - first)
        # Lightning divides by `accumulate` after this, and the gradients are averaged over the processes
        share = float(accumulate * current().world_size)
        if not self.recipe.optimizer.per_image:
            share /= self._images
        return {"loss": loss * share, **self._step_metrics}

    @property
    def _training_batches(self) -> TrainingBatches | None:
        batches = self._trainer.train_dataloader if self._trainer is not None else None
        return batches if isinstance(batches, TrainingBatches) else None

    def on_train_epoch_end(self) -> None:
        if (batches := self._training_batches) is not None and batches.selection is not None:
            batches.selection.exchange()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if (batches := self._training_batches) is not None and batches.selection is not None:
            checkpoint["selection"] = batches.selection.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._restored_selection = checkpoint.get("selection")
        weights = checkpoint["state_dict"]
        for name in [name for name in weights if name.startswith("_run_net.")]:  # of versions before 2026-12
            del weights[name]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        max_norm = self.recipe.train.clip
        if max_norm:
            summed = self._images if self.recipe.optimizer.per_image else 1
            if self._scales_loss:
                self.clip_gradients(optimizer, max_norm * summed, "norm")
                return
            # Lightning refuses to clip for fused optimizers under any mixed precision, but bfloat16 scales no loss.
            nn.utils.clip_grad_norm_(
                [param for group in optimizer.param_groups for param in group["params"]], max_norm * summed
            )

    @property
    def _scales_loss(self) -> bool:
        """Whether gradients are scaled, as for float16."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        rho = self.recipe.optimizer.sam
        if rho and optimizer_closure is not None:
            optimizer_closure = sam_closure(optimizer_closure, self.net, rho)
        optimizer.step(closure=optimizer_closure)
        current().average_statistics(self.net)

    def on_validation_epoch_start(self) -> None:
        self._class_counts, self._validation_sums = None, 0.0

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.validation_logits(images, batch_idx).float()
        predicted = logits.argmax(dim=1)
        accuracy = (predicted == labels).float().mean()
        width = logits.shape[1]
        top5 = logits.topk(min(5, width), dim=1).indices.eq(labels[:, None]).any(dim=1).float().mean()
        means = torch.stack([F.cross_entropy(logits, labels), accuracy, top5, torch.ones_like(top5)])
        self._validation_sums = len(labels) * means + self._validation_sums
        counts = [torch.bincount(part, minlength=width) for part in (labels, predicted, labels[predicted == labels])]
        self._class_counts = torch.stack(counts) + (0 if self._class_counts is None else self._class_counts)  # (3, C)

    def on_validation_epoch_end(self) -> None:
        if self._class_counts is None or not isinstance(self._validation_sums, Tensor):
            return
        *sums, images = current().total(self._validation_sums)
        found = {name: value / images for name, value in zip(("loss", "accuracy", "top5_accuracy"), sums, strict=True)}
        found |= macro_metrics(*current().total(self._class_counts))
        for name, value in found.items():
            self.log(f"val_{name}", value, logger=False)


def hard_labels(labels: Tensor) -> Tensor:
    """Class index of each image, int64 `(B,)`; for soft labels `(B, C)` the class with the largest share."""
    return labels.argmax(dim=1) if labels.is_floating_point() else labels


def macro_metrics(support: Tensor, predicted: Tensor, hits: Tensor) -> dict[str, Tensor]:
    """Macro-averaged F1, precision and recall over classes that occur or are predicted.

    Precision of a class that is never predicted is 0, as is recall of a class without images.

    Args:
        support: int64 `(C,)`, number of images of each class.
        predicted: int64 `(C,)`, number of images predicted as each class.
        hits: int64 `(C,)`, number of correct predictions of each class.
    """
    present = (support + predicted) > 0
    support, predicted, hits = (part[present].float() for part in (support, predicted, hits))
    return {
        "macro_f1": (2 * hits / (support + predicted)).mean(),
        "macro_precision": (hits / predicted.clamp(min=1)).mean(),
        "macro_recall": (hits / support.clamp(min=1)).mean(),
    }
