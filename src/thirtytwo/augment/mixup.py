"""MixUp and CutMix: combine two images, and their labels in the same proportions.

Not timm's or torchvision's, since those draw from global generators, so that a resumed run would differ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.random import beta
from thirtytwo.config.recipe import AugmentSettings


def mixes(settings: AugmentSettings) -> bool:
    """Whether the settings mix images, so that labels become soft."""
    return settings.mix_share > 0 and (settings.mixup > 0 or settings.cutmix > 0)


def mixed(
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
    others = images[partner.to(device)]
    if settings.mixup:
        own = torch.where(chosen & ~cut, beta(count, settings.mixup, generator), own)
        images = torch.lerp(others, images, own.to(device).view(-1, 1, 1, 1))
    if settings.cutmix:
        box = _boxes(beta(count, settings.cutmix, generator), height, width, generator)  # (B, H, W)
        box &= (chosen & cut).view(-1, 1, 1)
        own = torch.where(chosen & cut, 1 - box.float().mean(dim=(1, 2)), own)
        images = torch.where(box.to(device).unsqueeze(1), others, images)
    share = own.to(device).unsqueeze(1)
    target = F.one_hot(labels, classes).float()
    return images, share * target + (1 - share) * target[partner.to(device)]


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
