from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.evaluation.selective_tta import LEAST_CHANGED, choose_threshold


def two_classes(first: np.ndarray) -> np.ndarray:
    return np.stack([first, 1 - first], axis=1).astype(np.float32)


def test_most_changed_answers_are_below_the_threshold() -> None:
    random = np.random.default_rng(0)
    single = two_classes(random.random(5_000))
    averaged = two_classes((single[:, 0] + random.normal(0, 0.05, 5_000)).clip(0, 1))
    threshold = choose_threshold(single, averaged, 0.9)
    changed = single.argmax(axis=1) != averaged.argmax(axis=1)
    below = single.max(axis=1) < threshold
    assert below[changed].mean() == pytest.approx(0.95, abs=0.01)
    assert below.mean() < 0.3
    assert 0.5 < threshold < 0.7


@pytest.mark.parametrize("changed", [0, LEAST_CHANGED - 1])
def test_few_changed_answers_choose_nothing(changed: int) -> None:
    single = two_classes(np.full(100, 0.6))
    averaged = two_classes(np.where(np.arange(100) < changed, 0.4, 0.6))
    assert choose_threshold(single, averaged, 0.85) == 0.85
