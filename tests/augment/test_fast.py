"""Batched augmentation against the same operation on single images."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from thirtytwo.augment.geometry import cutout, flip_mask, gather_windows, mirrored, padded, resized, shifted


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int = 8) -> Tensor:
    return torch.rand((count, 3, size, size), generator=drawn(99)) + 0.1


def test_alternating_flip_gives_both_versions_in_two_epochs() -> None:
    first = torch.rand(100, generator=drawn()) < 0.5
    masks = [flip_mask(first, epoch, "alternating", drawn()) for epoch in range(4)]
    for one, next_one in pairwise(masks):
        assert bool((one ^ next_one).all())
    assert 30 < int(masks[0].sum()) < 70


@pytest.mark.parametrize(("mode", "low", "high"), [("none", 0, 0), ("random", 400, 600)])
def test_flip_mask(mode: str, low: int, high: int) -> None:
    mask = flip_mask(torch.zeros(1000, dtype=torch.bool), 3, mode, drawn())
    assert mask.dtype == torch.bool
    assert low <= int(mask.sum()) <= high


def test_mirrored_flips_only_masked_images() -> None:
    images = noise(4)
    mask = torch.tensor([True, False, True, False])
    expected = np.stack(
        [image[:, :, ::-1] if turn else image for image, turn in zip(images.numpy(), mask, strict=True)]
    )
    np.testing.assert_array_equal(mirrored(images, mask).numpy(), expected)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_padded_reflects(shift: int) -> None:
    images = noise(2)
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (shift, shift), (shift, shift)), mode="reflect")
    np.testing.assert_array_equal(padded(images, shift).numpy(), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shifted_crops_uniformly_sampled_windows(memory_format: torch.memory_format) -> None:
    size, shift, count = 8, 2, 1000
    wide = padded(noise(count, size), shift).contiguous(memory_format=memory_format)
    out = shifted(wide, size, shift, drawn())
    assert out.shape == (count, 3, size, size)
    places = np.zeros((5, 5), dtype=int)
    for number in range(count):
        windows = wide[number].unfold(1, size, 1).unfold(2, size, 1)  # (3, 5, 5, size, size)
        same = (windows.permute(1, 2, 0, 3, 4) == out[number]).flatten(2).all(dim=2)
        assert int(same.sum()) == 1, "exactly one window of the same image"
        places += same.numpy()
    assert places.min() > count / 25 / 2
    assert places.max() < count / 25 * 2


@pytest.mark.parametrize("shift", [1, 4])
def test_gathered_windows_equal_grouped_windows(shift: int) -> None:
    wide = padded(noise(50), shift)
    places = torch.randint(0, 2 * shift + 1, (2, 50), generator=drawn(3))
    assert torch.equal(gather_windows(wide, 8, places), shifted(wide, 8, shift, drawn(3)))


def test_shift_of_zero() -> None:
    images = noise(3)
    assert torch.equal(shifted(images, 8, 0, drawn()), images)


@pytest.mark.parametrize("side", [1, 3, 4, 8, 20])
def test_cutout_is_one_square_of_zeros(side: int) -> None:
    images = noise(200)
    out = cutout(images, side, drawn())
    gone = (out == 0).all(dim=1)  # (N, H, W)
    assert torch.equal((out == 0).any(dim=1), gone), "all channels alike"
    assert torch.equal(out[~gone[:, None].expand_as(out)], images[~gone[:, None].expand_as(images)])
    rows, columns = gone.any(dim=2), gone.any(dim=1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None, :]), "a rectangle"
    area = gone.sum(dim=(1, 2))
    assert int(area.max()) == min(side, 8) ** 2
    assert int(area.min()) >= (side // 2) ** 2 or side >= 8, "a corner at least is inside"
    for filled in (rows, columns):  # without holes
        assert int((filled.int().diff(dim=1) == 1).sum(dim=1).max()) <= 1


def test_cutout_off() -> None:
    images = noise(2)
    assert cutout(images, 0, drawn()) is images


@pytest.mark.parametrize("size", [8, 5, 16])
def test_resized(size: int) -> None:
    images = noise(2)
    out = resized(images, size)
    assert out.shape == (2, 3, size, size)
    if size == 8:
        assert out is images
    flat = resized(torch.full((1, 3, 8, 8), 0.25), size)
    torch.testing.assert_close(flat, torch.full((1, 3, size, size), 0.25))


def test_resize_to_half_averages_neighbours() -> None:
    """Antialiased: a one-pixel chessboard becomes gray, where plain bilinear sampling would alias."""
    board = (torch.arange(16)[:, None] + torch.arange(16)[None]) % 2
    out = resized(board.float().expand(1, 3, 16, 16), 8)
    torch.testing.assert_close(out, torch.full((1, 3, 8, 8), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda images, generator: shifted(padded(images, 2), 8, 2, generator),
        lambda images, generator: cutout(images, 4, generator),
        lambda images, generator: mirrored(
            images, flip_mask(torch.zeros(len(images), dtype=torch.bool), 0, "random", generator)
        ),
    ],
)
def test_generator_decides(change: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    images = noise(32)
    torch.manual_seed(0)
    one = change(images, drawn(5))
    torch.manual_seed(1)
    assert torch.equal(one, change(images, drawn(5)))
    assert not torch.equal(one, change(images, drawn(6)))
