from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from thirtytwo.data.channels import ChannelLevels


def test_levels_are_counted_by_channel() -> None:
    images = np.zeros((2, 1, 2, 3), dtype=np.uint8)
    images[0, 0, 0] = (255, 7, 7)
    images[1, 0, 1] = (255, 255, 7)
    levels = ChannelLevels.of(images)
    assert levels.counts.shape == (3, 256)
    assert levels.counts.sum(axis=1).tolist() == [4, 4, 4]
    assert [levels.counts[0, 0], levels.counts[0, 255]] == [2, 2]
    assert [levels.counts[1, 0], levels.counts[1, 7], levels.counts[1, 255]] == [2, 1, 1]
    assert levels.mean[0] == 0.5
    assert levels.std[0] == 0.5
    assert levels.mean[2] == pytest.approx(7 / 255 / 2, abs=1e-6)


def test_no_images_have_no_levels() -> None:
    levels = ChannelLevels.of(np.zeros((0, 4, 4, 3), dtype=np.uint8))
    assert levels.counts.sum() == 0
    assert levels.mean == (0.0, 0.0, 0.0)


def test_memory_does_not_grow_with_the_size_of_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (120, 320, 320, 3), dtype=np.uint8)
    tracemalloc.start()
    try:
        levels = ChannelLevels.of(images)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert levels.counts.sum(axis=1).tolist() == [120 * 320 * 320] * 3
    assert peak < 2 * images.nbytes, "counting takes eight bytes a pixel, for a part of the images at a time"
