"""TrivialAugment: one operation of uniformly sampled strength (arXiv 2103.10158)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.operations import AUTOAUGMENT_SPACE, Range, Space, apply_operations
from thirtytwo.augment.registry import AUGMENTATIONS, MAX_MAGNITUDE, Terms

WIDE_SPACE: Space = {
    **AUTOAUGMENT_SPACE,
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
"""The paper's wide ranges; its translations are in pixels, independent of the image's size."""


@AUGMENTATIONS.register("trivialaugment")
def trivialaugment(images: Tensor, terms: Terms) -> Tensor:
    """Apply one operation of uniform strength up to `magnitude` to each image (arXiv 2103.10158, wide ranges)."""
    count = len(images)
    chosen = torch.randint(0, len(WIDE_SPACE), (count,), generator=terms.generator)
    levels = int(terms.strength(MAX_MAGNITUDE) * MAX_MAGNITUDE) + 1
    strength = torch.randint(0, levels, (count,), generator=terms.generator) / MAX_MAGNITUDE
    return apply_operations(images, chosen, strength, WIDE_SPACE, terms)
