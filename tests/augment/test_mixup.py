"""MixUp and CutMix: images and targets have the same shares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.augment.augmenter import mix, uses_mixing
from thirtytwo.config.augmentation import AugmentSettings

CLASSES = 64


def levels(count: int = CLASSES, height: int = 12, width: int = 12) -> tuple[Tensor, Tensor]:
    """Image i has the single value i and class i, so that mixtures can be identified."""
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 3, height, width).clone(), torch.arange(count)


def mixed(seed: int = 0, images: Tensor | None = None, **changes: Any) -> tuple[Tensor, Tensor]:
    originals, labels = levels()
    settings = AugmentSettings(**changes)
    return mix(originals if images is None else images, labels, CLASSES, settings, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_blends_images_and_labels_in_proportion(alpha: float) -> None:
    """The value of a blend is the mean class index under its target."""
    images, targets = mixed(mixup=alpha)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(CLASSES))
    assert int((targets > 0).sum(dim=1).max()) == 2
    expected = targets @ torch.arange(float(CLASSES))
    torch.testing.assert_close(images, expected.view(-1, 1, 1, 1).expand_as(images), rtol=1e-5, atol=1e-4)


def test_shares_are_sampled_per_image() -> None:
    _, targets = mixed(mixup=1.0)
    own = targets.diagonal()
    assert len(own.unique()) > CLASSES // 2
    assert 0.35 < float(own.mean()) < 0.65


@pytest.mark.parametrize("size", [(12, 12), (7, 7), (8, 13), (32, 32)])
def test_cutmix_targets_equal_box_areas(size: tuple[int, int]) -> None:
    originals, labels = levels(CLASSES, *size)
    generator = torch.Generator().manual_seed(2)
    images, targets = mix(originals, labels, CLASSES, AugmentSettings(cutmix=1.0), generator)
    boxed = 0
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        values, counts = image[0].unique(return_counts=True)
        assert torch.equal(image, image[:1].expand_as(image)), "all channels alike"
        shares = torch.zeros(CLASSES).index_put((values.long(),), counts / counts.sum())
        torch.testing.assert_close(target, shares, atol=1e-6, rtol=0)
        if len(values) == 2:
            boxed += 1
            inside = image[0] != place
            rows, columns = inside.any(dim=1), inside.any(dim=0)
            assert torch.equal(inside, rows[:, None] & columns[None]), "a rectangle"
            for filled in (rows, columns):
                assert int(filled.int().diff().eq(1).sum()) <= 1, "without holes"
    assert boxed > CLASSES // 2


def test_cutmix_boxes_have_the_sampled_area() -> None:
    """Beta(1, 1) is uniform: complete boxes would leave half on average, clipped ones leave more."""
    originals, labels = levels(CLASSES, 32, 32)
    own = torch.cat(
        [
            mix(originals, labels, CLASSES, AugmentSettings(cutmix=1.0), torch.Generator().manual_seed(seed))[1]
            .diagonal()
            .clone()
            for seed in range(40)
        ]
    )
    assert 0.55 < float(own.mean()) < 0.75
    assert float(own.min()) < 0.1


def test_mixup_and_cutmix_are_equally_likely() -> None:
    images, _ = mixed(mixup=8.0, cutmix=8.0)
    flat = images.flatten(1)
    blended = (flat == flat[:, :1]).all(dim=1) & (flat[:, 0] != torch.arange(CLASSES))
    pasted = ~(flat == flat[:, :1]).all(dim=1)
    assert 15 < int(blended.sum()) < 49
    assert 15 < int(pasted.sum()) < 49


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mix_share_limits_mixing(kind: str) -> None:
    originals, _ = levels()
    images, targets = mixed(**{kind: 1.0, "mix_share": 0.25})
    alone = targets.diagonal() == 1
    assert 32 < int(alone.sum()) < 62
    assert torch.equal(images[alone], originals[alone])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"mixup": 0.2}, True), ({"cutmix": 1.0}, True), ({"mixup": 0.2, "mix_share": 0.0}, False)],
)
def test_when_labels_become_soft(changes: dict[str, float], expected: bool) -> None:
    assert uses_mixing(AugmentSettings(**changes)) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_generator_decides(changes: dict[str, float]) -> None:
    torch.manual_seed(0)
    one = mixed(**changes)
    torch.manual_seed(1)
    again, other = mixed(**changes), mixed(seed=1, **changes)
    assert all(torch.equal(first, second) for first, second in zip(one, again, strict=True))
    assert not torch.equal(one[1], other[1])


def test_batch_of_one_is_unchanged() -> None:
    image = torch.rand(1, 3, 8, 8)
    settings = AugmentSettings(mixup=1.0, cutmix=1.0)
    images, targets = mix(image, torch.tensor([2]), 4, settings, torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, image)
    assert targets.tolist() == [[0, 0, 1, 0]]


def test_loss_is_linear_in_soft_targets() -> None:
    """Cross-entropy is linear in soft targets."""
    _, targets = mixed(mixup=1.0)
    logits = torch.randn(CLASSES, CLASSES, generator=torch.Generator().manual_seed(4))
    each = F.cross_entropy(
        logits.repeat_interleave(CLASSES, 0), torch.arange(CLASSES).repeat(CLASSES), reduction="none"
    )
    expected = (each.view(CLASSES, CLASSES) * targets).sum(dim=1)
    torch.testing.assert_close(F.cross_entropy(logits, targets, reduction="none"), expected)
