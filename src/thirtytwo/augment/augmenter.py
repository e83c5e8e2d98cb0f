"""Augmentation of single images as a recipe describes it, from stored pixels to normalized batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment import color
from thirtytwo.augment.geometry import (
    affine_matrices,
    composed,
    crop_matrices,
    cutout,
    flip_mask,
    mirrored,
    padded,
    resized,
    scaling_matrices,
    shifted,
    warp,
)
from thirtytwo.augment.operations import AUGMENTATIONS, Terms
from thirtytwo.config.augmentation import AugmentSettings, ImageSettings
from thirtytwo.errors import RecipeError, did_you_mean
from thirtytwo.tensors import beta, normalize, send

ERASE_AREA = (0.02, 0.33)
"""Smallest and largest share of the image that random erasing covers."""
ERASE_ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest aspect ratio of the erased rectangle."""
Draw = Callable[[str], torch.Generator]
"""From a purpose to a fresh CPU generator; a batch that is built again gets generators in the same state."""


def check_augment(settings: AugmentSettings, classes: Sequence[str] | None = None) -> None:
    """Check that every policy is registered and every `augment.classes` table names one of `classes`.

    Args:
        settings: the recipe's `[augment]`.
        classes: names of the data's classes; None while they are unknown, which skips their check.

    Raises:
        UnknownNameError: a policy is not registered; offers close matches.
        RecipeError: a table names a class that the data do not have.
    """
    for table in (settings, *settings.classes.values()):
        for name in table.policies:
            AUGMENTATIONS.get(name)
    for name in settings.classes:
        if classes is not None and name not in classes:
            raise RecipeError(
                f"Recipe: 'augment.classes.{name}' is not a class of the data.", did_you_mean(name, classes)
            )


class Augmenter:
    """Augments images by `[augment]`, and those of a class listed in `augment.classes` by that class's settings."""

    def __init__(
        self,
        settings: AugmentSettings,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        classes: Sequence[str] | None = None,
    ) -> None:
        check_augment(settings, classes)
        self._tables = [(name, settings.of_class(name)) for name in (None, *settings.classes)]
        self._class_indices = [list(classes or ()).index(name) for name in settings.classes] if classes else []
        if settings.classes and not classes:
            raise ValueError("augment.classes needs the names of all classes")
        self._mean, self._std = mean, std

    def lookup_tables(self, labels: Tensor) -> Tensor | None:
        """Index of the settings table of each of `labels` int64 `(N,)`, on the CPU; None if there is only one table."""
        if not self._class_indices:
            return None
        tables = torch.zeros(len(labels), dtype=torch.long)
        for number, class_index in enumerate(self._class_indices, start=1):
            tables[labels.cpu() == class_index] = number
        return tables

    def __call__(
        self,
        pixels: Tensor,
        first: Tensor,
        tables: Tensor | None,
        epoch: int,
        draw: Draw,
        size: int | None = None,
        small: int | None = None,
    ) -> Tensor:
        """Augment and normalize a batch.

        Args:
            pixels: uint8 `(B, L, L, 3)`.
            first: bool `(B,)`, as for `flip_mask`.
            tables: int64 `(B,)` from `lookup_tables`, or None.
            epoch: number of the epoch, from 0.
            draw: gives the generator of each purpose.
            size: side in pixels at which images are augmented, where it is not that of `pixels`.
            small: side S of the result in pixels, if it is smaller; by default S is `size`.

        Returns:
            Normalized float `(B, 3, S, S)`.
        """
        size = size or int(pixels.shape[1])
        sides = (size, small or size)
        if tables is None:
            return self._augment_with(pixels, first, epoch, draw, sides, *self._tables[0])
        shape = (len(pixels), 3, sides[1], sides[1])
        out = torch.empty(shape, device=pixels.device, memory_format=torch.channels_last)
        for number, (name, table) in enumerate(self._tables):
            indices = (tables == number).nonzero().flatten()
            if len(indices):
                indices = send(indices, pixels.device)
                out[indices] = self._augment_with(pixels[indices], first[indices], epoch, draw, sides, name, table)
        return out

    def _augment_with(
        self,
        pixels: Tensor,
        first: Tensor,
        epoch: int,
        draw: Draw,
        sides: tuple[int, int],
        name: str | None,
        table: ImageSettings,
    ) -> Tensor:
        size, small = sides
        suffix = "" if name is None else f" {name}"
        changed = self._transform_pixels(pixels.permute(0, 3, 1, 2), size, table, draw("pixels" + suffix))
        if not (table.translate or table.cutout):  # their lengths are pixels of the full size
            changed = resized(changed, small)
        generator = draw("augment" + suffix)
        changed = mirrored(changed, flip_mask(first, epoch, table.flip, generator))
        images = normalize(changed.permute(0, 2, 3, 1), self._mean, self._std)
        wide = padded(images, table.translate, table.fill)
        images = shifted(wide, images.shape[-1], table.translate, generator)
        return resized(cutout(images, table.cutout, generator), small)

    def _transform_pixels(self, images: Tensor, size: int, table: ImageSettings, generator: torch.Generator) -> Tensor:
        """Apply crops and affine transforms, color changes, the policies and random erasing to uint8 `(B, 3, H, W)`."""
        fill = send(torch.tensor(self._mean) * 255, images.device)
        images = _apply_affine(images, size, table, fill, generator)
        images = _adjust_color(images, table, generator)
        terms = Terms(generator, fill, table.magnitude, table.num_ops)
        for name in table.policies:
            images = AUGMENTATIONS.get(name)(images, terms)
        return erased(images, table.erase, generator)


