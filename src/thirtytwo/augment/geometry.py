"""Affine transforms of images: one matrix per image, one resampling per batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.tensors import send

Border = Literal["reflect", "edge", "mean"]
_PADDING: dict[Border, str] = {"reflect": "reflection", "edge": "border", "mean": "zeros"}


def warp(images: Tensor, matrices: Tensor, fill: Tensor, border: Border = "mean", size: int | None = None) -> Tensor:
    """Resample each image by its own affine matrix, bilinearly.

    Args:
        images: uint8 `(N, 3, H, W)`.
        matrices: float `(N, 2, 3)`; map output to input coordinates, `(x, y)` in pixels from the image's center.
        fill: float `(3,)`, 0 to 255; the color beyond the border if `border` is `mean`.
        border: how pixels beyond the border are filled.
        size: side of the square output in pixels; that of the input by default.
    """
    full_height, full_width = images.shape[-2:]
    height, width = (full_height, full_width) if size is None else (size, size)
    device = images.device
    half = send(torch.tensor([full_width / 2, full_height / 2]), device)
    a, b, c = (matrices / half[:, None])[..., None, None].unbind(dim=2)  # (N, 2, 1, 1) each; the image spans -1 to 1
    xs = torch.arange(width, device=device) - (width - 1) / 2
    ys = torch.arange(height, device=device)[:, None] - (height - 1) / 2
    grid = a * xs + (b * ys + c)  # (N, 2, H, W)
    base = fill.view(1, 3, 1, 1)
    resampled = F.grid_sample(
        images.float() - base,
        grid.permute(0, 2, 3, 1),
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


def composed(outer: Tensor, inner: Tensor) -> Tensor:
    """Matrices `(N, 2, 3)` that apply `inner` to output coordinates and `outer` to its result."""
    linear = outer[:, :, :2] @ inner
    return torch.cat([linear[:, :, :2], linear[:, :, 2:] + outer[:, :, 2:]], dim=2)


CROP_TRIES = 10
"""Number of random crops of which the first that lies inside the image is used, as in torchvision."""


def crop_matrices(
    count: int, full: int, size: int, area: Sequence[float], ratio: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Matrices `(N, 2, 3)` that map outputs of side `size` to random crops of square images of side `full`.

    The distribution is that of torchvision's `RandomResizedCrop`: a share of the area, uniform in `area`, and a ratio
    of width to height, log-uniform in `ratio`. Where no try lies inside the image, the last one is clipped to it.
    """
    drawn = torch.rand((2, CROP_TRIES, count), generator=generator)
    share = area[0] + drawn[0] * (area[1] - area[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + drawn[1] * (high - low))
    extents = torch.stack([(share * aspect).sqrt(), (share / aspect).sqrt()])  # (2, tries, N), of the image's side
    inside = (extents <= 1).all(dim=0)
    inside[-1] = True
    chosen = inside.int().argmax(dim=0)
    extent = extents[:, chosen, torch.arange(count)].clamp(max=1) * full  # (2, N), in pixels
    offset = (torch.rand((2, count), generator=generator) - 0.5) * (full - extent)
    matrices = torch.zeros((count, 2, 3))
    matrices[:, 0, 0], matrices[:, 1, 1] = extent / size
    matrices[:, :, 2] = offset.T
    return matrices


def scaling_matrices(count: int, factor: float) -> Tensor:
    """Matrices `(N, 2, 3)` that show the whole image at `1 / factor` of its size."""
    return torch.eye(2, 3).repeat(count, 1, 1) * factor


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


def flip_mask(first: Tensor, epoch: int, mode: str, generator: torch.Generator) -> Tensor:
    """Which images are mirrored in `epoch`, bool `(N,)`.

    `first` bool `(N,)` is sampled once per run for these images. `alternating` mirrors by `first` in even epochs and by
    its complement in odd ones, so that two consecutive epochs show both versions of every image (arXiv 2404.00498).
    """
    if mode == "none":
        return torch.zeros_like(first)
    if mode == "alternating":
        return first if epoch % 2 == 0 else ~first
    return send(torch.rand(len(first), generator=generator) < 0.5, first.device)


def mirrored(images: Tensor, mask: Tensor) -> Tensor:
    """Mirror the images `(N, 3, H, W)` selected by `mask` bool `(N,)` left to right."""
    return torch.where(mask.view(-1, 1, 1, 1), images.flip(-1), images)


def padded(images: Tensor, shift: int, fill: Border = "reflect") -> Tensor:
    """Pad float images `(N, 3, H, W)` by `shift` pixels on each side.

    `fill` is `reflect`, `edge` (replicate), or `mean` (zero, the mean of normalized images).
    """
    if fill == "mean":
        return F.pad(images, (shift,) * 4)
    if fill == "edge":
        return F.pad(images, (shift,) * 4, mode="replicate")
    while shift > 0:  # torch reflects by less than the image's side at a time
        step = min(shift, min(images.shape[-2:]) - 1)
        images = F.pad(images, (step,) * 4, mode="reflect")
        shift -= step
    return images


def shifted(padded_images: Tensor, size: int, shift: int, generator: torch.Generator) -> Tensor:
    """Crop one window `(N, 3, size, size)` per image from `padded_images`, at uniformly sampled positions."""
    if shift == 0:
        return padded_images
    count = len(padded_images)
    device = padded_images.device
    corners = send(torch.randint(0, 2 * shift + 1, (2, count), generator=generator), device)
    if device.type != "cpu":
        return gather_windows(padded_images, size, corners)
    out = torch.empty((count, 3, size, size), dtype=padded_images.dtype, device=device)
    # at most (2 shift + 1)² windows: on a CPU, copying each group at once is faster than gathering pixel by pixel
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            chosen = (corners[0] == top) & (corners[1] == left)
            out[chosen] = padded_images[chosen, :, top : top + size, left : left + size]
    return out


def gather_windows(images: Tensor, size: int, corners: Tensor) -> Tensor:
    """Windows `(N, 3, size, size)` of images with upper left corners `corners` int64 `(2, N)`, rows then columns.

    Does not synchronize with the device, unlike boolean indexing.
    """
    count, channels, _, width = images.shape
    rows, columns = corners.unsqueeze(2) + torch.arange(size, device=images.device)  # (N, size) each
    tall = images.gather(2, rows.view(count, 1, size, 1).expand(count, channels, size, width))
    return tall.gather(3, columns.view(count, 1, 1, size).expand(count, channels, size, size))


def cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set one square of `side` pixels per image to zero, the mean of normalized images (arXiv 1708.04552).

    The square's center is sampled uniformly over the image, so the square may cross the border.
    """
    if side == 0:
        return images
    count, _, height, width = images.shape
    centers = send(torch.rand((2, count), generator=generator), images.device)
    ys = torch.arange(height, device=images.device) + 0.5
    xs = torch.arange(width, device=images.device) + 0.5
    inside_y = (ys[None] - centers[0, :, None] * height).abs() <= side / 2  # (N, H)
    inside_x = (xs[None] - centers[1, :, None] * width).abs() <= side / 2  # (N, W)
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return images.masked_fill(hole, 0)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize float or uint8 images `(N, 3, H, W)` to `size` × `size`, bilinear with antialiasing."""
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    if images.dtype == torch.uint8 and images.device.type != "cpu":  # torch resizes bytes on CPUs only
        return resized(images.float(), size).round().clamp(0, 255).to(torch.uint8)
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
