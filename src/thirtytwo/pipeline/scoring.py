"""Calibrated predictions of a trained network, and the network of a finished run."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.errors import RecipeError, RunError
from thirtytwo.files import write_bytes
from thirtytwo.fit.train import Fitted, build_net
from thirtytwo.judge.calibration import fit_temperature, softmax, unknown_threshold
from thirtytwo.judge.score import Scorer
from thirtytwo.models import Net
from thirtytwo.pipeline.parts import Parts
from thirtytwo.pipeline.records import version
from thirtytwo.predict.modelfile import ModelInfo, read_info
from thirtytwo.recipe import Recipe
from thirtytwo.rundir import Predictions, RunDir


def score(
    scorer: Scorer, pictures: ImageSet, temperature: float, tta_shift: int | None
) -> tuple[Predictions, Predictions | None]:
    """Predictions from one view of each picture, and with test-time augmentation where `tta_shift` is given."""
    single = predictions(pictures, scorer.logits(pictures.images), temperature)
    if tta_shift is None:
        return single, None
    return single, predictions(pictures, scorer.tta_logits(pictures.images, tta_shift), temperature)


def predictions(pictures: ImageSet, logits: npt.NDArray[np.float32], temperature: float) -> Predictions:
    """Calibrated predictions of labelled pictures from their logits float `(N, C)`."""
    return Predictions(
        classes=pictures.classes,
        truth=pictures.labels,
        probabilities=softmax(logits, temperature).astype(np.float32),
        rows=pictures.rows,
        files=pictures.files,
    )


def calibrated(info: ModelInfo, scorer: Scorer, val: ImageSet | None, twin: ModelInfo | None, run: RunDir) -> ModelInfo:
    """Temperature and unknown threshold from validation, or from the twin run that had one."""
    if val is None:
        measured = twin or info
        return info.model_copy(
            update={"temperature": measured.temperature, "unknown_threshold": measured.unknown_threshold}
        )
    logits = scorer.logits(val.images)
    temperature = fit_temperature(logits, val.labels)
    run.write_predictions("val", predictions(val, logits, temperature))
    threshold = unknown_threshold(logits, val.labels)
    return info.model_copy(update={"temperature": temperature, "unknown_threshold": threshold})


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


def load_net(run: RunDir, recipe: Recipe) -> tuple[Net, ModelInfo]:
    """The trained network of a run and, from its model file, what it needs to look at pictures.

    Raises:
        RunError: training did not finish, or the weights do not fit.
    """
    for needed in (run.weights, run.onnx):
        if not needed.is_file():
            raise RunError(
                f"{run.path} has no {needed.name}: its training did not finish.",
                f"Continue it with: thirtytwo train DATA --resume --run {run.path}",
            )
    info = read_info(run.onnx)
    net = build_net(recipe, len(info.classes))
    try:
        net.load_state_dict(load_file(run.weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(
            f"{run.weights} does not fit the run's recipe or is damaged: {str(error).splitlines()[0]}.",
            "Train the run again.",
        ) from None
    return net.eval(), info
