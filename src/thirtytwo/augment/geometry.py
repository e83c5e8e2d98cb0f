"""Affine transforms of images: one matrix per image, one resampling per batch."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Border = Literal["reflect", "edge", "mean"]
_PADDING: dict[Border, str] = {"reflect": "reflection", "edge": "border", "mean": "zeros"}


def warp(images: Tensor, matrices: Tensor, fill: Tensor, border: Border = "mean") -> Tensor:
    """Resample each image by its own affine matrix, bilinearly.

    Args:
        images: uint8 `(N, 3, H, W)`.
        matrices: float `(N, 2, 3)`; map output to input coordinates, `(x, y)` in pixels from the image's center.
        fill: float `(3,)`, 0 to 255; the color beyond the border if `border` is `mean`.
        border: how pixels beyond the border are filled.
    """
    count, _, height, width = images.shape
    device = images.device
    ys = torch.arange(height, device=device) - (height - 1) / 2
    xs = torch.arange(width, device=device) - (width - 1) / 2
    half = torch.tensor([width / 2, height / 2], device=device)
    positions = torch.stack(
        [xs.expand(height, width), ys[:, None].expand(height, width), torch.ones(height, width, device=device)], dim=-1
    )
    grid = positions.view(1, -1, 3) @ (matrices / half[:, None]).transpose(1, 2)  # (N, H·W, 2), the image spans -1 to 1
    base = fill.view(1, 3, 1, 1)
    resampled = F.grid_sample(
        images.float() - base,
        grid.view(count, height, width, 2),
        mode="bilinear",
        padding_mode=_PADDING[border],
        align_corners=False,
    )
    return to_uint8(resampled + base)


def to_uint8(images: Tensor) -> Tensor:
    """Round float images from 0 to 255 to uint8."""
    return images.round_().clamp_(0, 255).to(torch.uint8)


def affine_matrices(degrees: Tensor, scale: Tensor | None = None, shear: Tensor | None = None) -> Tensor:
    """Matrices `(N, 2, 3)` that rotate images counter-clockwise by `degrees`, float `(N,)`.

    They also enlarge by `scale` and shear along x by `shear` degrees. All are about the center, with shear first, as in
    torchvision's `affine`, whose angle is clockwise.
    """
    angle = degrees * (math.pi / 180)
    size = torch.ones_like(angle) if scale is None else scale
    slant = torch.zeros_like(angle) if shear is None else torch.tan(shear * (math.pi / 180))
    cos, sin, none = torch.cos(angle) / size, torch.sin(angle) / size, torch.zeros_like(angle)
    # old = shear⁻¹ · rotation⁻¹ · new / scale
    first = torch.stack([cos + slant * sin, slant * cos - sin, none], dim=1)
    second = torch.stack([sin, cos, none], dim=1)
    return torch.stack([first, second], dim=1)


def translation_matrices(pixels: Tensor, axis: Literal[0, 1]) -> Tensor:
    """Matrices `(N, 2, 3)` that translate images by whole `pixels` to the right (axis 0) or down (axis 1)."""
    matrices = torch.eye(2, 3, device=pixels.device).repeat(len(pixels), 1, 1)
    matrices[:, axis, 2] = -pixels.trunc()
    return matrices


def shear_matrices(amount: Tensor, axis: Literal[0, 1], height: int, width: int) -> Tensor:
    """Matrices `(N, 2, 3)` that shear: output `(x, y)` is input `(x + amount·y, y)`, or `(x, y + amount·x)` for axis 1.

    The origin is the upper left corner, as in AutoAugment's code.
    """
    matrices = torch.eye(2, 3, device=amount.device).repeat(len(amount), 1, 1)
    matrices[:, axis, 1 - axis] = amount
    matrices[:, axis, 2] = amount * ((height, width)[axis] / 2)
    return matrices
