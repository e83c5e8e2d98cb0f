"""The verdict on an expected accuracy: its lower end against guessing."""

from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.fewshot import assess, guess_rate
from thirtytwo.fewshot.linear_probe import expected_accuracy


@pytest.mark.parametrize(("counts", "expected"), [((12, 12, 12), 1 / 3), ((5, 5), 0.5), ((30, 10), 0.75), ((7, 0), 1)])
def test_guessing_names_the_most_frequent_class(counts: tuple[int, ...], expected: float) -> None:
    assert guess_rate(counts) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "counts", "word"),
    [
        (12, (12, 12, 12), "weak"),  # as good as guessing
        (0, (12, 12, 12), "weak"),
        (20, (12, 12, 12), "weak"),  # 56 %, but the interval reaches 35 %
        (31, (12, 12, 12), "fair"),
        (36, (12, 12, 12), "good"),
        (12, (6, 6), "fair"),  # all right, of few images
        (40, (20, 20), "good"),
        (36, (20, 20), "fair"),
        (30, (30, 10), "weak"),  # 75 % is what the most frequent class alone gives
    ],
)
def test_the_lower_end_of_the_interval_decides(right: int, counts: tuple[int, ...], word: str) -> None:
    accuracy = expected_accuracy(np.arange(sum(counts)) < right)
    found = assess(accuracy, counts)
    assert found is not None
    assert found.word == word
    assert found.guess_rate == guess_rate(counts)
    assert found.skill == pytest.approx((accuracy["ci95"][0] - found.guess_rate) / (1 - found.guess_rate))


def test_the_verdict_is_a_sentence() -> None:
    found = assess({"value": 1.0, "ci95": [0.9, 1.0]}, (12, 12, 12))
    assert found is not None
    assert found.sentence.replace("\u00a0", " ") == "good; guessing would be right in 33 %"


def test_without_an_estimate_there_is_no_verdict() -> None:
    assert assess(None, (1, 5)) is None


def test_guessing_cannot_be_beaten_where_one_class_has_all_images() -> None:
    found = assess({"value": 1.0, "ci95": [0.8, 1.0]}, (9, 0))
    assert found is not None
    assert (found.word, found.skill) == ("weak", 0.0)
