"""Augmentation of single images by `[augment]`, for all classes and for single ones."""

from __future__ import annotations

import tomllib
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from thirtytwo.augment import AUGMENTATIONS, Terms
from thirtytwo.augment.augmenter import Augmenter, check_augment, erased, mix
from thirtytwo.augment.geometry import padded, resized
from thirtytwo.config.augmentation import AugmentSettings
from thirtytwo.config.resolve import resolve_recipe
from thirtytwo.errors import RecipeError, UnknownNameError
from thirtytwo.tensors import generator_for, normalize

CLASSES = ("cat", "dog", "frog")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
LABELS = torch.arange(60) % 3


def noise(count: int = 60, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def settings(**changes: Any) -> AugmentSettings:
    """Resolved `[augment]` of a recipe, without mirroring."""
    values = {"name": "own", "model": {"name": "net"}, "augment": {"flip": "none"} | changes}
    return resolve_recipe(values, {}, classes=3, rows=60).augment


def augmented(pixels: Tensor, number: int = 0, **changes: Any) -> Tensor:
    """The augmented batch, denormalised to uint8 `(N, 3, H, W)`."""
    augmenter = Augmenter(settings(**changes), MEAN, STD, CLASSES)
    first = torch.zeros(len(pixels), dtype=torch.bool)
    tables = augmenter.lookup_tables(LABELS[: len(pixels)])
    images = augmenter(pixels, first, tables, 0, partial(generator_for, 0, number))
    assert images.dtype == torch.float32
    levels = (images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255
    assert float(levels.min()) > -0.01
    assert float(levels.max()) < 255.01
    return levels.round().to(torch.uint8)


EVERYTHING: list[dict[str, Any]] = [
    {"flip": "random"},
    {"translate": 3},
    {"translate": 3, "fill": "edge"},
    {"translate": 3, "fill": "mean"},
    {"cutout": 5},
    {"rotate": 20.0},
    {"zoom": 0.3},
    {"shear": 20.0},
    {"rotate": 20.0, "zoom": 0.2, "shear": 10.0, "fill": "mean"},
    {"brightness": 0.4},
    {"contrast": 0.4},
    {"saturation": 0.8},
    {"hue": 0.2},
    {"policy": "autoaugment"},
    {"policy": "randaugment", "magnitude": 20.0, "num_ops": 3},
    {"policy": "trivialaugment"},
    {"policy": "augmix"},
    {"policy": ["randaugment", "augmix"]},
    {"erase": 0.5},
    {"classes": {"cat": {"policy": "trivialaugment"}, "dog": {"rotate": 90.0, "flip": "random"}}},
]


@pytest.mark.parametrize("size", [8, 15, 32])
@pytest.mark.parametrize("changes", EVERYTHING, ids=str)
def test_every_key_changes_images_deterministically(changes: dict[str, Any], size: int) -> None:
    pixels = noise(size=size)
    torch.manual_seed(0)
    one = augmented(pixels, **changes)
    torch.manual_seed(1)
    assert torch.equal(one, augmented(pixels, **changes))
    assert not torch.equal(one, augmented(pixels, number=1, **changes))
    assert one.shape == (60, 3, size, size)
    assert int((one != pixels.permute(0, 3, 1, 2)).flatten(1).any(dim=1).sum()) > 15


@pytest.mark.parametrize("changes", EVERYTHING, ids=str)
def test_everything_runs_on_the_device_of_the_images(changes: dict[str, Any]) -> None:
    """The meta device computes nothing, but like a GPU rejects operations on tensors of two devices."""
    augmenter = Augmenter(settings(**changes), MEAN, STD, CLASSES)
    pixels = torch.empty((60, 16, 16, 3), dtype=torch.uint8, device="meta")
    first = torch.empty(60, dtype=torch.bool, device="meta")
    images = augmenter(pixels, first, augmenter.lookup_tables(LABELS), 0, partial(generator_for, 0, 0))
    assert images.device.type == "meta"
    assert images.shape == (60, 3, 16, 16)
    labels, mixing = torch.empty(60, dtype=torch.long, device="meta"), settings(mixup=1.0, cutmix=1.0)
    assert all(part.device.type == "meta" for part in mix(images, labels, 3, mixing, torch.Generator()))


@pytest.mark.parametrize("changes", [*EVERYTHING, {"translate": 3, "classes": {"cat": {"cutout": 4}}}], ids=str)
def test_smaller_images_show_what_full_ones_do(changes: dict[str, Any]) -> None:
    pixels = noise(size=24)
    augmenter = Augmenter(settings(**changes), MEAN, STD, CLASSES)
    first, tables = torch.zeros(60, dtype=torch.bool), augmenter.lookup_tables(LABELS)
    full = augmenter(pixels, first, tables, 0, partial(generator_for, 0, 0))
    small = augmenter(pixels, first, tables, 0, partial(generator_for, 0, 0), 24, 10)
    assert small.shape == (60, 3, 10, 10)
    one_level = 1 / 255 / min(STD)
    assert float((small - resized(full, 10)).abs().max()) <= 1.01 * one_level


def test_empty_settings_change_nothing() -> None:
    pixels = noise()
    augmenter = Augmenter(settings(), MEAN, STD)
    first = torch.zeros(60, dtype=torch.bool)
    images = augmenter(pixels, first, None, 0, partial(generator_for, 0, 0))
    assert torch.equal(images, normalize(pixels, MEAN, STD))


def test_class_settings_change_only_that_class() -> None:
    pixels = noise()
    plain = pixels.permute(0, 3, 1, 2)
    found = augmented(pixels, classes={"dog": {"policy": "trivialaugment", "magnitude": 30.0, "translate": 2}})
    changed = (found != plain).flatten(1).any(dim=1)
    assert not changed[LABELS != 1].any()
    assert int(changed[LABELS == 1].sum()) > 15


def test_class_settings_inherit_missing_keys() -> None:
    """All images are inverted; those of cats also change their brightness."""
    pixels = noise()
    name = "test-invert"
    if name not in AUGMENTATIONS:
        AUGMENTATIONS.register(name)(lambda images, terms: 255 - images)
    found = augmented(pixels, policy=name, classes={"cat": {"brightness": 0.5}, "frog": {"policy": "none"}})
    plain = pixels.permute(0, 3, 1, 2)
    assert torch.equal(found[LABELS == 1], 255 - plain[LABELS == 1])
    assert torch.equal(found[LABELS == 2], plain[LABELS == 2])
    cats, mean = found[LABELS == 0].float(), (255 - plain[LABELS == 0]).float()
    slope = (cats * mean).flatten(1).sum(dim=1) / (mean * mean).flatten(1).sum(dim=1)
    assert float(slope.std()) > 0.1, "brightness differs between images"


def test_magnitude_of_one_class() -> None:
    pixels = noise()
    found = augmented(pixels, policy="randaugment", magnitude=3.0, classes={"cat": {"magnitude": 30.0}}).float()
    distance = (found - pixels.permute(0, 3, 1, 2)).abs().flatten(1).mean(dim=1)
    assert float(distance[LABELS == 0].mean()) > 1.3 * float(distance[LABELS != 0].mean())


def test_color_jitter_by_hand() -> None:
    """Uniform images stay uniform; factors cover their range."""
    pixels = torch.full((60, 8, 8, 3), 100, dtype=torch.uint8)
    found = augmented(pixels, brightness=0.4)
    assert torch.equal(found, found[:, :, :1, :1].expand_as(found))
    factors = found[:, 0, 0, 0].float() / 100
    assert 0.6 <= float(factors.min()) < 0.65
    assert 1.35 < float(factors.max()) <= 1.4


def test_color_operations_in_order() -> None:
    """Brightness, contrast, saturation, hue, as torchvision's functions do them with the same factors."""
    pixels = noise(6)
    found = augmented(pixels, brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1)
    generator = generator_for(0, 0, "pixels")
    bright, contrast, color, turn = (2 * torch.rand((1, 6), generator=generator)[0] - 1 for _ in range(4))
    for place, image in enumerate(pixels.permute(0, 3, 1, 2)):
        expected = functional.adjust_brightness(image, 1 + 0.4 * float(bright[place]))
        expected = functional.adjust_contrast(expected, 1 + 0.3 * float(contrast[place]))
        expected = functional.adjust_saturation(expected, 1 + 0.5 * float(color[place]))
        expected = functional.adjust_hue(expected, 0.1 * float(turn[place]))
        assert int((found[place].int() - expected.int()).abs().max()) <= 6  # torchvision cuts off at each step


def test_rotation_stays_in_its_range() -> None:
    """The angle of a white dot near the border, rotated by up to 45 degrees."""
    pixels = torch.zeros((60, 33, 33, 3), dtype=torch.uint8)
    pixels[:, 15:18, 28:31] = 255
    found = augmented(pixels, rotate=45.0, fill="edge")[:, 0].float()
    places = torch.arange(33.0) - 16
    mass = found.sum(dim=(1, 2))
    x = (found * places).sum(dim=(1, 2)) / mass
    y = (found * places[:, None]).sum(dim=(1, 2)) / mass
    angles = torch.rad2deg(torch.atan2(-y, x))
    assert float(angles.abs().max()) < 46
    assert float(angles.max()) > 35
    assert float(angles.min()) < -35
    torch.testing.assert_close(torch.hypot(x, y), torch.full((60,), 13.0), atol=0.4, rtol=0)


@pytest.mark.parametrize("size", [(32, 32), (8, 11)])
def test_erasing_replaces_one_rectangle(size: tuple[int, int]) -> None:
    images = torch.full((400, 3, *size), 77, dtype=torch.uint8)
    found = erased(images, 0.5, torch.Generator().manual_seed(0))
    gone = (found != 77).any(dim=1)  # noise hits 77 in all channels hardly ever
    hit = gone.flatten(1).any(dim=1)
    assert 150 < int(hit.sum()) < 250
    shares = []
    for box in gone[hit]:
        rows, columns = box.any(dim=1), box.any(dim=0)
        assert torch.equal(box, rows[:, None] & columns[None])
        shares.append(float(box.float().mean()))
    assert min(shares) < 0.08
    assert 0.25 < max(shares) < 0.45
    assert len(found[:, 0][gone].unique()) > 200, "noise"
    assert erased(images, 0.0, torch.Generator()) is images


@pytest.mark.parametrize("shift", [0, 3, 7, 8, 16])
@pytest.mark.parametrize("fill", ["reflect", "edge", "mean"])
def test_padding_by_more_than_the_image(fill: str, shift: int) -> None:
    images = torch.rand(2, 3, 8, 8)
    mode: dict[str, Any] = {"reflect": {"mode": "reflect"}, "edge": {"mode": "edge"}, "mean": {"mode": "constant"}}
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (shift, shift), (shift, shift)), **mode[fill])
    np.testing.assert_array_equal(padded(images, shift, fill).numpy(), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"policy": "cutout"}, UnknownNameError, "'cutout'"),
        ({"classes": {"cat": {"policy": "augmx"}}}, UnknownNameError, "'augmx'.*'augmix'"),
        (
            {"classes": {"kat": {"rotate": 3}}},
            RecipeError,
            r"'augment\.classes\.kat'.*'cat'",
        ),
        ({"magnitude": 3}, RecipeError, "'magnitude'.*'none'"),
        ({"policy": "augmix", "num_ops": 3}, RecipeError, "'num_ops'.*'augmix'"),
        ({"classes": {"cat": {"magnitude": 3}}}, RecipeError, r"'classes\.cat\.magnitude'"),
        ({"classes": {"cat": {"rotat": 3}}}, RecipeError, r"'augment\.classes\.cat\.rotat'.*'rotate'"),
        ({"classes": {"cat": {"mixup": 3}}}, RecipeError, r"'augment\.classes\.cat\.mixup'"),
        ({"classes": {"cat": 3}}, RecipeError, r"'augment\.classes\.cat'.*3"),
    ],
)
def test_invalid_settings_raise_errors(changes: dict[str, Any], error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        check_augment(settings(**changes), CLASSES)


def test_class_settings_survive_a_round_trip() -> None:
    values = {
        "name": "own",
        "model": {"name": "net"},
        "augment": {
            "policy": "randaugment",
            "magnitude": 12.0,
            "classes": {"cat": {"rotate": 9.0, "policy": "augmix"}},
        },
    }
    recipe = resolve_recipe(values, {}, classes=3, rows=60)
    cat, dog = recipe.augment.of_class("cat"), recipe.augment.of_class("dog")
    assert (cat.rotate, cat.policies, cat.magnitude) == (9.0, ("augmix",), 12.0)
    assert (dog.rotate, dog.policies, dog.magnitude) == (0.0, ("randaugment",), 12.0)
    again = resolve_recipe(tomllib.loads(recipe.to_toml()), {}, classes=3, rows=60)
    assert again.to_toml() == recipe.to_toml()
    assert again.augment.of_class("cat") == cat
    assert tomllib.loads(recipe.to_toml())["augment"]["classes"] == {"cat": {"rotate": 9.0, "policy": "augmix"}}


def test_class_settings_need_class_names() -> None:
    with pytest.raises(ValueError, match="classes"):
        Augmenter(settings(classes={"cat": {"rotate": 3}}), MEAN, STD)


def test_custom_augmentation() -> None:
    """The example in docs/augmentation.md."""
    name = "test-checkerboard"
    if name not in AUGMENTATIONS:

        @AUGMENTATIONS.register(name)
        def checkerboard(images: Tensor, terms: Terms) -> Tensor:
            hidden = torch.rand(len(images), generator=terms.generator).to(images.device) < terms.strength(15)
            out = images.clone()
            out[:, :, ::2, ::2] = torch.where(
                hidden.view(-1, 1, 1, 1), terms.fill.view(1, 3, 1, 1).round().to(torch.uint8), out[:, :, ::2, ::2]
            )
            return out

    pixels = noise()
    found = augmented(pixels, policy=name)
    changed = (found != pixels.permute(0, 3, 1, 2)).flatten(1).any(dim=1)
    assert 15 < int(changed.sum()) < 45
    assert int((augmented(pixels, policy=name, magnitude=30) != pixels.permute(0, 3, 1, 2)).sum()) > 60 * 3 * 60
