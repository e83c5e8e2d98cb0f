"""Batches of augmented training images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from thirtytwo.augment.augmenter import Augmenter
from thirtytwo.augment.fast import resized
from thirtytwo.augment.mixup import mixed, mixes
from thirtytwo.config.recipe import Recipe
from thirtytwo.data.batches import Batches, generator_for


class TrainingBatches(Batches):
    """Training images on the device, augmented batch by batch.

    `pixels` uint8 `(N, H, W, 3)`, `labels` int64 `(N,)`; `classes` are the class names, needed for MixUp, CutMix and
    `augment.classes`. Yields normalized float `(B, 3, h, w)` and labels int64 `(B,)`; with MixUp or CutMix, targets
    float32 `(B, C)` whose rows sum to 1 instead of labels.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        recipe: Recipe,
        memory_format: torch.memory_format,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(len(labels), recipe.schedule.batch_size, recipe.seed, self.batch)
        self.steps = len(self) * recipe.schedule.epochs
        self._pixels, self._labels = pixels, labels
        self._recipe = recipe
        self._memory_format = memory_format
        self._classes = len(classes)
        self._augment = Augmenter(recipe.augment, mean, std, classes or None)
        self._tables = self._augment.lookup_tables(labels)
        self._mixes = mixes(recipe.augment)
        if self._mixes and not classes:
            raise ValueError("MixUp and CutMix need the names of all classes")
        flips = torch.rand(len(labels), generator=generator_for(recipe.seed, 0, "flip"))
        self._flip_first = (flips < 0.5).to(labels.device)

    def size_at(self, progress: float) -> int:
        """Side of the training images, in pixels, after the fraction `progress` of all steps."""
        full = int(self._pixels.shape[1])
        for stage in self._recipe.schedule.resolution:
            if progress < stage.until:
                return min(stage.size, full)
        return full

    def batch(self, positions: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images and labels at `positions` int64 `(B,)`, which is on the CPU; deterministic for each step."""
        number = epoch * len(self) + step
        draw = partial(generator_for, self.seed, number)
        tables = None if self._tables is None else self._tables[positions]
        positions = positions.to(self._labels.device)
        images = self._augment(self._pixels[positions], self._flip_first[positions], tables, epoch, draw)
        images = resized(images, self.size_at(number / self.steps))
        labels = self._labels[positions]
        if self._mixes:
            images, labels = mixed(images, labels, self._classes, self._recipe.augment, draw("mix"))
        return images.contiguous(memory_format=self._memory_format), labels
