"""AutoAugment: the policy of operation pairs found by search on CIFAR-10 (arXiv 1805.09501)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.operations import AUTOAUGMENT_SPACE, Range, Space, apply_operations
from thirtytwo.augment.registry import AUGMENTATIONS, Terms

SPACE: Space = {**AUTOAUGMENT_SPACE, "invert": Range()}
LEVELS = 9
PAIRS: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("colour", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
"""The paper's policy for CIFAR-10: (operation, probability, level) of both operations of a pair, as in torchvision."""


@AUGMENTATIONS.register("autoaugment")
def autoaugment(images: Tensor, terms: Terms) -> Tensor:
    """Apply one of 25 pairs of operations found by search on CIFAR-10 (arXiv 1805.09501)."""
    count = len(images)
    names = list(SPACE)
    pair = torch.randint(0, len(PAIRS), (count,), generator=terms.generator)
    for step in range(2):
        operation = torch.tensor([names.index(steps[step][0]) for steps in PAIRS])[pair]
        chance = torch.tensor([steps[step][1] for steps in PAIRS])[pair]
        strength = torch.tensor([steps[step][2] / LEVELS for steps in PAIRS])[pair]
        done = torch.rand(count, generator=terms.generator) < chance
        images = apply_operations(images, operation.where(done, names.index("identity")), strength, SPACE, terms)
    return images
