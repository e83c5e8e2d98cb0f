"""Losses: cross-entropy and focal loss for hard and soft labels, and the distillation loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.config.settings import Choice
from thirtytwo.errors import RecipeError, did_you_mean


class Loss:
    """Cross-entropy or focal loss, summed over the images of a batch."""

    def __init__(self, settings: TrainSettings, weights: Tensor | None = None) -> None:
        """`weights` float `(C,)` are the class weights, or None."""
        self._smoothing, self._focal = settings.label_smoothing, settings.focal
        self._weights = weights

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of `logits` float `(B, C)` against `labels`, int64 `(B,)` or class shares float `(B, C)`.

        An image has the weight of its class, a mixed one that of its shares. Label smoothing spreads this weight evenly
        over all classes. (torch's version weights the smoothed part by the class it goes to, so that rare classes are
        predicted too often.) The focal loss multiplies each class's term by (1 - p)^γ (Lin et al., arXiv 1708.02002).
        """
        if not self._focal and self._weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing, reduction="sum")
        targets = labels if labels.is_floating_point() else F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        if self._weights is not None:
            targets = targets * self._weights
        spread = targets.sum(dim=1, keepdim=True) / logits.shape[1]  # (B, 1)
        targets = (1 - self._smoothing) * targets + self._smoothing * spread
        logs = F.log_softmax(logits, dim=1)
        terms = targets * -logs  # (B, C)
        if self._focal:
            # the derivative of 0^γ is infinite for γ < 1
            terms = terms * (-torch.expm1(logs)).clamp(min=1e-6) ** self._focal
        return terms.sum()


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Distillation loss, summed over the batch; both logits are float `(B, C)`.

    Kullback-Leibler divergence of softened probabilities times the squared temperature, which keeps the size of the
    gradients independent of it (Hinton et al., arXiv 1503.02531).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2


IMBALANCED = 10.0
"""Ratio of the largest class to the smallest from which `class_weights = "auto"` balances the loss."""


def resolve_class_weights(
    wanted: Literal["auto", "none", "balanced"] | Mapping[str, float],
    counts: npt.NDArray[np.int64],
    sampler: Literal["shuffle", "balanced"] = "shuffle",
) -> Choice | None:
    """The choice of `none` or `balanced` where class weights are `auto`; None otherwise.

    `counts` int64 `(C,)` are the numbers of training images of each class; `sampler` is the recipe's `train.sampler`,
    of which `balanced` makes up for different numbers by itself.
    """
    if wanted != "auto":
        return None
    if sampler == "balanced":
        return Choice("class weights", "none", "train.sampler is 'balanced', so every class is equally likely")
    smallest, largest = int(counts.min()), int(counts.max())
    balanced = largest >= IMBALANCED * smallest
    reason = f"the classes have {smallest:,} to {largest:,} training images"
    return Choice("class weights", "balanced" if balanced else "none", reason)


def class_weights(
    wanted: Literal["auto", "none", "balanced"] | Mapping[str, float],
    counts: npt.NDArray[np.int64],
    classes: tuple[str, ...],
    sampler: Literal["shuffle", "balanced"] = "shuffle",
) -> Tensor | None:
    """Class weights float32 `(C,)` for the loss; None if all are equal.

    Args:
        wanted: `none`, `balanced`, `auto` (see `resolve_class_weights`) or weights by class name (1 for classes not
            named). `balanced` is N / (C · count), as in scikit-learn, which is 1 on average over the images.
        counts: int64 `(C,)`, number of training images of each class.
        classes: class names.
        sampler: the recipe's `train.sampler`.

    Raises:
        RecipeError: `wanted` names a class that the data do not have.
    """
    choice = resolve_class_weights(wanted, counts, sampler)
    if (choice.value if choice else wanted) == "none":
        return None
    if isinstance(wanted, str):
        return torch.from_numpy(counts.sum() / (len(classes) * np.maximum(counts, 1))).float()
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise RecipeError(
            f"train.class_weights names {unknown[0]!r}, which is not one of the {len(classes)} classes.",
            did_you_mean(unknown[0], classes),
        )
    return torch.tensor([float(wanted.get(name, 1.0)) for name in classes])


def sampling_weights(labels: Tensor, classes: int) -> Tensor:
    """Sampling weight of each image, float64 `(N,)`, so that all classes are equally likely; `labels` int64 `(N,)`."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    return (1.0 / counts.double().clamp(min=1))[labels.cpu()]
