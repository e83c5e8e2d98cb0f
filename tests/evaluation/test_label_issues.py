"""Labels that were made wrong are found again, and those that are right are left alone."""

import time

import numpy as np
import pytest

from thirtytwo.errors import DataError
from thirtytwo.evaluation.evaluators import Results
from thirtytwo.evaluation.label_issues import LabelIssuesEvaluator, find_label_issues
from thirtytwo.predictions import Predictions


def predictions_of(truth, *, width=3, seed=0, skill=6.0):
    """A good network's probabilities of images whose classes are `truth`, labels right."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(truth), width))
    logits[np.arange(len(truth)), truth] += skill
    shares = np.exp(logits)
    probabilities = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    names = tuple(f"kind {number}" for number in range(width))
    return Predictions(names, np.asarray(truth, dtype=np.int64), probabilities, np.arange(len(truth)))


def relabelled(given, places):
    """The same predictions with the labels at `places` moved on by one class."""
    truth = given.truth.copy()
    truth[places] = (truth[places] + 1) % len(given.classes)
    return Predictions(given.classes, truth, given.probabilities, given.rows)


def test_wrong_labels_are_found_with_what_they_should_have_been():
    honest = predictions_of(np.arange(300) % 3)
    places = np.arange(4, 300, 25)
    given = relabelled(honest, places)
    found = find_label_issues(given)
    assert set(found.positions.tolist()) == set(places.tolist())
    assert (found.suggested == honest.truth[found.positions]).all()


def test_lowest_quality_comes_first():
    given = relabelled(predictions_of(np.arange(300) % 3, skill=3.0), np.arange(4, 300, 25))
    found = find_label_issues(given)
    assert len(found) > 3
    assert (np.diff(found.quality) >= 0).all()
    margin = given.confidence - given.probabilities[np.arange(300), given.truth]  # the more, the more suspicious
    assert found.quality == pytest.approx((1 - margin[found.positions]) / 2, abs=1e-6)


def test_no_issues_where_predictions_equal_labels():
    given = predictions_of(np.arange(90) % 3, skill=50.0)
    assert len(find_label_issues(given)) == 0


def test_classes_without_pictures_are_no_hindrance():
    truth = np.array([0, 0, 0, 0, 0, 2, 2, 2, 2, 2])
    assert len(find_label_issues(predictions_of(truth, width=5, skill=9.0))) == 0


@pytest.mark.parametrize(("count", "width"), [(0, 3), (4, 1)])
def test_too_little_data_raises(count, width):
    with pytest.raises(DataError, match=f"2 classes.* {count} .*{width}"):
        find_label_issues(predictions_of(np.zeros(count, dtype=np.int64), width=width))


def test_labels_of_a_single_class_are_not_checked():
    given = predictions_of(np.ones(6, dtype=np.int64), skill=0.0)
    with pytest.raises(DataError, match="2 classes.* 6 .*1 of 3"):
        find_label_issues(given)
    assert LabelIssuesEvaluator().read(Results("test", {}, {}, {"test": given}, {})) is None


def test_ten_thousand_pictures_of_a_hundred_classes_take_seconds_at_most():
    given = predictions_of(np.arange(10_000) % 100, width=100, skill=4.0)
    find_label_issues(predictions_of(np.arange(9) % 3))  # the library is read
    start = time.process_time()
    find_label_issues(given)
    assert time.process_time() - start < 5
