"""Before and after calibration, on the same images."""

import json

import numpy as np
import pytest

from thirtytwo.evaluation.calibration import Calibration, calibration_record, fit_calibration, fit_temperature, softmax
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.predictions import Predictions


def scored(logits, labels, calibration, temperature):
    after = Predictions(
        tuple(f"class {index}" for index in range(logits.shape[1])),
        labels,
        calibration.probabilities(logits).astype(np.float32),
        np.arange(len(labels)),
    )
    return after, calibration_record(after, logits, calibration, temperature_only=temperature, fitted_on=77)


def overconfident():
    random = np.random.default_rng(0)
    logits = random.normal(size=(3000, 5))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return (3.0 * logits).astype(np.float32), labels


def test_calibration_corrects_overconfidence():
    logits, labels = overconfident()
    calibration, temperature = fit_calibration(logits, labels), fit_temperature(logits, labels)
    after, record = scored(logits, labels, calibration, temperature)
    assert record["temperature"] == pytest.approx(3.0, rel=0.1)
    assert record["fitted_on"] == 77
    assert record["before"]["ece"]["value"] > 0.15
    assert record["after"]["ece"]["value"] < 0.04
    assert record["after"]["nll"]["value"] <= record["temperature_only"]["nll"]["value"] + 1e-6
    assert record["temperature_only"]["nll"]["value"] < record["before"]["nll"]["value"]
    whole = compute_metrics(after, dataset="d", split="test", test_evaluations=1)
    assert record["after"]["ece"]["value"] == whole["ece"]["value"]


def test_bins_before_are_those_of_the_plain_softmax():
    logits, labels = overconfident()
    _, record = scored(logits, labels, Calibration(3.0), None)
    bins = record["before"]["bins"]
    confidence = softmax(logits).max(axis=1)
    last = confidence >= 14 / 15
    assert len(bins["edges"]) == 16
    assert sum(bins["counts"]) == 3000
    assert bins["counts"][-1] == int(last.sum())
    assert bins["confidence"][-1] == pytest.approx(confidence[last].mean(), abs=1e-6)
    assert bins["confidence"][0] is None, "no answer of five can be that unsure"
    assert "temperature_only" not in record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
