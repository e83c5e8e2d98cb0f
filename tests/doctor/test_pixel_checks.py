"""Checks of brightness, contrast and sharpness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor import CHECKS, Finding, Subject
from thirtytwo.doctor.statistics import pixel_statistics

Pixels = npt.NDArray[np.uint8]
CODES = ("T402", "T403", "T404", "T405")


def scenes(count: int, seed: int = 0) -> Pixels:
    """Smooth and fine structure around different brightnesses, as photographs have, uint8 `(N, 32, 32, 3)`."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, 32, 32, 3))
    values = gaussian_filter(noise, (0, 4, 4, 0)) * 400 + gaussian_filter(noise, (0, 0.7, 0.7, 0)) * 40
    level = random.normal(120, 25, size=(count, 1, 1, 1))
    return np.asarray(np.clip(values + level, 0, 255)).astype(np.uint8)


def findings(images: Pixels) -> dict[str, Finding]:
    labels = np.arange(len(images)) % 2
    train = ImageSet(images, labels, ("ant", "bee"), np.arange(len(images)))
    data = DataSet("insects", train, None, train.take(np.arange(0)), "x")
    subject = Subject(data)
    return {finding.code: finding for code in CODES for finding in CHECKS.get(code)().run(subject)}


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "T402": lambda image: (image // 10).astype(np.uint8),
    "T403": lambda image: (255 - image // 14).astype(np.uint8),
    "T404": lambda image: gaussian_filter(image, (6, 6, 0)),
    "T405": lambda image: (120 + image // 16).astype(np.uint8),
}


def test_usual_images_have_no_findings() -> None:
    assert findings(scenes(300)) == {}


@pytest.mark.parametrize("code", CODES)
def test_unusual_images_are_found(code: str) -> None:
    images = scenes(300)
    for position in (7, 40):
        images[position] = CHANGES[code](images[position])
    found = findings(images)[code]
    assert sorted(place.position for (place,) in found.groups) == [7, 40]
    assert len(found.notes) == 2
    assert found.severity == "note"
    assert " show " not in found.what, "a verb that one image would need in the singular"


@pytest.mark.parametrize("code", CODES)
def test_what_all_images_have_is_usual(code: str) -> None:
    found = findings(np.stack([CHANGES[code](image) for image in scenes(300)]))
    assert code not in found or len(found[code].groups) < 10


def test_images_of_a_single_color_are_left_to_their_own_check() -> None:
    images = scenes(300)
    images[3], images[5] = 0, 255
    assert findings(images) == {}


def test_statistics() -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    images[0, :, :4] = 200
    images[1] = (90, 30, 60)
    found = pixel_statistics(images)
    assert found.brightness == pytest.approx([100, 0.299 * 90 + 0.587 * 30 + 0.114 * 60], abs=1e-3)
    assert found.contrast == pytest.approx([100, 0], abs=1e-3)
    assert found.saturation == pytest.approx([0, 60])
    assert found.sharpness[0] > found.sharpness[1] == pytest.approx(0, abs=1e-3)
    assert found.table()[1, 4:].tolist() == [90, 30, 60]
    assert pixel_statistics(images[:0]).table().shape == (0, 7)
    assert pixel_statistics(images[:, :2, :2]).sharpness.tolist() == [0, 0]
