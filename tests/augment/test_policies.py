"""Policies: their tables against torchvision's, and properties of every augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from thirtytwo.augment import AUGMENTATIONS, Terms
from thirtytwo.augment.operations import AUTOAUGMENT_SPACE, OPERATIONS, Space, apply_operations
from thirtytwo.augment.policies import AUGMIX_SPACE, PAIRS, POLICY_SPACE, WIDE_SPACE, augmix
from thirtytwo.errors import UnknownNameError

THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "colour": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}
PUBLISHED = ["augmix", "autoaugment", "randaugment", "trivialaugment"]


def terms(seed: int = 0, **changes: Any) -> Terms:
    return Terms(torch.Generator().manual_seed(seed), torch.full((3,), 120.0), **changes)


def noise(count: int, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("ours", "theirs", "bins", "without"),
    [
        (AUTOAUGMENT_SPACE, v2.RandAugment._AUGMENTATION_SPACE, 31, set()),
        (WIDE_SPACE, v2.TrivialAugmentWide._AUGMENTATION_SPACE, 31, set()),
        (POLICY_SPACE, v2.AutoAugment._AUGMENTATION_SPACE, 10, {"identity"}),
        (AUGMIX_SPACE, v2.AugMix._PARTIAL_AUGMENTATION_SPACE, 10, {"identity"}),
    ],
)
def test_ranges_equal_torchvision(ours: Space, theirs: dict[str, Any], bins: int, without: set[str]) -> None:
    assert {THEIRS[name] for name in ours if name not in without} == set(theirs)
    side, strength = 32, torch.linspace(0, 1, bins)
    for name in set(ours) - without:
        make, signed = theirs[THEIRS[name]]
        expected = make(bins, side, side)
        found = ours[name].amount(strength, torch.ones(bins), side)
        assert ours[name].signed == signed
        if expected is None:
            assert found.tolist() == [0] * bins
        elif name == "posterize":
            assert found.round().int().tolist() == expected.tolist()
        else:
            torch.testing.assert_close(found, expected * (255 if name == "solarize" else 1))


def test_autoaugment_policy_equals_torchvision() -> None:
    expected = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    assert [tuple((THEIRS[name], chance, level) for name, chance, level in pair) for pair in PAIRS] == [
        tuple((name, chance, level or 0) for name, chance, level in pair) for pair in expected
    ]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_operations_equal_torchvision(name: str, share: float) -> None:
    """Compared away from the border, where bilinear sampling mixes in the fill, which torchvision counts twice."""
    span = POLICY_SPACE[name]
    images = noise(3)
    amount = span.amount(torch.full((3,), share), torch.ones(3), 16)
    found = OPERATIONS[name](images, amount, torch.full((3,), 120.0))
    magnitude = float(amount[0]) / (255 if name == "solarize" else 1)
    magnitude = round(magnitude) if name == "posterize" else magnitude
    expected = v2.RandAugment()._apply_image_or_video_transform(
        images, THEIRS[name], magnitude, InterpolationMode.BILINEAR, {torch.Tensor: [120.0] * 3}
    )
    whole = torch.ones_like(images, dtype=torch.bool)
    if name.split("_")[0] in ("shear", "rotate"):
        whole = OPERATIONS[name](torch.full_like(images, 255), amount, torch.zeros(3)) == 255
    difference = (found.int() - expected.int()).abs()[whole]
    assert int(difference.max()) <= 2


def test_each_image_gets_its_chosen_operation() -> None:
    images = noise(6)
    names = ["invert", "identity", "posterize", "invert", "equalize", "solarize"]
    chosen = torch.tensor([list(POLICY_SPACE).index(name) for name in names])
    found = apply_operations(images, chosen, torch.full((6,), 0.5), POLICY_SPACE, terms())
    amounts = {"posterize": 6.0, "solarize": 127.5}
    for row, name in enumerate(names):
        expected = OPERATIONS[name](images[row : row + 1], torch.tensor([amounts.get(name, 0.0)]), torch.zeros(3))
        assert torch.equal(found[row : row + 1], expected)


def test_signed_operations_use_both_signs() -> None:
    images = noise(1).repeat(100, 1, 1, 1)
    chosen = torch.full((100,), list(AUTOAUGMENT_SPACE).index("translate_x"))
    found = apply_operations(images, chosen, torch.full((100,), 0.5), AUTOAUGMENT_SPACE, terms())
    right = (found[:, :, :, 0] == 120).all(dim=(1, 2))  # the fill comes in on the left
    assert 30 < int(right.sum()) < 70
    assert torch.equal(right, ~(found[:, :, :, -1] == 120).all(dim=(1, 2)))


def test_published_policies_are_registered() -> None:
    assert set(PUBLISHED) <= set(AUGMENTATIONS.names())
    with pytest.raises(UnknownNameError, match="'randaugment'"):
        AUGMENTATIONS.get("randaugmnt")


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (15, 15), (9, 20), (33, 33)])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_augmentation(name: str, size: tuple[int, int]) -> None:
    """Same shape, unmodified input, randomness only from the generator, and most images changed."""
    augment, images = AUGMENTATIONS.get(name), noise(64, *size)
    before = images.clone()
    torch.manual_seed(0)
    one = augment(images, terms())
    torch.manual_seed(1)
    assert torch.equal(one, augment(images, terms()))
    assert not torch.equal(one, augment(images, terms(1)))
    assert torch.equal(images, before)
    assert one.shape == images.shape
    assert one.dtype == torch.uint8
    assert int((one != images).flatten(1).any(dim=1).sum()) > 32


@pytest.mark.parametrize("name", PUBLISHED)
def test_gray_images_stay_gray(name: str) -> None:
    gray = noise(64)[:, :1].repeat(1, 3, 1, 1)
    found = AUGMENTATIONS.get(name)(gray, terms())
    assert torch.equal(found, found[:, :1].expand_as(found))


@pytest.mark.parametrize("name", PUBLISHED)
def test_memory_layout_does_not_matter(name: str) -> None:
    images, augment = noise(32), AUGMENTATIONS.get(name)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(images, terms()), augment(last, terms()))


def distance(augment: Callable[[Tensor, Terms], Tensor], **changes: Any) -> float:
    """Mean absolute change of images, in gray levels."""
    images = noise(256)
    return float((augment(images, terms(**changes)).float() - images.float()).abs().mean())


@pytest.mark.parametrize("name", ["augmix", "randaugment", "trivialaugment"])
def test_larger_magnitude_changes_more(name: str) -> None:
    augment = AUGMENTATIONS.get(name)
    assert distance(augment, magnitude=1.0) < distance(augment, magnitude=15.0) < distance(augment, magnitude=30.0)
    published = 30.0 if name == "trivialaugment" else 9.0
    assert distance(augment) == distance(augment, magnitude=published)


def test_more_operations_change_more() -> None:
    augment = AUGMENTATIONS.get("randaugment")
    assert distance(augment, num_ops=1) < distance(augment) == distance(augment, num_ops=2)
    assert distance(augment, num_ops=2) < distance(augment, num_ops=4)


def test_autoaugment_samples_pairs_with_their_probabilities() -> None:
    """Only two of 25 pairs invert, each with probability 0.1; a third has probability 0."""
    images = torch.zeros((20_000, 3, 3, 3), dtype=torch.uint8)  # black: only inversion makes it white
    images[:, :, 1, 1] = 1
    found = AUGMENTATIONS.get("autoaugment")(images, terms())
    inverted = (found[:, :, 0, 0] > 200).all(dim=1) & (found[:, :, 1, 1] > 200).all(dim=1)
    assert 2 * 0.1 / 25 * 0.6 < float(inverted.float().mean()) < 2 * 0.1 / 25 * 1.4


def test_augmix_is_a_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    """If every chain only inverts, an image of value v is blended with 255 - v."""
    import thirtytwo.augment.policies as module

    monkeypatch.setattr(module, "apply_operations", lambda images, chosen, *rest: 255 - images)  # three times: inverted
    monkeypatch.setattr(module, "dirichlet", lambda count, parts, generator: torch.full((count, parts), 1 / parts))
    images = torch.full((4, 3, 5, 5), 55, dtype=torch.uint8)
    assert augmix(images, terms()).unique().tolist() == [round(0.5 * 55 + 0.5 * 200)]


def test_augmix_weight_distributions() -> None:
    """Means and variances of the Beta and Dirichlet samples."""
    from thirtytwo.tensors import beta, dirichlet

    generator = torch.Generator().manual_seed(0)
    parts = dirichlet(20_000, 3, generator)
    torch.testing.assert_close(parts.sum(dim=1), torch.ones(20_000))
    torch.testing.assert_close(parts.mean(dim=0), torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    share = beta(20_000, 0.2, generator)
    assert math.isclose(float(share.mean()), 0.5, abs_tol=0.02)
    assert math.isclose(float(share.var()), 1 / (4 * (2 * 0.2 + 1)), abs_tol=0.01)  # Beta(α, α): 1 / (4 (2α + 1))
