"""Brightness, contrast, saturation and their like: one amount an image, whole batches at once.

Images are uint8 `(N, 3, H, W)` before and after, as in PIL and torchvision; results are rounded where those cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.geometry import to_uint8

_GRAY_WEIGHTS = (0.299, 0.587, 0.114)


def gray(images: Tensor) -> Tensor:
    """Brightness `(N, 1, H, W)` of float images, by ITU-R 601-2 as in PIL."""
    red, green, blue = images.unbind(dim=1)
    return (_GRAY_WEIGHTS[0] * red + _GRAY_WEIGHTS[1] * green + _GRAY_WEIGHTS[2] * blue).unsqueeze(1)


def brightened(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives black, 1 the image."""
    return to_uint8(images.float() * factor.view(-1, 1, 1, 1))


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives the image's mean gray everywhere, 1 the image."""
    values = images.float()
    return to_uint8(_blend(gray(values).mean(dim=(2, 3), keepdim=True), values, factor))


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives gray, 1 the image."""
    values = images.float()
    return to_uint8(_blend(gray(values), values, factor))


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 smooths, 1 gives the image; the outermost pixels stay, as in PIL."""
    if min(images.shape[-2:]) < 3:
        return images
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(values, 3, stride=1) + 4 * inner) / 13  # PIL's SMOOTH: ones around a 5
    out = values.clone()
    out[..., 1:-1, 1:-1] = _blend(smooth.round_(), inner, factor)
    return to_uint8(out)


def shift_hue(images: Tensor, turn: Tensor) -> Tensor:
    """`turn` float `(N,)`: part of the colour circle, -0.5 to 0.5."""
    values = images.float() / 255
    high, low = values.amax(dim=1), values.amin(dim=1)  # (N, H, W)
    spread = high - low
    red, green, blue = values.unbind(dim=1)
    reach = torch.where(spread > 0, spread, torch.ones_like(spread))
    sector = torch.where(
        high == red,
        (green - blue) / reach,
        torch.where(high == green, 2 + (blue - red) / reach, 4 + (red - green) / reach),
    )  # where on the circle, -1 to 5 of 6
    sector = sector + 6 * turn.view(-1, 1, 1)
    # a channel falls off linearly from its own place on the circle: HSV backwards without its six cases
    channels = [high - spread * _hue_component(sector + offset) for offset in (5.0, 3.0, 1.0)]
    return to_uint8(torch.stack(channels, dim=1) * 255)


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` `(N,)` of each value, 0 to 8."""
    kept = 256 - 2 ** (8 - bits.round().long())
    return images & kept.to(torch.uint8).view(-1, 1, 1, 1)


def solarized(images: Tensor, threshold: Tensor) -> Tensor:
    """Values from `threshold` `(N,)` on, 0 to 255, turned to their negative."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def autocontrasted(images: Tensor) -> Tensor:
    """Each channel from 0 to 255 (autocontrast); a channel of one value stays."""
    from torchvision.transforms.v2 import functional

    out: Tensor = functional.autocontrast(images)
    return out


def equalized(images: Tensor) -> Tensor:
    """Each channel's histogram made flat, as in PIL."""
    from torchvision.transforms.v2 import functional

    out: Tensor = functional.equalize(images)
    return out


def _blend(far: Tensor, near: Tensor, factor: Tensor) -> Tensor:
    return far + factor.view(-1, 1, 1, 1) * (near - far)


def _hue_component(sector: Tensor) -> Tensor:
    """What part of its spread a channel lacks at `sector` of six; Wikipedia, "HSL and HSV", alternative formula."""
    place = sector.remainder(6)
    return torch.minimum(place, 4 - place).clamp(0, 1)