def erased(images: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Random erasing: replace a rectangle by noise in each image with probability `chance` (arXiv 1708.04896).

    `images` are uint8 `(N, 3, H, W)`. Area and aspect ratio are sampled as in the paper; a side longer than the image
    is clipped to it.
    """
    if chance == 0:
        return images
    count, channels, height, width = images.shape
    indices = (torch.rand(count, generator=generator) < chance).nonzero().flatten()
    area, aspect, *corner = torch.rand((4, len(indices)), generator=generator)
    area = ERASE_AREA[0] + area * (ERASE_AREA[1] - ERASE_AREA[0])
    aspect = torch.exp(math.log(ERASE_ASPECT[0]) + aspect * math.log(ERASE_ASPECT[1] / ERASE_ASPECT[0]))
    inside = []
    for length, part, start in ((height, area * aspect, corner[0]), (width, area / aspect, corner[1])):
        extent = (part.sqrt() * length).round().clamp(1, length)
        first_pixel = (start * (length - extent + 1)).floor()
        positions = torch.arange(length)
        inside.append((positions >= first_pixel[:, None]) & (positions < (first_pixel + extent)[:, None]))
    noise = torch.randint(0, 256, (len(indices), channels, height, width), generator=generator, dtype=torch.uint8)
    box = (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)  # (n, 1, H, W)
    out = images.clone()
    indices, box, noise = (send(part, images.device) for part in (indices, box, noise))
    out[indices] = torch.where(box, noise, images[indices])
    return out


def _apply_affine(images: Tensor, size: int, table: ImageSettings, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Crop, rotate, zoom and shear uint8 `(B, 3, L, L)` to `(B, 3, size, size)` in one resampling."""
    count, full = len(images), images.shape[-1]
    matrices = None
    if table.rotate or table.zoom or table.shear:
        degrees, zoom, shear = _random_signed(3, count, generator)
        matrices = affine_matrices(degrees * table.rotate, 1 + zoom * table.zoom, shear * table.shear)
    if table.crop or full != size:
        if table.crop:
            cropped = crop_matrices(count, full, size, table.crop, table.crop_ratio, generator)
        else:
            cropped = scaling_matrices(count, full / size)
        matrices = cropped if matrices is None else composed(cropped, matrices)
    return images if matrices is None else warp(images, send(matrices, images.device), fill, table.fill, size)


def _adjust_color(images: Tensor, table: ImageSettings, generator: torch.Generator) -> Tensor:
    for change, limit in (
        (color.brightened, table.brightness),
        (color.contrasted, table.contrast),
        (color.saturated, table.saturation),
    ):
        if limit:
            factor = 1 + limit * _random_signed(1, len(images), generator)[0]
            images = change(images, send(factor.clamp(min=0), images.device))
    if table.hue:
        turn = table.hue * _random_signed(1, len(images), generator)[0]
        images = color.shift_hue(images, send(turn, images.device))
    return images


def _random_signed(kinds: int, count: int, generator: torch.Generator) -> Tensor:
    """Float `(kinds, count)`, uniform in [-1, 1)."""
    return 2 * torch.rand((kinds, count), generator=generator) - 1


def uses_mixing(settings: AugmentSettings) -> bool:
    """Whether the settings mix images, so that labels become soft."""
    return settings.mix_share > 0 and (settings.mixup > 0 or settings.cutmix > 0)


def mix(
    images: Tensor, labels: Tensor, classes: int, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix images with others of the batch (MixUp, arXiv 1710.09412; CutMix, arXiv 1905.04899).

    Partner, method and share are sampled for each image. A CutMix share is the exact remaining area of the image.

    Args:
        images: float `(B, 3, H, W)`.
        labels: int64 `(B,)`.
        classes: number of classes.
        settings: the recipe's `[augment]`.
        generator: source of randomness, on the CPU.

    Returns:
        Mixed images, and targets float32 `(B, classes)` whose rows sum to 1.
    """
    count, _, height, width = images.shape
    device = images.device
    partner = torch.randperm(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < settings.mix_share
    cut = torch.rand(count, generator=generator) < _cutmix_probability(settings)
    own = torch.ones(count)
    partner = send(partner, device)
    others = images[partner]
    if settings.mixup:
        own = torch.where(chosen & ~cut, beta(count, settings.mixup, generator), own)
        images = torch.lerp(others, images, send(own, device).view(-1, 1, 1, 1))
    if settings.cutmix:
        box = _boxes(beta(count, settings.cutmix, generator), height, width, generator)  # (B, H, W)
        box &= (chosen & cut).view(-1, 1, 1)
        own = torch.where(chosen & cut, 1 - box.float().mean(dim=(1, 2)), own)
        images = torch.where(send(box, device).unsqueeze(1), others, images)
    share = send(own, device).unsqueeze(1)
    target = F.one_hot(labels, classes).float()
    return images, share * target + (1 - share) * target[partner]


def _cutmix_probability(settings: AugmentSettings) -> float:
    if settings.mixup and settings.cutmix:
        return 0.5
    return 1.0 if settings.cutmix else 0.0


def _boxes(own: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes bool `(B, H, W)` that leave the share `own` `(B,)` of an image, clipped at its border."""
    side = (1 - own).sqrt()
    centers = torch.rand((2, len(own)), generator=generator)
    inside = []
    for length, center in ((height, centers[0]), (width, centers[1])):
        middle, half = (center * length).floor(), (side * length).floor() / 2
        positions = torch.arange(length)
        inside.append((positions >= (middle - half).floor()[:, None]) & (positions < (middle + half).floor()[:, None]))
    return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
