"""Brightness, contrast, saturation and other color operations on batches, with one strength per image.

Input and output are uint8 `(N, 3, H, W)`. Results are those of PIL and torchvision, but rounded where those truncate.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.geometry import to_uint8

_GRAY_WEIGHTS = (0.299, 0.587, 0.114)


def gray(images: Tensor) -> Tensor:
    """Luma `(N, 1, ...)` of float `(N, 3, ...)`, by ITU-R 601-2 as in PIL."""
    red, green, blue = images.unbind(dim=1)
    mixed = red * _GRAY_WEIGHTS[0]
    return mixed.add_(green, alpha=_GRAY_WEIGHTS[1]).add_(blue, alpha=_GRAY_WEIGHTS[2]).unsqueeze(1)


def brightened(images: Tensor, factor: Tensor) -> Tensor:
    """Scale brightness by `factor` float `(N,)`: 0 gives black, 1 the original."""
    return to_uint8(images.float() * factor.view(-1, 1, 1, 1))


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """Scale contrast by `factor` float `(N,)`: 0 gives the image's mean gray, 1 the original."""
    values = images.float()
    return to_uint8(_blend(gray(values.mean(dim=(2, 3), keepdim=True)), values, factor))


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """Scale saturation by `factor` float `(N,)`: 0 gives a gray image, 1 the original."""
    values = images.float()
    return to_uint8(_blend(gray(values), values, factor))


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """Scale sharpness by `factor` float `(N,)`: 0 smooths, 1 gives the original; border pixels stay, as in PIL."""
    if min(images.shape[-2:]) < 3:
        return images
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(values, 3, stride=1) + 4 * inner) / 13  # PIL's SMOOTH: ones around a 5
    out = values.clone()
    out[..., 1:-1, 1:-1] = _blend(smooth.round_(), inner.clone(), factor)
    return to_uint8(out)


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Shift the hue by `turn` float `(N,)`, as a fraction of the color circle, -0.5 to 0.5."""
    values = images.float() / 255
    high, low = values.amax(dim=1), values.amin(dim=1)  # (N, H, W)
    spread = high - low
    red, green, blue = values.unbind(dim=1)
    reach = torch.where(spread > 0, spread, torch.ones_like(spread))
    sector = torch.where(
        high == red,
        (green - blue) / reach,
        torch.where(high == green, 2 + (blue - red) / reach, 4 + (red - green) / reach),
    )  # position on the color circle in sixths, -1 to 5
    sector = sector + 6 * turn.view(-1, 1, 1)
    # each channel is piecewise linear in the hue, so no case distinction over six sectors is needed
    channels = [high - spread * _hue_component(sector + offset) for offset in (5.0, 3.0, 1.0)]
    return to_uint8(torch.stack(channels, dim=1) * 255)


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    """Keep only the upper `bits` `(N,)`, 0 to 8, of each value."""
    kept = 256 - 2 ** (8 - bits.round().long())
    return images & kept.to(torch.uint8).view(-1, 1, 1, 1)


def solarized(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values at or above `threshold` `(N,)`, 0 to 255."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def autocontrasted(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a constant channel stays."""
    from torchvision.transforms.v2 import functional

    out: Tensor = functional.autocontrast(images)
    return out


def equalized(images: Tensor) -> Tensor:
    """Equalize each channel's histogram, as in PIL."""
    from torchvision.transforms.v2 import functional

    out: Tensor = functional.equalize(images)
    return out


def _blend(far: Tensor, near: Tensor, factor: Tensor) -> Tensor:
    """`factor · near + (1 - factor) · far` in the memory of `near`, with one factor for each image."""
    share = factor.view(-1, 1, 1, 1)
    return near.mul_(share).add_(far * (1 - share))


def _hue_component(sector: Tensor) -> Tensor:
    """Share of the channel spread to subtract at `sector`, 0 to 6; Wikipedia, "HSL and HSV", alternative formula."""
    position = sector.remainder(6)
    return torch.minimum(position, 4 - position).clamp(0, 1)
