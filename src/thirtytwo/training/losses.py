"""What is made small: cross-entropy and its kin for whole and soft labels, and what a teacher adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.errors import RecipeError, did_you_mean


class Loss:
    """The loss of a batch against its labels, summed over its images."""

    def __init__(self, settings: TrainSettings, weights: Tensor | None = None) -> None:
        """`weights` float `(C,)` is how much an image of each class counts."""
        self._smoothing, self._focal = settings.label_smoothing, settings.focal
        self._weights = weights

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of `logits` float `(B, C)` against `labels`, int64 `(B,)` or shares of classes float `(B, C)`.

        An image counts as its class says, a mixed one by its shares. Smoothing moves a part of that to all classes
        alike: torch's would weigh what it moves by the classes it goes to, and rare ones would be called everywhere.
        The focal loss then weighs each class's term by (1 - p)^γ (Lin et al., arXiv 1708.02002).
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
            # the slope of 0^γ is infinite for γ < 1
            terms = terms * (-torch.expm1(logs)).clamp(min=1e-6) ** self._focal
        return terms.sum()


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """How far a student is from its teacher, summed over the batch; both logits float `(B, C)`.

    Kullback-Leibler divergence of softened probabilities times the squared temperature, so that its gradients keep
    their size (Hinton et al., arXiv 1503.02531).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(taught / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2


def class_weights(
    wanted: Literal["none", "balanced"] | Mapping[str, float], counts: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> Tensor | None:
    """How much an image of each class counts, float32 `(C,)`; None where all count the same.

    `counts` int64 `(C,)` are the training images of each class. `balanced` as scikit-learn has it: N / (C · count),
    which is 1 on average over the images.

    Raises:
        RecipeError: a class that there is not.
    """
    if wanted == "none":
        return None
    if isinstance(wanted, str):
        return torch.from_numpy(counts.sum() / (len(classes) * np.maximum(counts, 1))).float()
    unknown = [name for name in wanted if name not in classes]
    if unknown:
        raise RecipeError(
            f"train.class_weights names {unknown[0]!r}, which is none of the {len(classes)} classes.",
            did_you_mean(unknown[0], classes),
        )
    return torch.tensor([float(wanted.get(name, 1.0)) for name in classes])


def sampling_weights(labels: Tensor, classes: int) -> Tensor:
    """How likely each row is drawn, float64 `(N,)`, so that every class is as likely; `labels` int64 `(N,)`."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    return (1.0 / counts.double().clamp(min=1))[labels.cpu()]
