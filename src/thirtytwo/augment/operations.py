"""The operations that published policies are made of, and a batch in which each image goes through its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from thirtytwo.augment import color
from thirtytwo.augment.geometry import affine_matrices, shear_matrices, translation_matrices, warp
from thirtytwo.augment.registry import Terms

Operation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images uint8 `(N, 3, H, W)`, an amount for each float `(N,)`, and the colour beyond the border float `(3,)`."""

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
    """The amount of an operation at strength 0 and at strength 1.

    `signed`: either way by chance; `of_side`: amounts are parts of the image's side, else what the operation takes.
    """

    weakest: float = 0.0
    strongest: float = 0.0
    signed: bool = False
    of_side: bool = False

    def amount(self, strength: Tensor, sign: Tensor, side: int) -> Tensor:
        """Amounts for strengths float `(N,)` from 0 to 1; `sign` is 1 or -1."""
        amount = self.weakest + strength * (self.strongest - self.weakest)
        return amount * (side if self.of_side else 1) * (sign if self.signed else 1)


Space = Mapping[str, Range]
"""The operations a policy draws from, and how far each goes."""

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
"""AutoAugment's (arXiv 1805.09501) without inversion, as RandAugment uses them; ranges as in torchvision."""


def apply_operations(images: Tensor, chosen: Tensor, strength: Tensor, space: Space, terms: Terms) -> Tensor:
    """Each image through one operation of `space`.

    `images` uint8 `(N, 3, H, W)`; `chosen` int64 `(N,)` places in `space` and `strength` float `(N,)`, both on the CPU.
    """
    sign = 1 - 2 * torch.randint(0, 2, (len(images),), generator=terms.generator)
    height, width = images.shape[-2:]
    out = images.clone()
    for place, (name, span) in enumerate(space.items()):
        indices = (chosen == place).nonzero().flatten()
        if name == "identity" or not len(indices):
            continue
        amount = span.amount(strength[indices], sign[indices], height if name.endswith("_y") else width).to(
            images.device
        )
        indices = indices.to(images.device)
        out[indices] = OPERATIONS[name](images[indices], amount, terms.fill)
    return out
