"""Augmentations by name, for `policy` in a recipe: one file each; other packages add theirs as entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thirtytwo.registry import Registry

MAX_MAGNITUDE = 30
"""The greatest `magnitude`; a strength of 1."""


@dataclass(frozen=True)
class Terms:
    """What an augmentation may draw on.

    `generator` (on the CPU) is the only source of chance; `fill` float `(3,)` from 0 to 255 is the data's mean colour,
    on the images' device; `magnitude` and `num_ops` are the recipe's, None where it does not say.
    """

    generator: torch.Generator
    fill: Tensor
    magnitude: float | None = None
    num_ops: int | None = None

    def strength(self, published: float) -> float:
        """`magnitude`, or else the `published` one, as a part of the greatest there is."""
        return (published if self.magnitude is None else self.magnitude) / MAX_MAGNITUDE


Augmentation = Callable[[Tensor, Terms], Tensor]
"""Images uint8 `(B, 3, H, W)`, which stay as they are, to new ones of the same form."""

AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")
