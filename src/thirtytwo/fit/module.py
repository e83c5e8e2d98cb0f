"""The training pictures, augmented a batch at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.fast import cutout, flip_mask, mirrored, padded, resized, shifted
from thirtytwo.data.batches import Batches, generator_for, normalised
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
