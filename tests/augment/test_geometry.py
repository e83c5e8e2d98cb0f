"""Rotation, scale, shear and translation against torchvision, image by image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from thirtytwo.augment.geometry import Border, affine_matrices, shear_matrices, translation_matrices, warp

BILINEAR = InterpolationMode.BILINEAR
FILL = torch.tensor([10.0, 200.0, 90.0])
IDENTITY = torch.eye(2, 3)
SIZES = [(32, 32), (17, 24), (8, 8), (5, 9)]


def noise(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def assert_same(images: Tensor, matrices: Tensor, expected: list[Tensor]) -> None:
    """Equal up to rounding away from the border, and equal to the fill outside the image."""
    found = warp(images, matrices, FILL)
    whole = warp(torch.full_like(images, 255), matrices, torch.zeros(3))
    assert found.dtype == torch.uint8
    inside, outside = whole == 255, whole == 0
    difference = (found.int() - torch.stack(expected).int()).abs()
    assert int(difference[inside].max()) <= 1
    assert int(difference[outside].sum()) == 0
    assert int(inside.sum()) > 0


@pytest.mark.parametrize("size", SIZES)
def test_rotation(size: tuple[int, int]) -> None:
    images, angles = noise(5, *size), [-140.0, -30.0, 0.0, 12.5, 90.0]
    expected = [
        functional.rotate(one, angle, BILINEAR, fill=FILL.tolist()) for one, angle in zip(images, angles, strict=True)
    ]
    assert_same(images, affine_matrices(torch.tensor(angles)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_rotation_zoom_and_shear_at_once(size: tuple[int, int]) -> None:
    images = noise(4, *size)
    amounts = [(20.0, 1.2, 10.0), (-35.0, 0.8, 0.0), (0.0, 1.5, -25.0), (5.0, 0.7, 30.0)]
    expected = [
        functional.affine(one, -angle, [0, 0], scale, [shear, 0.0], BILINEAR, fill=FILL.tolist())
        for one, (angle, scale, shear) in zip(images, amounts, strict=True)
    ]
    assert_same(images, affine_matrices(*torch.tensor(amounts).T), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_translation_by_whole_pixels(axis: int, size: tuple[int, int]) -> None:
    images, amounts = noise(4, *size), [0.0, 3.9, -2.2, 1.0]
    steps = [[int(amount), 0] if axis == 0 else [0, int(amount)] for amount in amounts]
    expected = [
        functional.affine(one, 0.0, step, 1.0, [0.0, 0.0], BILINEAR, fill=FILL.tolist())
        for one, step in zip(images, steps, strict=True)
    ]
    found = warp(images, translation_matrices(torch.tensor(amounts), axis), FILL)  # type: ignore[arg-type]
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_shear_about_the_upper_left_corner(axis: int, size: tuple[int, int]) -> None:
    images, amounts = noise(3, *size), [0.3, -0.2, 0.0]
    expected = []
    for one, amount in zip(images, amounts, strict=True):
        shear = [0.0, 0.0]
        shear[axis] = math.degrees(math.atan(amount))
        expected.append(functional.affine(one, 0.0, [0, 0], 1.0, shear, BILINEAR, fill=FILL.tolist(), center=[0, 0]))
    assert_same(images, shear_matrices(torch.tensor(amounts), axis, *size), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("border", ["reflect", "edge", "mean"])
def test_identity_matrix_changes_nothing(border: Border) -> None:
    images = noise(3, 9, 7)
    assert torch.equal(warp(images, IDENTITY.repeat(3, 1, 1), FILL, border), images)


@pytest.mark.parametrize(
    ("border", "expected"), [("edge", [10, 10, 10, 20]), ("reflect", [20, 10, 10, 20]), ("mean", [10, 10, 10, 20])]
)
def test_border_modes(border: Border, expected: list[int]) -> None:
    """A row 10 20 30 40, translated right by two."""
    row = torch.tensor([10, 20, 30, 40], dtype=torch.uint8).expand(1, 3, 4, 4)
    found = warp(row, translation_matrices(torch.tensor([2.0]), 0), torch.full((3,), 10.0), border)
    assert found[0, 1, 2].tolist() == expected


def test_one_matrix_per_image() -> None:
    images = noise(2, 8, 8)
    both = warp(images, affine_matrices(torch.tensor([0.0, 90.0])), FILL)
    assert torch.equal(both[0], images[0])
    assert torch.equal(both[1], images[1].rot90(1, (1, 2)))
