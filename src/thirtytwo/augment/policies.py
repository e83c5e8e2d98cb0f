"""AutoAugment: the policy of operation pairs found by search on CIFAR-10 (arXiv 1805.09501)."""

from __future__ import annotations

import torch
from torch import Tensor

from thirtytwo.augment.geometry import to_uint8
from thirtytwo.augment.operations import (
    AUGMENTATIONS,
    AUTOAUGMENT_SPACE,
    MAX_MAGNITUDE,
    Range,
    Space,
    Terms,
    apply_operations,
)
from thirtytwo.tensors import dirichlet, send

POLICY_SPACE: Space = {**AUTOAUGMENT_SPACE, "invert": Range()}
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
    names = list(POLICY_SPACE)
    pair = torch.randint(0, len(PAIRS), (count,), generator=terms.generator)
    for step in range(2):
        operation = torch.tensor([names.index(steps[step][0]) for steps in PAIRS])[pair]
        chance = torch.tensor([steps[step][1] for steps in PAIRS])[pair]
        strength = torch.tensor([steps[step][2] / LEVELS for steps in PAIRS])[pair]
        done = torch.rand(count, generator=terms.generator) < chance
        images = apply_operations(images, operation.where(done, names.index("identity")), strength, POLICY_SPACE, terms)
    return images


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


WIDTH, DEPTH = 3, 3
MIN_STRENGTH = 0.01
AUGMIX_SPACE: Space = {
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
        chosen = torch.randint(1, len(AUGMIX_SPACE), (WIDTH * count,), generator=generator) * (step < depth)
        strength = MIN_STRENGTH + torch.rand(WIDTH * count, generator=generator) * (strongest - MIN_STRENGTH)
        chains = apply_operations(chains, chosen, strength, AUGMIX_SPACE, terms)
    own = dirichlet(count, 2, generator)[:, :1]  # Beta(1, 1)
    weights = send(((1 - own) * dirichlet(count, WIDTH, generator)).T, images.device)  # (WIDTH, B)
    blend = images.float() * send(own, images.device).view(-1, 1, 1, 1)
    for chain, weight in zip(chains.chunk(WIDTH), weights, strict=True):
        blend += chain * weight.view(-1, 1, 1, 1)
    return to_uint8(blend)
