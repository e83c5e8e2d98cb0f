"""Tensors of images, and random numbers that depend only on a seed and a purpose."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thirtytwo.data.types import ImageSet
from thirtytwo.process import changed


def normalize(
    images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Normalize images uint8 `(N, H, W, 3)` to float `(N, 3, H, W)` in channels-last memory format.

    `mean` and `std` have one value per channel, on a scale from 0 to 1.
    """
    scale = send(torch.tensor([1 / (255 * value) for value in std]), images.device)
    offset = send(torch.tensor([-m / s for m, s in zip(mean, std, strict=True)]), images.device)
    return (images.float() * scale + offset).to(dtype).permute(0, 3, 1, 2)


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy `values` from the CPU to `device` without waiting for the work that the device has queued.

    The copy is queued like any other operation; on the CPU this returns `values` itself.
    """
    return values.to(device, non_blocking=device.type == "cuda")


def to_device(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images uint8 `(N, H, W, 3)` and labels int64 `(N,)` as tensors on `device`.

    On a CPU, the tensor of images shares the memory of the array, or its memory map, so it must not be written to.
    """
    return as_tensor(images.images).to(device), as_tensor(images.labels).to(device)


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """A tensor that shares the memory of `array`, which may be read-only; must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(np.require(array, requirements=["C"]))


SCORED_IMAGES, SCORED_PIXELS = 500, 2**19
"""Images of a batch without gradients at most, and the pixels that limit their number for larger images.

Ten images of 224 pixels: EfficientNet-Lite0 is as fast on a CPU as with 26, whose maps take two and a half times the
memory, or a quarter faster where the C library gives freed memory back after each batch.
"""


def scored_batch_size(side: int) -> int:
    """Number of images of `side` pixels in a batch without gradients, so that its memory is bounded."""
    return max(1, min(SCORED_IMAGES, SCORED_PIXELS // side**2))


def even_batches(count: int, most: int) -> Iterator[slice]:
    """Slices of `count` images in batches of at most `most`, whose sizes differ by one at most.

    From a `most` of 3 on, no batch is left with a single image, which BatchNorm may be unable to normalize.
    """
    batches = -(-count // most)
    for batch in range(batches):
        yield slice(batch * count // batches, (batch + 1) * count // batches)


CHUNK_BYTES = 2**21
"""Size of the maps that are processed at a time where operations follow each other: they stay in a CPU's cache."""


def chunks(maps: Tensor) -> Iterator[slice]:
    """Slices of a batch of maps `(N, C, H, W)`, of about `CHUNK_BYTES` each."""
    return chunks_of(len(maps), maps.nbytes)


def chunks_of(count: int, size: int) -> Iterator[slice]:
    """Slices of `count` maps, which take `size` bytes together, of about `CHUNK_BYTES` each."""
    length = max(1, CHUNK_BYTES * count // max(1, size))
    for start in range(0, count, length):
        yield slice(start, start + length)


def generator_for(seed: int, epoch: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends only on its arguments, so that a resumed epoch repeats the original one."""
    words = np.random.SeedSequence([seed, epoch, *purpose.encode()]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def beta(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Sample float32 `(count,)` from Beta(α, α)."""
    return torch.from_numpy(_numpy(generator).beta(alpha, alpha, count).astype(np.float32))


def dirichlet(count: int, parts: int, generator: torch.Generator) -> Tensor:
    """Sample float32 `(count, parts)` from the flat Dirichlet distribution; rows sum to 1."""
    return torch.from_numpy(_numpy(generator).dirichlet([1.0] * parts, count).astype(np.float32))


def _numpy(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(0, 2**62, (), generator=generator)))


@contextmanager
def preserve_torch_state() -> Iterator[None]:
    """Restore PyTorch's number of threads and random state, which training sets, on exit; also a decorator.

    State that libraries set when they are first imported stays.
    """
    with changed("threads", torch.get_num_threads, torch.set_num_threads), preserve_random_state():
        yield


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore PyTorch's random state on exit."""
    with ExitStack() as stack:
        stack.enter_context(changed("random", torch.get_rng_state, torch.set_rng_state))
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            stack.enter_context(changed("cuda random", torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        yield
