"""Samples of augmented training images, for the report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.batches import channel_statistics, to_device
from thirtytwo.data.types import ImageSet
from thirtytwo.training.batches import TrainingBatches


@dataclass(frozen=True)
class Samples:
    """Images before and after augmentation.

    `originals` uint8 `(R, H, W, 3)`; `augmented` uint8 `(R, K, H, W, 3)`, K versions of each; `targets` float32
    `(R, K, C)`, the class shares used as training targets; `labels` int64 `(R,)`.
    """

    originals: npt.NDArray[np.uint8]
    augmented: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


def draw_samples(recipe: Recipe, images: ImageSet, rows: int = 12, passes: int = 8) -> Samples:
    """Augment one training image of each of the first classes several times, at full size.

    Classes listed in `augment.classes` come first. MixUp and CutMix mix these images with each other.

    Args:
        recipe: the augmentation and the seed.
        images: training images.
        rows: largest number of classes.
        passes: number of augmented versions of each image.

    Raises:
        UnknownNameError: the recipe names an augmentation that is not registered.
        RecipeError: the recipe names a class that the data do not have.
    """
    rng = np.random.default_rng(recipe.seed)
    special = [index for index, name in enumerate(images.classes) if name in recipe.augment.classes]
    order = [*special, *(index for index in range(len(images.classes)) if index not in special)]
    members = [np.flatnonzero(images.labels == index) for index in order]
    chosen = images.take(np.array([rng.choice(found) for found in members if len(found)][:rows], dtype=np.int64))
    mean, std = channel_statistics(images.images)
    pixels, labels = to_device(chosen, torch.device("cpu"))
    batches = TrainingBatches(pixels, labels, mean, std, recipe, torch.contiguous_format, images.classes)
    augmented, targets = [], []
    for number in range(passes):
        batch, target = batches.batch(torch.arange(len(labels)), recipe.schedule.epochs + number, 0)
        levels = (batch.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)) * 255
        augmented.append(levels.round().clamp(0, 255).to(torch.uint8).numpy())
        soft = target if target.is_floating_point() else F.one_hot(target, len(images.classes)).float()
        targets.append(soft.numpy())
    return Samples(chosen.images, np.stack(augmented, axis=1), np.stack(targets, axis=1), chosen.labels)
