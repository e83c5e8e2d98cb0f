"""Corruptions and prediction sets on the page and in the card; nothing where they were not measured."""

import numpy as np
import pytest

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.conformal import measure_sets
from thirtytwo.evaluation.corruptions import corruption_names, display_name, measure_corruptions
from thirtytwo.report.card import card
from thirtytwo.report.page import render
from thirtytwo.report.run_record import read_run_record
from thirtytwo.text import percent


def section_of(run, key):
    """What one evaluator says of a run."""
    return {evaluator.key: section for evaluator, section in read_run_record(run).sections}[key]


@pytest.fixture
def measured(make_run):
    """A run with both, and what was measured."""
    run, given = make_run()
    random = np.random.default_rng(0)
    images = ImageSet(
        random.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), given.truth[:12], given.classes, np.arange(12)
    )

    def logits(pixels):
        return np.eye(len(given.classes), dtype=np.float32)[pixels[:, 0, 0, 0] % len(given.classes)]

    table = {"dataset": "pets <i>", "split": "test"} | measure_corruptions(images, logits)
    run.write_json(run.corruptions, table)
    sets = measure_sets(given, given, 0.9)
    run.write_json(run.metrics, run.read_json(run.metrics) | {"conformal": sets})
    return run, table, sets


def test_page_and_card_show_both(measured):
    run, table, sets = measured
    record = read_run_record(run)
    page, text = render(record, None), card(record)
    for output in (page, text):
        assert percent(table["mean_corruption_accuracy"]["value"]) in output
        assert percent(sets["measured"]["value"]) in output
        for name in corruption_names():
            assert display_name(name) in output, name
    assert 'href="#corruptions"' in page
    assert 'href="#conformal"' in page
    assert page.count("--drop:") == 5 * len(corruption_names())


def test_nothing_is_shown_without_measurements(make_run):
    run, _ = make_run()
    record = read_run_record(run)
    assert not {"corruptions", "conformal"} & {evaluator.key for evaluator, _ in record.sections}
    for output in (render(record, None), card(record)):
        assert "Corrupt" not in output
        assert "Prediction sets" not in output


def test_families_are_named_once_and_drops_are_bounded(measured):
    (table,) = section_of(measured[0], "corruptions").tables
    assert [row[0].note for row in table.rows if row[0].note] == ["noise", "blur", "weather", "digital"]
    assert all(0 <= cell.shade <= 1 for row in table.rows for cell in row[1:-1])


def test_large_sets_are_one_row(measured):
    run, _, sets = measured
    sizes = {"0": 10, "2": 100, "6": 30, "40": 100}
    run.write_json(run.metrics, run.read_json(run.metrics) | {"conformal": sets | {"sizes": sizes}})
    rows = section_of(run, "conformal").tables[1].rows
    assert [(size.text, int(count.text)) for size, count, _ in rows] == [("0", 10), ("2", 100), ("6 and more", 130)]
