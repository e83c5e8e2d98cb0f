"""Operations of published policies, and their application to batches with one operation per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thirtytwo.augment import color
from thirtytwo.augment.geometry import affine_matrices, shear_matrices, translation_matrices, warp
from thirtytwo.registry import Registry
from thirtytwo.tensors import send

MAX_MAGNITUDE = 30
"""Largest `magnitude`, which is a strength of 1."""


@dataclass(frozen=True)
class Terms:
    """Inputs of an augmentation besides the images.

    `generator` (on the CPU) is the only source of randomness; `fill` float `(3,)` from 0 to 255 is the data's mean
    color, on the images' device; `magnitude` and `num_ops` come from the recipe, None if it does not set them.
    """

    generator: torch.Generator
    fill: Tensor
    magnitude: float | None = None
    num_ops: int | None = None

    def strength(self, published: float) -> float:
        """`magnitude`, or the `published` default, divided by `MAX_MAGNITUDE`."""
        return (published if self.magnitude is None else self.magnitude) / MAX_MAGNITUDE


Augmentation = Callable[[Tensor, Terms], Tensor]
"""From images uint8 `(B, 3, H, W)`, which it does not modify, to new ones of the same shape and dtype."""

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes images uint8 `(N, 3, H, W)`, the amount for each float `(N,)`, and the fill color float `(3,)`."""

OPERATIONS: dict[str, Operation] = {
    "identity": lambda images, amount, fill: images,
    "shear_x": lambda images, amount, fill: warp(images, shear_matrices(amount, 0, *images.shape[-2:]), fill),
    "shear_y": lambda images, amount, fill: warp(images, shear_matrices(amount, 1, *images.shape[-2:]), fill),
    "translate_x": lambda images, amount, fill: warp(images, translation_matrices(amount, 0), fill),
    "translate_y": lambda images, amount, fill: warp(images, translation_matrices(amount, 1), fill),
    "rotate": lambda images, amount, fill: warp(images, affine_matrices(amount), fill),
    "brightness": lambda images, amount, fill: color.brightened(images, 1 + amount),
    "colour": lambda images, amount, fill: color.saturated(images, 1 + amount),
    "contrast": lambda images, amount, fill: color.contrasted(images, 1 + amount),
    "sharpness": lambda images, amount, fill: color.sharpened(images, 1 + amount),
    "posterize": lambda images, amount, fill: color.posterized(images, amount),
    "solarize": lambda images, amount, fill: color.solarized(images, amount),
    "autocontrast": lambda images, amount, fill: color.autocontrasted(images),
    "equalize": lambda images, amount, fill: color.equalized(images),
    "invert": lambda images, amount, fill: 255 - images,
}


@dataclass(frozen=True)
class Range:
    """The amount of an operation at strength 0 (`weakest`) and at strength 1 (`strongest`).

    `signed`: the sign is random. `of_side`: amounts are fractions of the image's side, not operation units.
    """

    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False
    of_side: bool = False

    def amount(self, strength: Tensor, sign: Tensor, side: int) -> Tensor:
        """Amounts `(N,)` for strengths float `(N,)` from 0 to 1; `sign` is 1 or -1."""
        amount = self.weakest + strength * (self.strongest - self.weakest)
        return amount * (side if self.of_side else 1) * (sign if self.signed else 1)


Space = Mapping[str, Range]
"""The operations that a policy samples from, with their ranges."""

AUTOAUGMENT_SPACE: Space = {
    "identity": Range(),
    "shear_x": Range(0, 0.3, signed=True),
    "shear_y": Range(0, 0.3, signed=True),
    "translate_x": Range(0, 150 / 331, signed=True, of_side=True),
    "translate_y": Range(0, 150 / 331, signed=True, of_side=True),
    "rotate": Range(0, 30, signed=True),
    "brightness": Range(0, 0.9, signed=True),
    "colour": Range(0, 0.9, signed=True),
    "contrast": Range(0, 0.9, signed=True),
    "sharpness": Range(0, 0.9, signed=True),
    "posterize": Range(8, 4),
    "solarize": Range(255, 0),
    "autocontrast": Range(),
    "equalize": Range(),
}
"""AutoAugment's operations (arXiv 1805.09501) without inversion, as in RandAugment; ranges as in torchvision."""


def apply_operations(images: Tensor, chosen: Tensor, strength: Tensor, space: Space, terms: Terms) -> Tensor:
    """Apply one operation of `space` to each image.

    Args:
        images: uint8 `(N, 3, H, W)`.
        chosen: int64 `(N,)` on the CPU; index in `space` of each image's operation.
        strength: float `(N,)` on the CPU, 0 to 1.
        space: operations with their ranges.
        terms: generator and fill color.
    """
    sign = 1 - 2 * torch.randint(0, 2, (len(images),), generator=terms.generator)
    height, width = images.shape[-2:]
    out = images.clone()
    for index, (name, span) in enumerate(space.items()):
        indices = (chosen == index).nonzero().flatten()
        if name == "identity" or not len(indices):
            continue
        amount = span.amount(strength[indices], sign[indices], height if name.endswith("_y") else width)
        amount, indices = send(amount, images.device), send(indices, images.device)
        out[indices] = OPERATIONS[name](images[indices], amount, terms.fill)
    return out
