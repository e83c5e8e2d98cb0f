"""TrivialAugment: one operation, its strength drawn evenly from nothing to much (arXiv 2103.10158)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.operations import USUAL, Range, Space, operated
from thirtytwo.augment.registry import AUGMENTATIONS, STRONGEST, Terms

WIDE: Space = {
    **USUAL,
    "shear_x": Range(0, 0.99, signed=True),
    "shear_y": Range(0, 0.99, signed=True),
    "translate_x": Range(0, 32, signed=True),
    "translate_y": Range(0, 32, signed=True),
    "rotate": Range(0, 135, signed=True),
    "brightness": Range(0, 0.99, signed=True),
    "colour": Range(0, 0.99, signed=True),
    "contrast": Range(0, 0.99, signed=True),
    "sharpness": Range(0, 0.99, signed=True),
    "posterize": Range(8, 2),
}
"""The paper's wide ranges; translation is in pixels there, whatever the picture's size."""


@AUGMENTATIONS.register("trivialaugment")
def trivialaugment(images: Tensor, terms: Terms) -> Tensor:
    """One operation for each picture, of a strength drawn evenly up to `magnitude` (arXiv 2103.10158, wide ranges)."""
    count = len(images)
    chosen = torch.randint(0, len(WIDE), (count,), generator=terms.generator)
    levels = int(terms.strength(STRONGEST) * STRONGEST) + 1
    strength = torch.randint(0, levels, (count,), generator=terms.generator) / STRONGEST
    return operated(images, chosen, strength, WIDE, terms)
