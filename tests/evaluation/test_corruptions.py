"""Corruptions: the same every time, stronger with strength, any size, and accuracy under them counted right."""

import numpy as np
import pytest

from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError, UnknownNameError
from thirtytwo.evaluation.corruptions import (
    CORRUPTIONS,
    FAMILIES,
    STRENGTHS,
    corrupt,
    corruption_names,
    measure_corruptions,
)

RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "snow", "spatter", "elastic")


def scenes(count=24, height=32, width=32, seed=0):
    """Images with colors, edges and soft parts, away from black and white."""
    random = np.random.default_rng(seed)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    images = []
    for _ in range(count):
        slope, first, second = random.normal(size=2), random.uniform(40, 200, 3), random.uniform(40, 200, 3)
        shade = np.clip(0.5 + slope[0] * (across - 0.5) + slope[1] * (down - 0.5), 0, 1)[..., None]
        image = first * shade + second * (1 - shade)
        x, y = random.integers(0, max(1, width // 2)), random.integers(0, max(1, height // 2))
        image[y : y + max(1, height // 3), x : x + max(1, width // 3)] = random.uniform(30, 220, 3)
        images.append(image)
    return np.rint(images).astype(np.uint8)


def distance(first, second):
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


def test_there_are_at_least_twelve_and_some_of_every_family():
    names = corruption_names()
    assert len(names) >= 12
    assert [CORRUPTIONS.get(name).family for name in names] == sorted(
        (CORRUPTIONS.get(name).family for name in names), key=FAMILIES.index
    )
    assert {CORRUPTIONS.get(name).family for name in names} == set(FAMILIES)
    assert all(len(CORRUPTIONS.get(name).settings) == len(STRENGTHS) for name in names)


@pytest.mark.parametrize("name", corruption_names())
def test_stronger_is_further_from_the_picture(name):
    images = scenes()
    far = [distance(images, corrupt(images, name, strength)) for strength in STRENGTHS]
    assert far[0] > 0.1
    assert far == sorted(far)
    assert far[-1] > 1.3 * far[0]
    assert far[-1] < 100


@pytest.mark.parametrize("name", corruption_names())
def test_same_arguments_same_pictures(name):
    images = scenes(5)
    before = images.copy()
    first = corrupt(images, name, 3, seed=7)
    assert (corrupt(images, name, 3, seed=7) == first).all()
    assert (images == before).all()
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    assert (corrupt(images, name, 3, seed=8) != first).any() == (name in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_each_picture_is_corrupted_in_its_own_way(name):
    images = np.repeat(scenes(1), 2, axis=0)
    first, second = corrupt(images, name, 5)
    assert (first != second).any()


@pytest.mark.parametrize("name", corruption_names())
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (8, 8), (48, 64)])
def test_any_size(name, shape):
    images = scenes(2, *shape)
    for strength in (1, 5):
        assert corrupt(images, name, strength).shape == images.shape


@pytest.mark.parametrize("name", corruption_names())
def test_no_pictures_and_plain_ones(name):
    assert corrupt(scenes(3)[:0], name, 1).shape == (0, 32, 32, 3)
    plain = np.zeros((2, 12, 12, 3), dtype=np.uint8)
    plain[1] = 255
    assert corrupt(plain, name, 5).shape == plain.shape


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "zoom_blur", "elastic", "pixelate", "contrast"])
def test_a_plain_picture_stays_plain(name):
    plain = np.full((2, 20, 20, 3), (200, 90, 30), dtype=np.uint8)
    assert np.abs(corrupt(plain, name, 5).astype(int) - plain).max() <= 1


@pytest.mark.parametrize("name", ["defocus_blur", "zoom_blur"])
def test_lengths_grow_with_the_picture(name):
    """An image three times as large, corrupted and reduced again, is about the small one corrupted."""
    small = scenes(6)
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    reduced = corrupt(large, name, 5).reshape(6, 32, 3, 32, 3, 3).mean(axis=(2, 4))
    assert distance(corrupt(small, name, 5), reduced) < 0.6 * distance(small, corrupt(small, name, 5))


def test_known_answers():
    image = np.full((1, 4, 4, 3), (200, 100, 50), dtype=np.uint8)
    assert corrupt(image, "brightness", 5)[0, 0, 0].tolist() == [255, 128, 64]  # V 0.784 + 0.3 is over 1: times 1.275
    assert corrupt(image, "brightness", 1)[0, 0, 0].tolist() == [213, 106, 53]  # 200 + 12.75, the rest in proportion
    assert corrupt(image, "saturate", 5)[0, 0, 0].tolist() == [200, 67, 0]  # saturation 0.75 becomes 1, the hue stays
    halves = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    halves[:, :, 1] = 200
    assert corrupt(halves, "contrast", 2)[0, 0, :, 0].tolist() == [50, 150]
    noise = corrupt(np.full((8, 32, 32, 3), 128, dtype=np.uint8), "gaussian_noise", 5).astype(float)
    assert noise.std() / 255 == pytest.approx(0.10, abs=0.002)
    salt = corrupt(np.full((8, 32, 32, 3), 128, dtype=np.uint8), "impulse_noise", 5)
    assert (salt == 0).mean() == pytest.approx(0.035, abs=0.004)
    assert (salt == 255).mean() == pytest.approx(0.035, abs=0.004)


def test_blocks_of_pixelate():
    steps = np.arange(0, 128, 4, dtype=np.uint8)
    image = np.broadcast_to(steps[None, None, :, None], (1, 32, 32, 3)).copy()
    levels = np.unique(corrupt(image, "pixelate", 5)[0]).astype(int)
    # processors round a mean of exactly one half differently, so levels that differ by one are of one block
    assert 1 + (np.diff(levels) > 1).sum() == int(32 * 0.65)


@pytest.mark.parametrize(
    ("images", "name", "strength", "error", "pattern"),
    [
        (scenes(1), "gausian_noise", 1, UnknownNameError, "'gausian_noise'.*'gaussian_noise'"),
        (scenes(1), "fog", 0, DataError, "1 to 5.* 0"),
        (scenes(1), "fog", 6, DataError, "1 to 5.* 6"),
        (scenes(1)[0], "fog", 1, DataError, r"uint8 \(N, H, W, 3\)"),
        (scenes(1).astype(float), "fog", 1, DataError, "float64"),
    ],
)
def test_errors_name_the_value(images, name, strength, error, pattern):
    with pytest.raises(error, match=pattern):
        corrupt(images, name, strength)


def test_accuracy_under_corruptions_is_counted():
    """A network that predicts bright or dark: brightness turns dark ones wrong, contrast none."""
    dark, bright = np.full((6, 8, 8, 3), 100, np.uint8), np.full((4, 8, 8, 3), 160, np.uint8)
    labels = np.array([0] * 6 + [1] * 4)
    images = ImageSet(np.concatenate([dark, bright]), labels, ("dark", "bright"), np.arange(10))

    def logits(images):
        over = images.mean(axis=(1, 2, 3)) - 128
        return np.stack([-over, over], axis=1).astype(np.float32)

    messages = []
    found = measure_corruptions(images, logits, names=["brightness", "contrast"], tell=messages.append)
    bright_row, contrast_row = found["kinds"]
    assert [cell["value"] for cell in bright_row["accuracy"]] == [1.0, 1.0, 0.4, 0.4, 0.4]
    assert [cell["value"] for cell in contrast_row["accuracy"]] == [1.0] * 5
    assert found["clean_accuracy"]["value"] == 1.0
    assert found["n"] == 10
    assert bright_row["mean"] == pytest.approx(0.64)
    assert found["families"] == pytest.approx({"weather": 0.64, "digital": 1.0})
    # Dark images are right in 7 of 10 conditions, bright ones in all.
    assert found["mean_corruption_accuracy"]["value"] == pytest.approx(0.82)
    half = 1.96 * np.std([0.7] * 6 + [1.0] * 4, ddof=1) / np.sqrt(10)
    assert found["mean_corruption_accuracy"]["ci95"] == pytest.approx([0.82 - half, 0.82 + half])
    assert len(messages) == 2


def test_invalid_input_raises():
    images = ImageSet(scenes(2), np.array([0, 1]), ("a", "b"), np.arange(2))
    with pytest.raises(DataError, match="logits"):
        measure_corruptions(images, lambda images: np.full((len(images), 2), np.nan, np.float32), names=["fog"])
    with pytest.raises(DataError, match="--split"):
        measure_corruptions(images.take(np.array([], dtype=np.int64)), lambda images: images, names=["fog"])
