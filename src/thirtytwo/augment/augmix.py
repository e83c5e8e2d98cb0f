"""AugMix: blend an image with augmented copies of itself (arXiv 1912.02781)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.geometry import to_uint8
from thirtytwo.augment.operations import AUTOAUGMENT_SPACE, Range, Space, apply_operations
from thirtytwo.augment.random import dirichlet
from thirtytwo.augment.registry import AUGMENTATIONS, Terms

MAGNITUDE = 9
WIDTH, DEPTH = 3, 3
MIN_STRENGTH = 0.01
SPACE: Space = {
    "identity": Range(),
    **{
        name: AUTOAUGMENT_SPACE[name]
        for name in ("shear_x", "shear_y", "rotate", "solarize", "autocontrast", "equalize")
    },
    "translate_x": Range(0, 1 / 3, signed=True, of_side=True),
    "translate_y": Range(0, 1 / 3, signed=True, of_side=True),
    "posterize": Range(4, 0),
}
"""The paper's operations, without those that are also test corruptions; `identity` pads chains that have ended."""


@AUGMENTATIONS.register("augmix")
def augmix(images: Tensor, terms: Terms) -> Tensor:
    """Blend each image with three chains of one to three operations on it (arXiv 1912.02781, without its loss).

    The default magnitude of 9 in 30 is the paper's severity of 3 in 10.
    """
    count, generator = len(images), terms.generator
    strongest = max(terms.strength(MAGNITUDE), MIN_STRENGTH)
    depth = torch.randint(1, DEPTH + 1, (WIDTH * count,), generator=generator)
    chains = images.repeat(WIDTH, 1, 1, 1)  # (WIDTH·B, 3, H, W)
    for step in range(DEPTH):
        chosen = torch.randint(1, len(SPACE), (WIDTH * count,), generator=generator) * (step < depth)
        strength = MIN_STRENGTH + torch.rand(WIDTH * count, generator=generator) * (strongest - MIN_STRENGTH)
        chains = apply_operations(chains, chosen, strength, SPACE, terms)
    own = dirichlet(count, 2, generator)[:, :1]  # Beta(1, 1)
    weights = ((1 - own) * dirichlet(count, WIDTH, generator)).T.to(images.device)  # (WIDTH, B)
    blend = images.float() * own.to(images.device).view(-1, 1, 1, 1)
    for chain, weight in zip(chains.chunk(WIDTH), weights, strict=True):
        blend += chain * weight.view(-1, 1, 1, 1)
    return to_uint8(blend)
