"""Batches of augmented training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.augmenter import Augmenter, mix, uses_mixing
from thirtytwo.augment.geometry import resized
from thirtytwo.config.recipe import Recipe, SelectionSettings
from thirtytwo.data.arrays import Rows
from thirtytwo.data.channels import channel_statistics
from thirtytwo.data.types import ImageSet
from thirtytwo.tensors import as_tensor, generator_for, send, to_device
from thirtytwo.training.distillation import Teacher
from thirtytwo.training.processes import current

Batch = tuple[Tensor, ...]
"""Images, their labels, and the logits of the teacher where there is one."""


class Selection:
    """Draws each epoch from the images whose loss was highest when they were last trained on.

    After the selective backpropagation of A. Jiang et al. (arXiv 1910.00762), with losses of earlier steps, which cost
    no forward pass, and a share of other images, without which easy ones would be forgotten.

    Args:
        settings: the recipe's `train.selection`.
        count: number of training images N.
    """

    def __init__(self, settings: SelectionSettings, count: int, device: torch.device) -> None:
        self._settings = settings
        self._losses = torch.full((count,), math.inf, device=device)  # images not yet seen come first
        self._new = torch.zeros(count, dtype=torch.bool, device=device)

    def record(self, positions: Tensor, losses: Tensor) -> None:
        """Keep `losses` float `(B,)` of the images at `positions` int64 `(B,)`."""
        positions = send(positions, self._losses.device)
        self._losses[positions] = losses.float()
        self._new[positions] = True

    def exchange(self) -> None:
        """Give all processes the losses that each recorded since the last exchange; repeated images get the mean."""
        if not current().several:
            return
        sums = torch.where(self._new, self._losses, torch.zeros_like(self._losses))
        total, count = current().total(torch.stack([sums, self._new.float()]))
        self._losses = torch.where(count > 0, total / count.clamp(min=1), self._losses)
        self._new.zero_()

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        """Positions of the images of an epoch, int64 `(N,)` on the CPU; selected images are repeated."""
        count = len(self._losses)
        if epoch < self._settings.start:
            return torch.randperm(count, generator=generator)
        kept = max(1, round(count * self._settings.share))
        ranked = self._losses.argsort(descending=True, stable=True).cpu()
        hardest = max(1, round(kept * (1 - self._settings.random)))
        others = ranked[hardest:]
        drawn = others[torch.randperm(len(others), generator=generator)[: kept - hardest]]
        chosen = torch.cat([ranked[:hardest], drawn])
        passes = [chosen[torch.randperm(len(chosen), generator=generator)] for _ in range(-(-count // len(chosen)))]
        return torch.cat(passes)[:count]

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": self._losses}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._losses.copy_(state["losses"])


class Batches:
    """Iterable over the batches of one epoch; the order depends only on `seed` and `epoch`.

    Each image is used once; where `chances` float `(N,)` are set, as many images are sampled with replacement, with
    these weights; where `selection` is set, it chooses them. Of several processes, each takes its share of every batch.
    `positions` int64 `(B,)` are those of the last batch of this process.

    Args:
        count: number of training images N.
        batch_size: images per batch over all processes; the incomplete last batch is dropped.
        seed: seed of the order.
        make: returns the batch for `(positions int64 (B,), epoch, step within the epoch)`.
    """

    def __init__(self, count: int, batch_size: int, seed: int, make: Callable[[Tensor, int, int], Batch]) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.seed = seed
        self.epoch = 0
        self.chances: Tensor | None = None
        self.selection: Selection | None = None
        self.positions = torch.empty(0, dtype=torch.int64)
        self._make = make

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        order = self._order(generator_for(self.seed, epoch, "order"))
        for step in range(len(self)):
            self.positions = current().share_of(order[step * self.batch_size : (step + 1) * self.batch_size])
            yield self._make(self.positions, epoch, step)

    def record_losses(self, logits: Tensor, labels: Tensor) -> None:
        """Keep the loss of each image of the last batch, where `selection` chooses images by it.

        `logits` float `(B, C)`; `labels` int64 `(B,)` or class shares float `(B, C)`.
        """
        if self.selection is not None:
            self.selection.record(self.positions, F.cross_entropy(logits, labels, reduction="none"))

    def _order(self, generator: torch.Generator) -> Tensor:
        if self.selection is not None:
            return self.selection.order(self.epoch, generator)
        if self.chances is None:
            return torch.randperm(self.count, generator=generator)
        return torch.multinomial(self.chances, self.count, replacement=True, generator=generator)


class TrainingBatches(Batches):
    """Training images on the device, augmented batch by batch.

    `pixels` uint8 `(N, S, S, 3)`, `labels` int64 `(N,)`; `large` are the same images with more pixels, which are read
    batch by batch where `augment.crop` crops them; `classes` are the class names, needed for MixUp, CutMix and
    `augment.classes`. Yields normalized float `(B, 3, h, w)` and labels int64 `(B,)`; with MixUp or CutMix, targets
    float32 `(B, C)` whose rows sum to 1 instead of labels; with a `teacher`, also its logits float32 `(B, C)` for the
    same augmented images. The teacher always gets them at full size, also while the student trains on smaller
    ones: a network is less accurate at another size than the one that its training ended with.
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
        large: Rows | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(len(labels), recipe.schedule.batch_size, recipe.seed, self.batch)
        self.steps = len(self) * recipe.schedule.epochs
        if recipe.train.selection.share < 1:
            self.selection = Selection(recipe.train.selection, len(labels), labels.device)
        self._pixels, self._labels = pixels, labels
        self._large = large if recipe.augment.crops else None
        self._recipe = recipe
        self._memory_format = memory_format
        self._teacher = teacher
        self._classes = len(classes)
        self._augment = Augmenter(recipe.augment, mean, std, classes or None)
        self._tables = self._augment.lookup_tables(labels)
        self._mixes = uses_mixing(recipe.augment)
        if self._mixes and not classes:
            raise ValueError("MixUp and CutMix need the names of all classes")
        flips = torch.rand(len(labels), generator=generator_for(recipe.seed, 0, "flip"))
        self._flip_first = (flips < 0.5).to(labels.device)

    @property
    def cached_epochs(self) -> int:
        """Number of epochs, from the first, on features that the first batch computes; later batches reuse them."""
        return 0

    def size_at(self, progress: float) -> int:
        """Side of the training images, in pixels, after the fraction `progress` of all steps."""
        return self._recipe.schedule.size_at(progress, int(self._pixels.shape[1]))

    def batch(self, positions: Tensor, epoch: int, step: int) -> Batch:
        """The batch of the images at `positions` int64 `(B,)`, which is on the CPU; deterministic for each step.

        Of several processes, each draws other random numbers.
        """
        number = epoch * len(self) + step
        draw = partial(_draw, self.seed, number)
        tables = None if self._tables is None else self._tables[positions]
        read = None if self._large is None else as_tensor(self._large.read(positions.numpy()))
        positions = send(positions, self._labels.device)
        pixels = self._pixels[positions] if read is None else send(read, self._labels.device)
        size = int(self._pixels.shape[1])
        small = self.size_at(number / self.steps)
        shown = small if self._teacher is None else size
        images = self._augment(pixels, self._flip_first[positions], tables, epoch, draw, size, shown)
        labels = self._labels[positions]
        if self._mixes:
            images, labels = mix(images, labels, self._classes, self._recipe.augment, draw("mix"))
        taught = () if self._teacher is None else (self._teacher.logits(images),)
        return resized(images, small).contiguous(memory_format=self._memory_format), labels, *taught


def _draw(seed: int, number: int, purpose: str) -> torch.Generator:
    """The generator of one purpose in step `number` of this process."""
    return generator_for(seed, number, current().purpose(purpose))


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


def augment_samples(recipe: Recipe, images: ImageSet, rows: int = 12, passes: int = 8) -> Samples:
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
    layout = torch.contiguous_format
    batches = TrainingBatches(pixels, labels, mean, std, recipe, layout, images.classes, chosen.large)
    augmented, targets = [], []
    for number in range(passes):
        batch, target, *_ = batches.batch(torch.arange(len(labels)), recipe.schedule.epochs + number, 0)
        levels = (batch.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)) * 255
        augmented.append(levels.round().clamp(0, 255).to(torch.uint8).numpy())
        soft = target if target.is_floating_point() else F.one_hot(target, len(images.classes)).float()
        targets.append(soft.numpy())
    return Samples(chosen.images, np.stack(augmented, axis=1), np.stack(targets, axis=1), chosen.labels)
