"""Thumbnails: their budget is kept, a larger one makes them larger, and equal calls give equal pages."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from thirtytwo.report.thumbnails import PHOTOGRAPHS, TINY, thumbnails


def noise(count, height, width, seed=0):
    """Images of smooth noise, uint8 `(N, H, W, 3)`, about as hard to compress as photographs."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((width, height))) for image in small])


def decoded(thumbnail):
    kind, data = thumbnail.source.split(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image.convert("RGB")


def total(found):
    return sum(len(thumbnail.source) for thumbnail in found)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (240, 320)])
def test_larger_budgets_give_better_thumbnails_within_them(height, width):
    images, before = noise(6, height, width), 0
    for budget in (9_000, 18_000, 60_000, 600_000):
        found = thumbnails(images, budget)
        assert len(found) == len(images)
        assert before <= total(found) <= budget
        assert found == thumbnails(images, budget)
        assert all(thumbnail.pixelated == (max(height, width) <= 64) for thumbnail in found)
        before = total(found)
    assert (found[0].width, found[0].height) == (width, height)
    difference = np.abs(np.asarray(decoded(found[3]), dtype=float) - images[3]).mean()
    assert difference == 0 if max(height, width) <= 64 else difference < 4


def test_aspect_ratios_are_kept_and_images_never_enlarged():
    images = [noise(1, *shape)[0] for shape in [(900, 300), (20, 400), (24, 24)]]
    found = thumbnails(images, 10_000_000)
    side = PHOTOGRAPHS[0].side
    assert [(one.width, one.height) for one in found] == [(round(side / 3), side), (side, side // 20), (24, 24)]
    assert [one.pixelated for one in found] == [False, False, True]
    for thumbnail in found:
        decoded(thumbnail)


def test_what_cannot_fit_is_left_out_from_the_end():
    images = noise(30, 32, 32)
    found = thumbnails(images, 6_000)
    assert 5 < len(found) < len(images)
    assert total(found) <= 6_000
    assert found == thumbnails(images[: len(found)], 6_000)
    assert thumbnails(images, 10) == []
    assert thumbnails([], 10) == []


def test_storages_become_smaller():
    images = noise(4, 200, 300)
    for storages in (PHOTOGRAPHS, TINY):
        assert sorted(storages, key=lambda one: (-one.side, -(one.quality or 100))) == list(storages)
    sizes = [total(thumbnails(images, budget)) for budget in (4_000, 8_000, 16_000, 60_000, 200_000)]
    assert sizes == sorted(sizes)
