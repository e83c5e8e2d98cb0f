"""The next steps after teaching: which class needs images, which are confused, which images look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from thirtytwo.fewshot import suggest_next_steps
from thirtytwo.predictions import Predictions

Pair = tuple[int, int]


def predictions(counts: Sequence[int], wrong: Sequence[Pair] = (), names: str = "abc") -> Predictions:
    """Predictions of `counts` images of each class, right but for `wrong`: (true, predicted) classes."""
    truth = np.repeat(np.arange(len(counts)), counts)
    found = truth.copy()
    for true, predicted in wrong:
        position = np.flatnonzero((truth == true) & (found == truth))[0]
        found[position] = predicted
    classes = tuple(names[: len(counts)])
    return Predictions(classes, truth, np.eye(len(counts), dtype=np.float32)[found], np.arange(len(truth)))


Steps = list[tuple[str, tuple[str, ...]]]


@pytest.mark.parametrize(
    ("counts", "wrong", "alike", "expected"),
    [
        # no errors: more of a class with few images, else new images to try
        ((12, 12, 12), [], [], [("more_images", ("a",))]),
        ((25, 21, 30), [], [], [("try", ())]),
        ((25, 21, 12), [], [], [("more_images", ("c",))]),
        # the class with the lowest recall; two classes that are confused in both directions
        ((20, 20, 20), [(1, 0), (1, 2), (0, 1)], [], [("confused", ("a", "b")), ("more_images", ("b",))]),
        ((30, 30, 30), [(2, 0)], [], [("more_images", ("c",))]),
        # few images of a class count more than its recall
        ((40, 40, 5), [(0, 1), (1, 0), (0, 1)], [], [("confused", ("a", "b")), ("more_images", ("c",))]),
        # copies, by their share
        ((20, 20, 20), [], [[0, 1], [5, 6, 7]], [("alike", ())]),
        ((20, 20, 20), [(1, 0)], [[0, 1], [5, 6, 7]], [("alike", ()), ("more_images", ("b",))]),
        ((20, 20, 20), [(1, 0)] * 5, [[0, 1]], [("confused", ("a", "b")), ("more_images", ("b",))]),
    ],
)
def test_the_two_most_useful_steps(
    counts: tuple[int, ...], wrong: list[Pair], alike: list[list[int]], expected: Steps
) -> None:
    named = dict(zip("abc", counts, strict=True))
    found = suggest_next_steps(named, predictions(counts, wrong), alike)
    assert [(step.kind, step.classes) for step in found] == expected
    assert [step.gain for step in found] == sorted((step.gain for step in found), reverse=True)


def test_without_an_estimate_the_class_with_the_fewest_images_needs_more() -> None:
    (step,) = suggest_next_steps({"a": 8, "b": 1}, None)
    assert (step.kind, step.classes, step.count, step.right) == ("more_images", ("b",), 1, None)
    assert step.sentence == "Add images of “b”: it has 1 image."


def test_steps_are_sentences_with_their_counts() -> None:
    counts = (20, 20, 20)
    named = {"sweet_pepper": 20, "b": 20, "c": 20}
    wrong = [(0, 1), (0, 1), (0, 1), (0, 2)]
    held_out = predictions(counts, wrong)
    held_out = Predictions(tuple(named), held_out.truth, held_out.probabilities, held_out.rows)
    steps = suggest_next_steps(named, held_out, [[40, 41, 42]], most=3)
    assert [step.kind for step in steps] == ["more_images", "confused", "alike"]
    assert steps[0].sentence == "Add images of “sweet pepper”: 16 of its 20 images were recognized."
    assert "“sweet pepper” and “b” are confused (3 images)" in steps[1].sentence
    assert steps[2].images == ((40, 41, 42),)
    assert steps[2].sentence.startswith("2 images look nearly like another one")
