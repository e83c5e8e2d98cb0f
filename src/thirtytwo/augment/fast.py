"""Flip, shift, cutout and resize on batches, on the device of the tensor.

All randomness comes from the given generator; the same generator state gives the same batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.geometry import Border


def flip_mask(first: Tensor, epoch: int, mode: str, generator: torch.Generator) -> Tensor:
    """Which images are mirrored in `epoch`, bool `(N,)`.

    `first` bool `(N,)` is sampled once per run for these images. `alternating` mirrors by `first` in even epochs and by
    its complement in odd ones, so that two consecutive epochs show both versions of every image (arXiv 2404.00498).
    """
    if mode == "none":
        return torch.zeros_like(first)
    if mode == "alternating":
        return first if epoch % 2 == 0 else ~first
    return torch.rand(len(first), generator=generator).to(first.device) < 0.5


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
    corners = torch.randint(0, 2 * shift + 1, (2, count), generator=generator).to(device)
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
    centers = torch.rand((2, count), generator=generator).to(images.device)
    ys = torch.arange(height, device=images.device) + 0.5
    xs = torch.arange(width, device=images.device) + 0.5
    inside_y = (ys[None] - centers[0, :, None] * height).abs() <= side / 2  # (N, H)
    inside_x = (xs[None] - centers[1, :, None] * width).abs() <= side / 2  # (N, W)
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return images.masked_fill(hole, 0)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize float images `(N, 3, H, W)` to `size` × `size`, bilinear with antialiasing."""
    if images.shape[-1] == size and images.shape[-2] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
