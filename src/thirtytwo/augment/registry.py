"""Registry of augmentations for `policy` in a recipe; other packages add theirs as entry points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thirtytwo.registry import Registry

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
