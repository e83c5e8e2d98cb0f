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
"""Part of validation that the threshold calls unknown."""
MEANS_FROM = 10_000
"""Training pictures, at most, from which class means are taken."""

Means = npt.NDArray[np.float32]
"""The mean direction of each class's features, `(C, D)`."""


@dataclass(frozen=True)
class Scored:
    """What a network said of labelled pictures: from one view, from several, and its logits and features of one."""

    single: Predictions
    averaged: Predictions | None
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibrated:
    """A model that knows how sure it is: its description, and what validation told besides.

    `temperature_only` is the best temperature without a curvature, `known_scores` are those of the validation pictures
    `(N,)`; both None where there was no validation.
    """

    info: ModelInfo
    temperature_only: float | None = None
    known_scores: npt.NDArray[np.float64] | None = None


def score(scorer: Scorer, pictures: ImageSet, calibration: Calibration, tta_shift: int | None) -> Scored:
    """Look at each picture once, and with test-time augmentation where `tta_shift` is given."""
    logits, features = scorer.outputs(pictures.images)
    single = predictions(pictures, logits, calibration)
    averaged = None
    if tta_shift is not None:
        averaged = predictions(pictures, scorer.tta_logits(pictures.images, tta_shift), calibration)
    return Scored(single, averaged, logits, features)


def predictions(pictures: ImageSet, logits: npt.NDArray[np.float32], calibration: Calibration) -> Predictions:
    """Calibrated predictions of labelled pictures from the network's logits `(N, C)`."""
    return Predictions(
        classes=pictures.classes,
        truth=pictures.labels,
        probabilities=calibration.probabilities(logits).astype(np.float32),
        rows=pictures.rows,
        files=pictures.files,
    )


def calibration_of(info: ModelInfo) -> Calibration:
    """How this model's logits become probabilities."""
    return Calibration(info.temperature, info.curvature)


def means_of(scorer: Scorer, train: ImageSet, seed: int, run: RunDir) -> Means:
    """Class means of at most `MEANS_FROM` training pictures as they are; written to `class_means.safetensors`."""
    some = limit(train, MEANS_FROM, seed) if len(train) > MEANS_FROM else train
    means = class_means(scorer.outputs(some.images)[1], some.labels, len(train.classes))
    write_bytes(run.class_means, save_arrays({"class_means": means}))
    return means


def calibrated(
    info: ModelInfo, scorer: Scorer, means: Means, val: ImageSet | None, twin: ModelInfo | None, run: RunDir
) -> Calibrated:
    """Calibration and unknown threshold from validation, or from the twin run that had one."""
    info = info.model_copy(update={"unknown_score": "network" if scorer.net.scores_known else "class_mean"})
    if val is None:
        borrowed = ("temperature", "curvature", "unknown_threshold", "unknown_score")
        return Calibrated(info.model_copy(update={key: getattr(twin or info, key) for key in borrowed}))
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


def twin(recipe: Recipe) -> ModelInfo | None:
    """What the run named by `calibrate_from` measured on its validation rows.

    Raises:
        RecipeError: all of train is used, and no twin is named, or one that held nothing out.
    """
    if recipe.data.train_on != "all":
        return None
    if not recipe.data.calibrate_from:
        raise RecipeError(
            "data.train_on is 'all', so nothing is held out to fit temperature and unknown threshold on.",
            "Train the same recipe with train_on = 'train' first and name that run in data.calibrate_from.",
        )
    run = RunDir.open(recipe.data.calibrate_from)
    if not run.read_json(run.split)["n_val"]:
        raise RecipeError(
            f"data.calibrate_from names {run.path}, which held nothing out either.",
            "Name a run of the same recipe with train_on = 'train'.",
        )
    return read_info(run.onnx)


def model_info(fitted: Fitted, recipe: Recipe, dataset: DataSet, parts: Parts) -> ModelInfo:
    """What the model file will say of itself, calibration and accuracy still open."""
    return ModelInfo.model_validate(
        {
            "classes": dataset.classes,
            "input_size": int(parts.train.images.shape[1]),
            "resize": recipe.data.resize,
            "mean": fitted.mean,
            "std": fitted.std,
            "temperature": 1.0,
            "unknown_threshold": None,
            "architecture": " ".join([recipe.model.name, *_which(recipe)]),
            "dataset": dataset.name,
            "accuracy": None,
            "version": version("thirtytwo"),
        }
    )


def _which(recipe: Recipe) -> list[str]:
    """The architecture that a network's options name, where they name one."""
    named = recipe.model.options.get("architecture")
    return [named] if isinstance(named, str) else []


def save_weights(net: Net, info: ModelInfo, run: RunDir) -> None:
    """Write `weights.safetensors` whole."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(run.weights, save(tensors, metadata={"thirtytwo": info.model_dump_json()}))


def load_net(run: RunDir) -> tuple[Net, ModelInfo]:
    """The trained network of a run and, from its model file, what it needs to look at pictures.

    Raises:
        RunError: training did not finish, or the weights do not fit.
    """
    if not run.onnx.is_file():
        raise RunError(
            f"{run.path} has no {run.onnx.name}: its training did not finish.",
            f"Continue it with: thirtytwo train DATA --resume --run {run.path}",
        )
    info = read_info(run.onnx)
    return trained_net(run, len(info.classes)), info
