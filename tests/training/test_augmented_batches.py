"""Training batches: they follow the recipe, are deterministic, and those of `fast` are unchanged."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from thirtytwo.augment.geometry import cutout, flip_mask, mirrored, padded, resized, shifted
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.tensors import generator_for, normalize
from thirtytwo.training.batches import TrainingBatches

COUNT, SIZE = 96, 16
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8))
LABELS = torch.arange(COUNT) % 7
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def fast(
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    *,
    augment: dict[str, object],
    stages: bool = False,
    classes: tuple[str, ...] = (),
    memory_format: torch.memory_format = torch.contiguous_format,
) -> TrainingBatches:
    """Batches of the recipe `fast` with changes to `[augment]`, on 96 images in batches of 32."""
    named = {f"augment.{key}": value for key, value in augment.items()}
    sizes = [{"size": 8, "until": 0.5}] if stages else []
    overrides = {"schedule.batch_size": 32, "schedule.epochs": 2, "schedule.resolution": sizes} | named
    recipe = resolve_recipe(read_recipe_values("fast"), overrides, classes=10, rows=45_000)
    return TrainingBatches(PIXELS, LABELS, mean, std, recipe, memory_format, classes)


@pytest.mark.parametrize(
    ("flip", "side", "expected"),
    [
        ("alternating", 0, "d58142a49597a36850d38cfb242f9c85241c807eef69642e836ec0a555bd7ce3"),
        ("random", 5, "b1bfc84976e47f56e796870f2944df5616893c718b96ee1790e92ffc1cf31ed4"),
    ],
)
def test_fast_batches_are_unchanged(flip: str, side: int, expected: str) -> None:
    """With mean 0 and a std of one level, batches are integers, equal on every machine."""
    batches = fast((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), augment={"flip": flip, "cutout": side})
    found = hashlib.sha256()
    for epoch in range(2):
        batches.epoch = epoch
        for images, labels in batches:
            assert torch.equal(images, images.round())
            found.update(images.byte().numpy().tobytes())
            found.update(labels.numpy().tobytes())
    assert found.hexdigest() == expected


@pytest.mark.parametrize("stages", [False, True])
@pytest.mark.parametrize("flip", ["alternating", "random"])
def test_fast_step_by_step(flip: str, stages: bool) -> None:
    batches = fast(stages=stages, augment={"flip": flip, "cutout": 5})
    first = torch.rand(COUNT, generator=generator_for(0, 0, "flip")) < 0.5
    for epoch in range(2):
        batches.epoch = epoch
        order = torch.randperm(COUNT, generator=generator_for(0, epoch, "order"))
        for step, (images, labels) in enumerate(batches):
            positions = order[step * 32 : step * 32 + 32]
            generator = generator_for(0, epoch * 3 + step, "augment")
            expected = normalize(PIXELS[positions], MEAN, STD)
            expected = mirrored(expected, flip_mask(first[positions], epoch, flip, generator))
            expected = shifted(padded(expected, 2), SIZE, 2, generator)
            expected = cutout(expected, 5, generator)
            expected = resized(expected, 8 if stages and epoch == 0 else SIZE)
            assert torch.equal(images, expected)
            assert torch.equal(labels, LABELS[positions])


CLASSES = tuple(f"class {number}" for number in range(10))
ALL: dict[str, object] = {
    "policy": "randaugment",
    "rotate": 10,
    "hue": 0.1,
    "erase": 0.3,
    "mixup": 0.4,
    "cutmix": 1.0,
    "classes": {"class 3": {"policy": "augmix", "flip": "none"}},
}


def test_all_augmentations_are_deterministic() -> None:
    """Also in the middle of an epoch of an interrupted run."""
    one, other = (fast(classes=CLASSES, augment=ALL) for _ in range(2))
    torch.manual_seed(0)
    list(other)
    one.epoch = other.epoch = 1
    torch.manual_seed(1)
    expected = list(one)
    for (images, targets), (again, labels) in zip(other, expected, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(targets, labels)
    order = torch.randperm(COUNT, generator=generator_for(0, 1, "order"))
    images, targets = other.batch(order[64:], 1, 2)
    assert torch.equal(images, expected[2][0])
    assert torch.equal(targets, expected[2][1])


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_targets(changes: dict[str, object]) -> None:
    for images, targets in fast(classes=CLASSES, augment=changes, stages=True):
        assert images.shape == (32, 3, 8, 8)
        assert targets.shape == (32, 10)
        assert targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(32))
        assert int((targets[:, 7:] > 0).sum()) == 0, "labels are 0 to 6"
    with pytest.raises(ValueError, match="classes"):
        fast(augment=changes)


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_shares_differ_between_steps(changes: dict[str, object]) -> None:
    batches = fast(classes=CLASSES, augment=changes)
    positions = torch.arange(32)
    first, second = (batches.batch(positions, 0, step)[1].max(dim=1).values for step in range(2))
    assert not torch.equal(first.sort().values, second.sort().values)


def test_cutmix_shares_are_exact_at_every_size() -> None:
    for _, targets in fast(classes=CLASSES, augment={"cutmix": 1.0}, stages=True):
        pixels = targets * 64
        torch.testing.assert_close(pixels, pixels.round(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_batches_have_the_requested_layout(memory_format: torch.memory_format) -> None:
    for changes in ({}, {"policy": "augmix"}, {"mixup": 1.0}, {"cutmix": 1.0}):
        images, _ = next(iter(fast(classes=CLASSES, augment=changes, memory_format=memory_format)))
        assert images.is_contiguous(memory_format=memory_format)
