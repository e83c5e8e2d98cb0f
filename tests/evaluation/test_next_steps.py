"""What to do next, from predictions."""

from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.evaluation.next_steps import next_steps
from thirtytwo.predictions import Predictions


def predictions(counts: list[list[int]], sure: float = 0.6) -> Predictions:
    """Predictions with this confusion matrix."""
    cells = [
        (row, column) for row, line in enumerate(counts) for column, count in enumerate(line) for _ in range(count)
    ]
    truth, predicted = np.array(cells, dtype=np.int64).T
    width = len(counts)
    shares = np.full((len(cells), width), (1 - sure) / (width - 1), dtype=np.float32)
    shares[np.arange(len(cells)), predicted] = sure
    return Predictions(tuple("abcd"[:width]), truth, shares, np.arange(len(cells)))


def test_weak_classes_and_confusions_with_counts_and_intervals() -> None:
    found = next_steps(predictions([[10, 26, 4], [1, 98, 1], [2, 3, 95]]), labels=False)
    assert [(one.name, one.recognized, one.images, one.clear, one.instead) for one in found.weak] == [
        ("a", 10, 40, True, "b")
    ], "only what is clearly weak, where anything is"
    assert found.weak[0].interval == pytest.approx((0.1419, 0.4019), abs=1e-3)
    assert [(one.true, one.predicted, one.count, one.images) for one in found.confusions[:2]] == [
        ("a", "b", 26, 40),
        ("a", "c", 4, 40),
    ]
    assert found.labels is None
    assert any("Add training images of a" in sentence for sentence in found.advice)
    assert any("images of a predicted as b" in sentence for sentence in found.advice)


def test_what_may_be_chance_is_said_to_be() -> None:
    found = next_steps(predictions([[9, 1], [0, 10]]), labels=False)
    assert [(one.name, one.clear) for one in found.weak] == [("a", False)]
    assert any("No class is clearly weaker" in sentence for sentence in found.advice)
    assert any("only 10 images" in sentence for sentence in found.advice)


def test_the_class_of_fewest_images_is_named_also_where_all_of_them_are_recognized() -> None:
    found = next_steps(predictions([[3, 0, 0], [1, 4, 0], [2, 2, 30]]), labels=False)
    assert found.few == (("a", 3), ("b", 5))
    assert any("How often a is recognized was measured on only 3 images" in one for one in found.advice)
    assert not any("The share of b" in sentence for sentence in found.advice)


@pytest.mark.parametrize(("wrong", "clear"), [(1, False), (4, False), (5, True)])
def test_a_class_of_very_few_images_is_not_called_clearly_weak(wrong: int, clear: bool) -> None:
    found = next_steps(predictions([[0, wrong], [0, 90]]), labels=False)
    assert [(one.name, one.clear) for one in found.weak] == [("a", clear)]
    assert any("clearly below the average" in sentence for sentence in found.advice) is clear


def test_without_errors_nothing_stands_out() -> None:
    pytest.importorskip("cleanlab")
    found = next_steps(predictions([[30, 0], [0, 30]]))
    assert (found.weak, found.confusions, [part.positions for part in found.labels or ()]) == ((), (), [()])
    assert found.advice[0].startswith("Nothing stands out")


def test_a_few_images_without_errors_are_too_few_to_tell() -> None:
    found = next_steps(predictions([[2, 0], [0, 1]]), labels=False)
    assert found.thin == 3
    assert len(found.advice) == 1
    assert found.advice[0].startswith("3 images are too few to tell")


def test_labels_to_check_come_first() -> None:
    pytest.importorskip("cleanlab")
    found = next_steps(predictions([[40, 4], [0, 40]], sure=0.98))
    assert found.labels is not None
    (part,) = found.labels
    assert (part.split, len(part.positions) > 0, part.images) == ("test", True, 84)
    assert found.advice[0].startswith(f"Check {len(part.positions)} label")


def test_labels_of_a_single_class_are_not_checked() -> None:
    pytest.importorskip("cleanlab")
    found = next_steps(predictions([[5, 2], [0, 0]]))
    assert found.labels == ()
    assert [(one.name, one.instead) for one in found.weak] == []
