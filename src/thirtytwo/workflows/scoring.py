"""Calibrated predictions of a trained network, and the network of a finished run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.parts import Parts
from thirtytwo.data.split import limit
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import RecipeError, RunError
from thirtytwo.evaluation.calibration import Calibration, fit_calibration, fit_temperature
from thirtytwo.evaluation.ood import class_means, threshold_at
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import write_bytes
from thirtytwo.models import Net
from thirtytwo.rundir import Predictions, RunDir
from thirtytwo.training.build import trained_net
from thirtytwo.training.fit import Fitted
from thirtytwo.workflows.records import version

CALLED_UNKNOWN = 0.05
"""Fraction of validation images below the threshold for unknown."""
MEANS_FROM = 10_000
"""Maximum number of training images that class means are computed from."""

Means = npt.NDArray[np.float32]
"""The mean direction of each class's features, `(C, D)`."""


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
    validation images; both are None without validation.
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
        averaged = predictions(images, scorer.tta_logits(images.images, tta_shift), calibration)
    return Scored(single, averaged, logits, features)


def predictions(images: ImageSet, logits: npt.NDArray[np.float32], calibration: Calibration) -> Predictions:
    """Calibrated predictions of labeled images from the network's logits `(N, C)`."""
    return Predictions(
        classes=images.classes,
        truth=images.labels,
        probabilities=calibration.probabilities(logits).astype(np.float32),
        rows=images.rows,
        files=images.files,
    )


def calibration_of(info: ModelInfo) -> Calibration:
    """The calibration that turns this model's logits into probabilities."""
    return Calibration(info.temperature, info.curvature)


def compute_class_means(scorer: Scorer, train: ImageSet, seed: int, run: RunDir) -> Means:
    """Class means of at most `MEANS_FROM` unaugmented training images; written to `class_means.safetensors`."""
    sample = limit(train, MEANS_FROM, seed) if len(train) > MEANS_FROM else train
    means = class_means(scorer.outputs(sample.images)[1], sample.labels, len(train.classes))
    write_bytes(run.class_means, save_arrays({"class_means": means}))
    return means


def calibrate(
    info: ModelInfo, scorer: Scorer, means: Means, val: ImageSet | None, calibrated_by: ModelInfo | None, run: RunDir
) -> Calibrated:
    """Fit the calibration and the threshold for unknown on validation, or take them from the calibration run."""
    info = info.model_copy(update={"unknown_score": "network" if scorer.net.scores_known else "class_mean"})
    if val is None:
        borrowed = ("temperature", "curvature", "unknown_threshold", "unknown_score")
        return Calibrated(info.model_copy(update={key: getattr(calibrated_by or info, key) for key in borrowed}))
    logits, features = scorer.outputs(val.images)
    found = fit_calibration(logits, val.labels)
    run.write_predictions("val", predictions(val, logits, found))
    known = scorer.known_scores(features, means)
    measured = {
        "temperature": found.temperature,
        "curvature": found.curvature,
        "unknown_threshold": threshold_at(known, CALLED_UNKNOWN),
    }
    return Calibrated(info.model_copy(update=measured), fit_temperature(logits, val.labels), known)


def calibration_run(recipe: Recipe) -> ModelInfo | None:
    """The model of the run that `data.calibrate_from` names; None where this run holds out validation itself.

    Raises:
        RecipeError: the run trains on all of train, and names no calibration run, or one without validation.
    """
    if recipe.data.train_on != "all":
        return None
    if not recipe.data.calibrate_from:
        raise RecipeError(
            "data.train_on is 'all', so there is no validation to fit temperature and threshold for unknown on.",
            "Train the same recipe with data.train_on = 'train' first, and set data.calibrate_from to that run.",
        )
    run = RunDir.open(recipe.data.calibrate_from)
    if not run.read_json(run.split)["n_val"]:
        raise RecipeError(
            f"data.calibrate_from is {run.path}, which has no validation either.",
            "Set it to a run of the same recipe with data.train_on = 'train'.",
        )
    return read_info(run.onnx)


def model_info(fitted: Fitted, recipe: Recipe, dataset: DataSet, parts: Parts) -> ModelInfo:
    """The metadata of the model file, without calibration and accuracy."""
    return ModelInfo.model_validate(
        {
            "classes": dataset.classes,
            "input_size": int(parts.train.images.shape[1]),
            "resize": recipe.data.resize,
            "mean": fitted.mean,
            "std": fitted.std,
            "temperature": 1.0,
            "unknown_threshold": None,
            "architecture": " ".join([recipe.model.name, *_architecture(recipe)]),
            "dataset": dataset.name,
            "accuracy": None,
            "version": version("thirtytwo"),
        }
    )


def _architecture(recipe: Recipe) -> list[str]:
    """The value of the network's option `architecture`, where it has one."""
    named = recipe.model.options.get("architecture")
    return [named] if isinstance(named, str) else []


def save_weights(net: Net, info: ModelInfo, run: RunDir) -> None:
    """Write `weights.safetensors`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(run.weights, save(tensors, metadata={"thirtytwo": info.model_dump_json()}))


def load_net(run: RunDir) -> tuple[Net, ModelInfo]:
    """Load the trained network of a run and the metadata of its model file.

    Raises:
        RunError: training did not finish, or the weights do not fit the recipe.
    """
    if not run.onnx.is_file():
        raise RunError(
            f"{run.path} has no {run.onnx.name}: its training did not finish.",
            f"Continue it with: thirtytwo train DATA --resume --run {run.path}",
        )
    info = read_info(run.onnx)
    return trained_net(run, len(info.classes)), info
