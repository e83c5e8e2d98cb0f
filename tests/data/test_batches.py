"""Statistics, normalisation, and the order of training batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from thirtytwo.data.channels import channel_statistics
from thirtytwo.data.types import ImageSet
from thirtytwo.tensors import generator_for, normalize, to_device
from thirtytwo.training.batches import Batches


@pytest.mark.parametrize(("count", "height", "width"), [(1, 8, 8), (5, 9, 7), (5000, 4, 4)])
def test_channel_statistics_are_numpys(count: int, height: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, [80, 160, 256], (count, height, width, 3)).astype(np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255, atol=1e-6)


def test_one_colour_has_a_deviation_to_divide_by() -> None:
    mean, std = channel_statistics(np.full((3, 8, 8, 3), 51, dtype=np.uint8))
    assert mean == (0.2, 0.2, 0.2)
    assert min(std) > 0


def test_normalised_is_the_plain_formula() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    out = normalize(torch.from_numpy(pixels), mean, std)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    pixels = np.random.default_rng(2).integers(0, 200, (50, 8, 8, 3), dtype=np.uint8)
    out = normalize(torch.from_numpy(pixels), *channel_statistics(pixels))
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("step", [1, -1])
def test_to_device_takes_a_read_only_view(step: int) -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)[:, ::step]
    images.flags.writeable = False
    given = ImageSet(images, np.array([1, 0]), ("a", "b"), np.arange(2))
    pixels, labels = to_device(given, torch.device("cpu"))
    np.testing.assert_array_equal(pixels.numpy(), images)
    assert labels.tolist() == [1, 0]


def every(batches: list[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch]


def seen(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    def make(positions: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        return positions, torch.tensor([epoch, step])

    batches = Batches(count, batch_size, seed, make)
    batches.epoch = epoch
    steps = list(batches)
    assert [mark.tolist() for _, mark in steps] == [[epoch, step] for step in range(len(batches))]
    return [positions.tolist() for positions, _ in steps]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    one = seen(20, 5, seed=3, epoch=2)
    torch.manual_seed(123)
    assert seen(20, 5, seed=3, epoch=2) == one
    assert seen(20, 5, seed=3, epoch=1) != one
    assert seen(20, 5, seed=4, epoch=2) != one
    assert sorted(every(one)) == list(range(20))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(20, 5, [5] * 4), (23, 5, [5] * 4), (4, 5, [4]), (5, 5, [5]), (1, 1000, [1])]
)
def test_remainder_is_left_and_a_batch_is_no_larger_than_the_data(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    batches = seen(count, batch_size, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == sizes
    assert len(set(every(batches))) == sum(sizes), "nothing twice"


def test_remainder_is_another_one_each_epoch() -> None:
    left = [set(range(11)) - set(every(seen(11, 5, seed=0, epoch=epoch))) for epoch in range(5)]
    assert len({frozenset(rest) for rest in left}) > 1


def test_generators_of_other_purposes_differ() -> None:
    names = [(0, 0, "order"), (0, 1, "order"), (1, 0, "order"), (0, 0, "augment")]
    draws = [torch.rand(4, generator=generator_for(*name)) for name in names]
    assert torch.equal(draws[0], torch.rand(4, generator=generator_for(*names[0])))
    assert len({tuple(draw.tolist()) for draw in draws}) == len(names)
