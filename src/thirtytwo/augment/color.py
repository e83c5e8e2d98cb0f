"""Brightness, contrast, saturation and their like: one amount a picture, whole batches at once.

Pictures are uint8 `(N, 3, H, W)` before and after, as in PIL and torchvision; results are rounded where those cut off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.geometry import quantised

_GREY = (0.299, 0.587, 0.114)


def grey(images: Tensor) -> Tensor:
    """Brightness `(N, 1, H, W)` of float pictures, by ITU-R 601-2 as in PIL."""
    red, green, blue = images.unbind(dim=1)
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).unsqueeze(1)


def brightened(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives black, 1 the picture."""
    return quantised(images.float() * factor.view(-1, 1, 1, 1))


def contrasted(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives the picture's mean grey everywhere, 1 the picture."""
    pictures = images.float()
    return quantised(_blend(grey(pictures).mean(dim=(2, 3), keepdim=True), pictures, factor))


def saturated(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 gives grey, 1 the picture."""
    pictures = images.float()
    return quantised(_blend(grey(pictures), pictures, factor))


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` float `(N,)`: 0 smooths, 1 gives the picture; the outermost pixels stay, as in PIL."""
    if min(images.shape[-2:]) < 3:
        return images
    pictures = images.float()
    inner = pictures[..., 1:-1, 1:-1]
    smooth = (9 * F.avg_pool2d(pictures, 3, stride=1) + 4 * inner) / 13  # PIL's SMOOTH: ones around a 5
    out = pictures.clone()
    out[..., 1:-1, 1:-1] = _blend(smooth.round_(), inner, factor)
    return quantised(out)


def hue_turned(images: Tensor, turn: Tensor) -> Tensor:
    """`turn` float `(N,)`: part of the colour circle, -0.5 to 0.5."""
    pictures = images.float() / 255
    high, low = pictures.amax(dim=1), pictures.amin(dim=1)  # (N, H, W)
    spread = high - low
    red, green, blue = pictures.unbind(dim=1)
    reach = torch.where(spread > 0, spread, torch.ones_like(spread))
    sector = torch.where(
        high == red,
        (green - blue) / reach,
        torch.where(high == green, 2 + (blue - red) / reach, 4 + (red - green) / reach),
    )  # where on the circle, -1 to 5 of 6
    sector = sector + 6 * turn.view(-1, 1, 1)
    # a channel falls off linearly from its own place on the circle: HSV backwards without its six cases
    channels = [high - spread * _away(sector + offset) for offset in (5.0, 3.0, 1.0)]
    return quantised(torch.stack(channels, dim=1) * 255)


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    """Only the upper `bits` `(N,)` of each value, 0 to 8."""
    kept = 256 - 2 ** (8 - bits.round().long())
    return images & kept.to(torch.uint8).view(-1, 1, 1, 1)


def solarized(images: Tensor, threshold: Tensor) -> Tensor:
    """Values from `threshold` `(N,)` on, 0 to 255, turned to their negative."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def stretched(images: Tensor) -> Tensor:
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


def _away(sector: Tensor) -> Tensor:
    """What part of its spread a channel lacks at `sector` of six; Wikipedia, "HSL and HSV", alternative formula."""
    place = sector.remainder(6)
    return torch.minimum(place, 4 - place).clamp(0, 1)
