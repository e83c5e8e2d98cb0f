"""Which images to label next: uncertain ones that differ."""

from __future__ import annotations

import numpy as np

from thirtytwo.fewshot import choose_to_label

FEATURES = np.array([[1, 0, 0], [2, 0.01, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)


def chosen(probabilities: list[list[float]], count: int) -> list[int]:
    return [int(one) for one in choose_to_label(FEATURES, np.array(probabilities, dtype=np.float32), count)]


def test_the_least_certain_image_comes_first() -> None:
    assert chosen([[0.9, 0.1], [0.8, 0.2], [0.55, 0.45], [0.95, 0.05]], 1) == [2]


def test_images_of_the_same_scene_are_not_all_chosen() -> None:
    sure = [0.7, 0.3]
    assert chosen([[0.5, 0.5], [0.51, 0.49], sure, sure], 3) == [0, 2, 3]


def test_no_more_than_there_are_and_each_once() -> None:
    assert sorted(chosen([[0.5, 0.5]] * 4, 9)) == [0, 1, 2, 3]
    assert len(choose_to_label(np.zeros((0, 3)), np.zeros((0, 2)), 5)) == 0
