"""Color operations against torchvision and PIL, image by image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from thirtytwo.augment import color

SIZES = [(32, 32), (17, 24), (3, 3)]


def make_images(count: int, height: int, width: int) -> Tensor:
    """Noise, with one gray image, one of a single color, and a dark one with few values."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    images[0] = images[0, :1]
    images[1] = torch.tensor([40, 90, 200], dtype=torch.uint8)[:, None, None]
    images[2] = images[2] // 64 + 20
    return images


Change = Callable[[Tensor, Tensor], Tensor]
Reference = Callable[[Tensor, float], Tensor]
FACTORS = (0.0, 0.3, 1.0, 1.7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("change", "reference", "amounts", "off_by"),
    [
        (color.brightened, functional.adjust_brightness, FACTORS, 1),
        (color.contrasted, functional.adjust_contrast, FACTORS, 2),
        (color.saturated, functional.adjust_saturation, FACTORS, 2),
        (color.sharpened, functional.adjust_sharpness, FACTORS, 1),
        (color.shift_hue, functional.adjust_hue, (-0.5, -0.2, 0.0, 0.1, 0.35), 1),
        (color.solarized, functional.solarize, (0.0, 100.0, 127.5, 255.0), 0),
        (color.posterized, lambda image, bits: functional.posterize(image, int(bits)), (1.0, 2.0, 5.0, 8.0), 0),
    ],
)
def test_color_operations_equal_torchvision(
    change: Change, reference: Reference, amounts: tuple[float, ...], off_by: int, size: tuple[int, int]
) -> None:
    """Each image of a batch has its own amount; torchvision truncates where thirtytwo rounds."""
    images = make_images(4 * len(amounts), *size)
    spread = torch.tensor(amounts).repeat(4)
    found = change(images, spread)
    assert found.dtype == torch.uint8
    for one, image, amount in zip(found, images, spread, strict=True):
        difference = (one.int() - reference(image, float(amount)).int()).abs()
        assert int(difference.max()) <= off_by


@pytest.mark.parametrize(
    ("change", "reference"),
    [
        (color.brightened, ImageEnhance.Brightness),
        (color.contrasted, ImageEnhance.Contrast),
        (color.saturated, ImageEnhance.Color),
        (color.sharpened, ImageEnhance.Sharpness),
    ],
)
def test_color_operations_equal_pil(change: Change, reference: Callable[[Image.Image], ImageEnhance._Enhance]) -> None:
    images = make_images(6, 16, 16)
    for factor in FACTORS:
        found = change(images, torch.full((6,), factor))
        for one, image in zip(found, images, strict=True):
            enhanced = reference(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
            difference = np.abs(one.permute(1, 2, 0).numpy().astype(int) - np.asarray(enhanced, dtype=int))
            assert difference.max() <= 2


@pytest.mark.parametrize(
    ("change", "reference"), [(color.autocontrasted, ImageOps.autocontrast), (color.equalized, ImageOps.equalize)]
)
def test_histogram_operations_equal_pil(
    change: Callable[[Tensor], Tensor], reference: Callable[[Image.Image], Image.Image]
) -> None:
    images = make_images(8, 16, 16)
    for one, image in zip(change(images), images, strict=True):
        expected = np.asarray(reference(Image.fromarray(image.permute(1, 2, 0).numpy())))
        assert np.abs(one.permute(1, 2, 0).numpy().astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("bits", "expected"), [(0, 0), (1, 128), (4, 176), (8, 181)])
def test_posterized_keeps_the_upper_bits(bits: int, expected: int) -> None:
    image = torch.full((1, 3, 2, 2), 181, dtype=torch.uint8)  # 10110101
    assert color.posterized(image, torch.tensor([float(bits)])).unique().tolist() == [expected]


def test_hue_by_hand() -> None:
    """A third of the color circle turns red into green; gray has no hue."""
    image = torch.tensor([[255, 0, 0], [90, 90, 90]], dtype=torch.uint8).T.reshape(1, 3, 1, 2)
    found = color.shift_hue(image, torch.tensor([1 / 3]))
    assert found[0, :, 0].T.tolist() == [[0, 255, 0], [90, 90, 90]]


def test_too_small_to_sharpen() -> None:
    images = make_images(3, 2, 9)
    assert torch.equal(color.sharpened(images, torch.full((3,), 1.9)), images)
