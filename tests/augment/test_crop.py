"""Random resized crops against torchvision, one image at a time."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from thirtytwo.augment.augmenter import Augmenter
from thirtytwo.augment.geometry import affine_matrices, composed, crop_matrices, scaling_matrices, warp
from thirtytwo.config.augmentation import AugmentSettings
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import parse_settings
from thirtytwo.errors import RecipeError
from thirtytwo.tensors import generator_for, normalize

BLACK = torch.zeros(3)


def noise(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("full", "size"), [(24, 16), (20, 20), (16, 32), (40, 10)])
def test_a_crop_is_a_resize_of_its_box(full: int, size: int) -> None:
    images = noise(3, full)
    box = (2, 4, full // 2, full - 6)  # top, left, height, width
    top, left, height, width = box
    matrix = torch.tensor(
        [
            [width / size, 0.0, left + width / 2 - full / 2],
            [0.0, height / size, top + height / 2 - full / 2],
        ]
    )
    found = warp(images, matrix.repeat(3, 1, 1), BLACK, "edge", size)
    expected = torch.nn.functional.interpolate(
        functional.crop(images, *box).float(), (size, size), mode="bilinear", align_corners=False
    )
    inner = slice(size // 4, -size // 4)  # at the border the box is not the end of the image
    assert found.shape == (3, 3, size, size)
    assert (found.float() - expected.round())[..., inner, inner].abs().max() <= 1


@pytest.mark.parametrize(
    ("area", "ratio"), [((0.35, 1.0), (0.75, 4 / 3)), ((0.08, 0.2), (1.0, 1.0)), ((1.0, 1.0), (1, 1))]
)
def test_crops_lie_inside_and_have_the_area_and_ratio(area: tuple[float, float], ratio: tuple[float, float]) -> None:
    matrices = crop_matrices(2000, 50, 20, area, ratio, torch.Generator().manual_seed(0))
    extent = torch.stack([matrices[:, 0, 0], matrices[:, 1, 1]]) * 20
    reach = matrices[:, :, 2].T.abs() + extent / 2
    assert float(reach.max()) <= 25 + 1e-4
    share, aspect = extent.prod(dim=0) / 2500, extent[0] / extent[1]
    assert area[0] - 1e-4 <= float(share.min()) <= float(share.max()) <= area[1] + 1e-4
    assert ratio[0] - 1e-4 <= float(aspect.min()) <= float(aspect.max()) <= ratio[1] + 1e-4
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(noise(1, 50)[0], list(area), list(ratio)) for _ in range(500)]
    expected = sum(height * width for _, _, height, width in theirs) / len(theirs) / 2500
    assert float(share.mean()) == pytest.approx(expected, abs=0.03)  # theirs are rounded to whole pixels


def test_composition_is_crop_after_rotation() -> None:
    crop = torch.tensor([[[0.5, 0.0, 3.0], [0.0, 0.5, -2.0]]])
    turn = affine_matrices(torch.tensor([30.0]))
    point = torch.tensor([4.0, -1.0, 1.0])
    inner = torch.cat([turn[0] @ point, torch.ones(1)])
    assert torch.allclose(composed(crop, turn)[0] @ point, crop[0] @ inner)


def test_without_crop_larger_copies_are_scaled_down() -> None:
    images = noise(2, 24)
    found = warp(images, scaling_matrices(2, 1.5), BLACK, "edge", 16)
    expected = torch.nn.functional.interpolate(images.float(), (16, 16), mode="bilinear", align_corners=False)
    assert (found.float() - expected.round()).abs().max() <= 1


def test_augmenter_crops_larger_copies_and_per_class() -> None:
    settings = AugmentSettings.model_validate({"flip": "none", "classes": {"b": {"crop": (0.3, 0.6)}}})
    pixels = noise(6, 24).permute(0, 2, 3, 1).contiguous()
    augment = Augmenter(settings, (0.5,) * 3, (0.5,) * 3, ("a", "b"))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    draw = partial(generator_for, 0, 0)
    found = augment(pixels, labels > 5, augment.lookup_tables(labels), 0, draw, 16)
    again = augment(pixels, labels > 5, augment.lookup_tables(labels), 0, draw, 16)
    assert found.shape == (6, 3, 16, 16)
    assert torch.equal(found, again)
    plain = warp(pixels.permute(0, 3, 1, 2), scaling_matrices(6, 1.5), torch.full((3,), 127.5), "reflect", 16)
    scaled = normalize(plain.permute(0, 2, 3, 1), (0.5,) * 3, (0.5,) * 3)
    same = [torch.allclose(one, other) for one, other in zip(found, scaled, strict=True)]
    assert same == [True, False] * 3


@pytest.mark.parametrize(
    "augment", [{"crop": [0.5]}, {"crop": [0.9, 0.5]}, {"crop": [0.0, 1.0]}, {"crop_ratio": [2.0, 1.0]}]
)
def test_wrong_crops(augment: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        parse_settings(Recipe, {"name": "x", "model": {"name": "fastnet"}, "augment": augment}, "Recipe")
