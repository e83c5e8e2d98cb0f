"""Training batches from tensors that stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thirtytwo.data.types import ImageSet


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of images uint8 `(N, H, W, 3)`, on a scale from 0 to 1."""
    total = np.zeros(3)
    squares = np.zeros(3)
    for start in range(0, len(images), 4096):
        chunk = images[start : start + 4096].reshape(-1, 3)
        counts = np.stack([np.bincount(chunk[:, channel], minlength=256) for channel in range(3)])
        levels = np.arange(256) / 255
        total += counts @ levels
        squares += counts @ levels**2
    pixels = max(1, images.shape[0] * images.shape[1] * images.shape[2])
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return tuple(float(value) for value in mean.round(6)), tuple(float(value) for value in deviation.round(6))


def normalised(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalize images uint8 `(N, H, W, 3)` to float `(N, 3, H, W)` in channels-last memory format.

    `mean` and `std` have one value per channel, on a scale from 0 to 1.
    """
    scale = torch.tensor([1 / (255 * value) for value in std], device=images.device)
    offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    return (images.float() * scale + offset).to(dtype).permute(0, 3, 1, 2)


def to_device(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images uint8 `(N, H, W, 3)` and labels int64 `(N,)` as tensors on `device`; memory maps are copied."""
    pixels, labels = (np.require(part, requirements=["C", "W"]) for part in (images.images, images.labels))
    return torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)


class Batches:
    """Iterable over the batches of one epoch; the order depends only on `seed` and `epoch`.

    Each image is used once; where `chances` float `(N,)` are set, as many images are sampled with replacement, with
    these weights.

    Args:
        count: number of training images N.
        batch_size: images per batch B; the incomplete last batch is dropped.
        seed: seed of the order.
        make: returns images and labels for `(positions int64 (B,), epoch, step within the epoch)`.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, make: Callable[[Tensor, int, int], tuple[Tensor, Tensor]]
    ) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.seed = seed
        self.epoch = 0
        self.chances: Tensor | None = None
        self._make = make

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch
        order = self._order(generator_for(self.seed, epoch, "order"))
        for step in range(len(self)):
            yield self._make(order[step * self.batch_size : (step + 1) * self.batch_size], epoch, step)

    def _order(self, generator: torch.Generator) -> Tensor:
        if self.chances is None:
            return torch.randperm(self.count, generator=generator)
        return torch.multinomial(self.chances, self.count, replacement=True, generator=generator)


def generator_for(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends only on its arguments, so that a resumed epoch repeats the original one."""
    words = np.random.SeedSequence([seed, epoch, *purpose.encode()]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
