"""Score images with a network, calibrate it on validation, and run the evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_arrays

from thirtytwo.data.split import covering_sample
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.calibration import LEAST_IMAGES, Calibration, fit_calibration, fit_temperature, softmax
from thirtytwo.evaluation.evaluators import Evaluator, Request
from thirtytwo.evaluation.ood import FALSE_ALARM_RATE, class_means, threshold_at
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.evaluation.selective_tta import choose_threshold
from thirtytwo.inference.model_file import ModelInfo, TtaInfo, usual_tta
from thirtytwo.io import write_bytes
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir

Means = npt.NDArray[np.float32]
"""The mean direction of each class's features, `(C, D)`."""


def measure_all(
    chosen: Sequence[Evaluator], request: Request, scored: Scored, prepared: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Measure with each evaluator; returns the entries of `metrics.json`, and the contents of the evaluators' files.

    Args:
        chosen: the evaluators.
        request: what is evaluated.
        scored: the model's outputs for it.
        prepared: what `Evaluator.check` returned, by key.
    """
    metrics: dict[str, Any] = {}
    files: dict[str, dict[str, Any]] = {}
    for evaluator in chosen:
        context = request.scored(scored.single, scored.logits, scored.features, prepared[evaluator.key])
        found = evaluator.measure(context)
        if evaluator.store == "metrics":
            metrics[evaluator.key] = found
        elif evaluator.store == "file" and found is not None:
            files[evaluator.key] = found
    return metrics, files


MEANS_FROM = 10_000
"""Maximum number of training images that class means are computed from."""

VIEWS_FROM = 2_000
"""Maximum number of validation images that are scored in several views."""


@dataclass(frozen=True)
class Scored:
    """Predictions of labeled images from one view and with test-time augmentation; logits and features of one view."""

    single: Predictions
    averaged: Predictions | None
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibrated:
    """The description of a calibrated model, and further results on validation.

    `temperature_only` is the best temperature without a curvature, `known_scores` are the scores `(N,)` of the
    validation images; both are None without validation, the first with too few images of it as well.
    """

    info: ModelInfo
    temperature_only: float | None = None
    known_scores: npt.NDArray[np.float64] | None = None


def score(scorer: Scorer, images: ImageSet, calibration: Calibration, tta_shift: int | None) -> Scored:
    """Predict each image from one view, and with test-time augmentation where `tta_shift` is given."""
    logits, features = scorer.outputs(images.images)
    single = predictions(images, logits, calibration)
    averaged = None
    if tta_shift is not None:
        averaged = _labeled(images, _tta_probabilities(scorer, images, logits, calibration, tta_shift))
    return Scored(single, averaged, logits, features)


def predictions(images: ImageSet, logits: npt.NDArray[np.float32], calibration: Calibration) -> Predictions:
    """Calibrated predictions of labeled images from the network's logits `(N, C)`."""
    return _labeled(images, calibration.probabilities(logits))


def _tta_probabilities(
    scorer: Scorer, images: ImageSet, single: npt.NDArray[np.float32], calibration: Calibration, shift: int
) -> npt.NDArray[np.float64]:
    """Probabilities `(N, C)` from all views of each image, as `Classifier.predict` computes them with `tta="all"`.

    `single` are the logits `(N, C)` of one view.
    """
    logits = scorer.tta_logits(images.images, shift, curvature=calibration.curvature, single=single)
    return softmax(logits, calibration.temperature)


def _labeled(images: ImageSet, probabilities: npt.NDArray[np.float64]) -> Predictions:
    return Predictions(
        classes=images.classes,
        truth=images.labels,
        probabilities=probabilities.astype(np.float32),
        rows=images.rows,
        files=images.files,
    )


def compute_class_means(scorer: Scorer, train: ImageSet, seed: int, run: RunDir) -> Means:
    """Class means of at most `MEANS_FROM` unaugmented training images; written to `class_means.safetensors`."""
    sample = covering_sample(train, MEANS_FROM, seed)
    means = class_means(scorer.outputs(sample.images)[1], sample.labels, len(train.classes))
    write_bytes(run.class_means, save_arrays({"class_means": means}))
    return means


def calibrate(
    info: ModelInfo,
    scorer: Scorer,
    means: Means,
    val: ImageSet | None,
    calibrated_by: ModelInfo | None,
    run: RunDir,
    tta_shift: int | None,
) -> Calibrated:
    """Fit the calibration and the thresholds for unknown images and for further views on validation.

    Without validation they are those of the calibration run. With fewer than `LEAST_IMAGES` images, the temperature
    stays 1 and no image is marked unknown.
    """
    info = info.model_copy(update={"unknown_score": "network" if scorer.net.scores_known else "class_mean"})
    if val is None:
        calibrated = ("temperature", "curvature", "unknown_threshold", "unknown_score", "tta")
        return Calibrated(info.model_copy(update={key: getattr(calibrated_by or info, key) for key in calibrated}))
    logits, features = scorer.outputs(val.images)
    few = len(val) < LEAST_IMAGES
    found = Calibration() if few else fit_calibration(logits, val.labels)
    run.write_predictions("val", predictions(val, logits, found))
    known = scorer.known_scores(features, means)
    measured = {
        "temperature": found.temperature,
        "curvature": found.curvature,
        "unknown_threshold": None if few else threshold_at(known, FALSE_ALARM_RATE),
        "tta": None if tta_shift is None else _choose_tta(scorer, val, logits, found, tta_shift),
    }
    temperature_only = None if few else fit_temperature(logits, val.labels)
    return Calibrated(info.model_copy(update=measured), temperature_only, known)


def _choose_tta(
    scorer: Scorer, val: ImageSet, logits: npt.NDArray[np.float32], calibration: Calibration, shift: int
) -> TtaInfo:
    """The test-time augmentation for prediction, with its threshold chosen on at most `VIEWS_FROM` images.

    Where further views make more of them wrong, the threshold is 0: no image gets any.
    """
    usual = usual_tta(int(val.images.shape[1])).threshold
    rows = np.linspace(0, len(val) - 1, min(len(val), VIEWS_FROM)).astype(np.int64)
    averaged = _tta_probabilities(scorer, val.take(rows), logits[rows], calibration, shift)
    single = calibration.probabilities(logits[rows])
    labels = val.labels[rows]
    if (averaged.argmax(axis=1) == labels).sum() < (single.argmax(axis=1) == labels).sum():
        return TtaInfo(shift=shift, threshold=0)  # mirrored digits, for example, are no digits
    return TtaInfo(shift=shift, threshold=choose_threshold(single, averaged, usual))
