"""Calibration, OOD detection, label issues and augmented images in report, card and figures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.calibration import Calibration, calibration_record, stored_reliability
from thirtytwo.evaluation.metrics import reliability
from thirtytwo.predictions import Predictions
from thirtytwo.report.card import card
from thirtytwo.report.figures import draw_reliability, write_figures
from thirtytwo.report.gallery import augmented_rows
from thirtytwo.report.page import render
from thirtytwo.report.run_record import read_run_record
from thirtytwo.text import percent


def section_of(record, key):
    """What one evaluator says of a run."""
    return {evaluator.key: section for evaluator, section in record.sections}[key]


def add_calibration(run, given, *, curvature=0.0):
    """Calibration of an overconfident network, as measured; the record and the predictions before it."""
    logits = 2 * np.log(given.probabilities)
    before = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    temperature_only = 1.5 if curvature else None
    record = calibration_record(
        given, logits, Calibration(2.0, curvature), temperature_only=temperature_only, fitted_on=100
    )
    run.write_json(run.metrics, run.read_json(run.metrics) | {"calibration": record})
    return record, replace(given, probabilities=before.astype(np.float32))


OOD_RECORD = {
    "score": "class_mean",
    "what": "cosine to <the nearest> class mean",
    "source": "after somebody 2019",
    "share": 0.05,
    "threshold": 0.7321,
    "validation": {"called_unknown": 0.05, "n": 100},
    "test": {"called_unknown": {"value": 0.0542, "ci95": [0.031, 0.091]}, "n": 240},
    "skipped": [{"name": "digits", "reason": "it shares classes with the model: 0, 1"}],
    "against": [
        {"name": "noise", "what": "plain noise", "n": 1000, "auroc": 0.9876, "fpr95": 0.123, "called_unknown": 0.954}
    ],
}


def test_calibration_before_and_after(make_run):
    run, given = make_run()
    calibration, before = add_calibration(run, given, curvature=0.02)
    record = read_run_record(run)
    page, text = render(record, None), card(record)
    for stage in ("before", "temperature_only", "after"):
        assert f"{calibration[stage]['ece']['value']:.4f}" in page
        assert f"{calibration[stage]['ece']['value']:.4f}" in text
    assert "Before calibration" in page
    assert "0.0200" in page
    found, expected = stored_reliability(calibration), reliability(before)
    assert section_of(record, "calibration").charts[0].data.counts.tolist() == expected.counts.tolist()
    for name in ("edges", "counts", "confidence", "accuracy"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


def test_no_curvature_is_shown_without_one(make_run):
    run, given = make_run()
    add_calibration(run, given)
    stages = section_of(read_run_record(run), "calibration").tables[0]
    assert [row[0].text for row in stages.rows] == ["As trained", "Calibrated"]
    assert "(curvature)" not in render(read_run_record(run), None)


def test_ood_detection_is_shown(make_run):
    run, _ = make_run()
    run.write_json(run.metrics, run.read_json(run.metrics) | {"unknown": OOD_RECORD})
    record = read_run_record(run)
    page, markdown = render(record, None), card(record)
    for output in (page, markdown):
        for text in (
            "plain noise",
            "0.988",
            "12.3\u00a0%",
            "95.4\u00a0%",
            "5.4\u00a0%",
            "0.7321",
            "class mean",
            "&lt;the nearest&gt;",
            "shares classes",
        ):
            assert text in output, text
    assert 'href="#unknown"' in page


@pytest.mark.parametrize("lacking", ["validation", "test", "against", "source", "skipped"])
def test_missing_parts_of_ood_record_are_left_out(make_run, lacking):
    run, _ = make_run()
    less = OOD_RECORD | {lacking: None}
    run.write_json(run.metrics, run.read_json(run.metrics) | {"unknown": less})
    record = read_run_record(run)
    assert "0.7321" in render(record, None)
    assert "0.7321" in card(record)


def test_runs_of_earlier_versions_have_neither(make_run):
    run, _ = make_run()
    record = read_run_record(run)
    section = section_of(record, "calibration")
    assert [table.title for table in section.tables] == ["Accuracy against coverage"]
    assert len(section.charts) == 1
    assert "unknown" not in {evaluator.key for evaluator, _ in record.sections}
    for output in (render(record, None), card(record)):
        assert "Out-of-distribution" not in output
        assert "Before calibration" not in output


@pytest.mark.slow
def test_figures_of_calibration_and_corruptions(make_run):
    run, given = make_run()
    add_calibration(run, given)
    kinds = [
        {
            "kind": kind,
            "family": family,
            "mean": 0.5,
            "accuracy": [{"value": 0.9 - 0.1 * s, "ci95": [0, 1]} for s in range(5)],
        }
        for family, kind in (("noise", "gaussian_noise"), ("noise", "shot_noise"), ("blur", "zoom_blur"))
    ]
    table = {
        "n": 40,
        "seed": 0,
        "strengths": [1, 2, 3, 4, 5],
        "clean_accuracy": {"value": 0.95},
        "mean_corruption_accuracy": {"value": 0.5, "ci95": [0.4, 0.6]},
        "kinds": kinds,
    }
    record = replace(read_run_record(run), files={"corruptions": table}, history=[])
    names = {path.name for path in write_figures(record)}
    assert {"corruptions.png", "corruptions.svg", "reliability.png", "reliability.svg"} <= names
    drawn = (run.figures / "corruptions.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {text} -->" in drawn for text in ("Gaussian noise", "Zoom blur", "Noise", "Blur"))
    both = (run.figures / "reliability.svg").read_text(encoding="utf-8")
    assert "Before calibration" in both


def test_a_figure_of_a_model_without_calibration_has_one_panel(make_run):
    run, given = make_run()
    record = calibration_record(given, np.log(given.probabilities), Calibration(), temperature_only=None, fitted_on=0)
    run.write_json(run.metrics, run.read_json(run.metrics) | {"calibration": record})
    figure = draw_reliability(read_run_record(run))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [
        f"Reliability on test, ECE {record['after']['ece']['value']:.4f}"
    ]


def test_the_legend_of_charts_is_only_where_they_are(make_run):
    run, given = make_run()
    add_calibration(run, given)
    record = read_run_record(run)
    assert "lie on the dotted line" in render(record, None)
    assert "lie on the dotted line" not in card(record)


@pytest.fixture
def mislabeled(make_run):
    """A run whose network is right and some of whose labels are wrong, in test and in validation."""
    run, _ = make_run(("a", "b", "c"), without=("metrics", "predictions"))
    for split, first in (("test", 0), ("val", 1000)):
        honest = np.arange(120) % 3
        labels = honest.copy()
        labels[7::40] = (labels[7::40] + 1) % 3
        probabilities = np.full((120, 3), 0.01, dtype=np.float32)
        probabilities[np.arange(120), honest] = 0.98
        run.write_predictions(split, Predictions(("a", "b", "c"), labels, probabilities, np.arange(120) + first))
    return run


def images_for(predictions):
    images = np.zeros((len(predictions.truth), 8, 8, 3), dtype=np.uint8)
    return ImageSet(images, predictions.truth, predictions.classes, predictions.rows)


def test_label_issues_of_test_and_validation_are_shown(mislabeled):
    run = mislabeled
    test, val = (images_for(run.read_predictions(split)) for split in ("test", "val"))
    record = read_run_record(run)
    section = section_of(record, "label_issues")
    (table,) = section.tables
    assert {row[1].text for row in table.rows} == {"test", "validation"}
    assert {row[0].text for row in table.rows} == {f"row {row}" for row in (7, 47, 87, 1007, 1047, 1087)}
    assert {(image.split, image.position) for image in section.images} == {
        (split, position) for split in ("test", "val") for position in (7, 47, 87)
    }
    assert {(row[2].text, row[3].text) for row in table.rows} == {
        ("c", "b"),
        ("a", "c"),
        ("b", "a"),
    }
    page = render(record, test, val=val)
    assert "3 of 120 test labels and 3 of 120 validation labels" in " ".join(page.split())
    assert "3 of 120 test labels and 3 of 120 validation labels" in card(record)
    assert page.count('alt="labeled ') == 6


def test_label_issues_are_listed_without_images(mislabeled):
    page = render(read_run_record(mislabeled), images_for(mislabeled.read_predictions("test")))
    assert page.count('alt="labeled ') == 3
    assert len(section_of(read_run_record(mislabeled), "label_issues").tables[0].rows) == 6


def test_no_label_issues_in_validation_that_was_trained_on(mislabeled):
    run = mislabeled
    run.write_json(run.split, run.read_json(run.split) | {"train_on": "all"})
    section = section_of(read_run_record(run), "label_issues")
    assert {row[1].text for row in section.tables[0].rows} == {"test"}


def test_run_of_one_class_has_no_label_issues(make_run):
    run, _ = make_run(without=("metrics", "predictions"))
    alone = Predictions(("a",), np.zeros(5, dtype=np.int64), np.ones((5, 1), dtype=np.float32), np.arange(5))
    run.write_predictions("test", alone)
    assert "label_issues" not in {evaluator.key for evaluator, _ in read_run_record(run).sections}


def test_augmented_images_are_shown_with_their_targets(make_run):
    run, given = make_run()
    random = np.random.default_rng(0)
    targets = np.zeros((2, 3, len(given.classes)), dtype=np.float32)
    targets[0, :, 4] = 1.0
    targets[1, :, 2], targets[1, :, 0] = 0.7, 0.3
    samples = SimpleNamespace(
        originals=random.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8),
        augmented=random.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8),
        targets=targets,
        labels=np.array([4, 2]),
    )
    rows = augmented_rows(samples, given.classes)
    assert [row["class"] for row in rows] == [given.classes[4], given.classes[2]]
    assert {image["mixed"] for image in rows[0]["augmented"]} == {""}
    assert {image["mixed"] for image in rows[1]["augmented"]} == {
        f"{percent(0.7, 0)} {given.classes[2]}, {percent(0.3, 0)} {given.classes[0]}"
    }
    page = render(read_run_record(run), None, samples=samples)
    assert 'href="#augmented"' in page
    assert page.count(', augmented"') == 6
