"""RandAugment: a few uniformly sampled operations of equal strength (arXiv 1909.13719)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.operations import AUTOAUGMENT_SPACE, apply_operations
from thirtytwo.augment.registry import AUGMENTATIONS, Terms

MAGNITUDE = 9
NUM_OPS = 2


@AUGMENTATIONS.register("randaugment")
def randaugment(images: Tensor, terms: Terms) -> Tensor:
    """Apply a few uniformly sampled operations of equal strength to each image (arXiv 1909.13719)."""
    count = len(images)
    strength = torch.full((count,), terms.strength(MAGNITUDE))
    for _ in range(terms.num_ops or NUM_OPS):
        chosen = torch.randint(0, len(AUTOAUGMENT_SPACE), (count,), generator=terms.generator)
        images = apply_operations(images, chosen, strength, AUTOAUGMENT_SPACE, terms)
    return images
