"""The last steps of every run, trained or combined: calibration, metrics, model.onnx, report and model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save as save_arrays
from safetensors.torch import save

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.split import Parts, limit
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import ExportError, RecipeError
from thirtytwo.evaluation.calibration import Calibration, calibration_of, fit_calibration, fit_temperature
from thirtytwo.evaluation.evaluators import Evaluator, Request, Validation, evaluators
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.ood import FALSE_ALARM_RATE, class_means, threshold_at, validation_false_alarms
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import check_parity, parity_record
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.io import METADATA_KEY, write_bytes
from thirtytwo.machine import package_version
from thirtytwo.models import Network
from thirtytwo.rundir import Predictions, RunDir
from thirtytwo.training.fit import Fitted, InitializedNetwork
from thirtytwo.training.hardware import Hardware, UsageMeter
from thirtytwo.workflows.provenance import selection_record, selections
from thirtytwo.workflows.records import count_test_evaluation, final_record
from thirtytwo.workflows.report import write_pages

PARITY_IMAGES = 512


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, and the content of its `metrics.json`."""

    path: Path
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Everything resolved before training; `record` becomes `environment.json`, `split` becomes `split.json`.

    `initialized` is the network to train; training modifies it, so a plan is trained once.
    """

    spec: str
    dataset: DataSet
    parts: Parts
    recipe: Recipe
    hardware: Hardware
    calibrated_by: ModelInfo | None
    record: dict[str, Any]
    split: dict[str, Any]
    data_root: Path | None
    initialized: InitializedNetwork | None = None


def write_plan(plan: Plan, directory: RunDir) -> RunDir:
    """Write the recipe, the split and the environment of a run; files of a resumed run stay as they are."""
    version = plan.record["versions"]["thirtytwo"]
    if not directory.recipe.is_file():
        directory.write_recipe(plan.recipe, f"thirtytwo {version}: resolved for {plan.dataset.name}.")
    if not directory.split.is_file():
        directory.write_json(directory.split, plan.split)
    if not directory.environment.is_file():
        directory.write_json(directory.environment, plan.record)
    return directory


def finish(
    plan: Plan, fitted: Fitted, directory: RunDir, log: Callable[[str], None], meter: UsageMeter
) -> dict[str, Any]:
    """Calibrate on validation, evaluate on test once, export, write the report; returns the content of metrics.json."""
    metrics = score_and_export(plan, fitted, directory, log, meter)
    write_pages(directory, plan.recipe, plan.parts)
    return metrics


def score_and_export(
    plan: Plan, fitted: Fitted, directory: RunDir, log: Callable[[str], None], meter: UsageMeter
) -> dict[str, Any]:
    """`finish` without report and card."""
    info = model_info(fitted, plan.recipe, plan.dataset, plan.parts)
    save_weights(fitted.net, info, directory)
    layout = plan.hardware.memory_format
    scorer = Scorer(fitted.net, fitted.mean, fitted.std, plan.hardware.device, memory_format=layout)
    means = compute_class_means(scorer, plan.parts.train, plan.recipe.data.split_seed, directory)
    model = calibrate(info, scorer, means, plan.parts.val, plan.calibrated_by, directory)
    metrics = _evaluate_on_test(plan, scorer, model, means, directory, log)
    log("writing model.onnx and the report")
    info = model.info.model_copy(update={"accuracy": metrics["accuracy"]["value"]})
    parity = _export(fitted.net, info, means, plan.parts.test, directory)
    directory.write_json(directory.environment, plan.record | final_record(fitted, info.input_size, parity, meter))
    directory.write_json(directory.metrics, metrics)
    return metrics


def _evaluate_on_test(
    plan: Plan, scorer: Scorer, model: Calibrated, means: Means, directory: RunDir, log: Callable[[str], None]
) -> dict[str, Any]:
    """Evaluate on test once, with every evaluator that is measured by default; returns the content of metrics.json."""
    test, chosen = plan.parts.test, selections(plan.recipe, plan.record)
    request = _request(plan, scorer, model, means, directory, log)
    default = [evaluator for evaluator in evaluators() if evaluator.default]
    prepared = {evaluator.key: evaluator.check(request) for evaluator in default}
    log(f"evaluating on {len(test):,} test images")
    shift = plan.recipe.evaluate.tta_shift if plan.recipe.evaluate.tta else None
    scored = score(scorer, test, calibration_of(model.info), shift)
    directory.write_predictions("test", scored.single)
    metrics = compute_metrics(
        scored.single,
        dataset=plan.dataset.name,
        split="test",
        superclasses=plan.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=count_test_evaluation(directory),
    )
    if chosen and plan.parts.val is not None:
        log(f"validation was also used to choose {', '.join(chosen)}: its metrics are optimistic; test metrics are not")
    found, files = measure_all(default, request, scored, prepared)
    for key, record in files.items():
        directory.write_json(directory.evaluation_on(key, "test"), record)
    return metrics | found


def _request(
    plan: Plan, scorer: Scorer, model: Calibrated, means: Means, directory: RunDir, log: Callable[[str], None]
) -> Request:
    return Request(
        run=directory.path,
        dataset=plan.dataset.name,
        split="test",
        own=True,
        images=plan.parts.test,
        info=model.info,
        network=scorer,
        class_means=lambda: means,
        validation=Validation(
            count=len(plan.parts.val) if plan.parts.val is not None else 0,
            predictions=partial(directory.read_predictions, "val"),
            temperature_only=model.temperature_only,
            false_alarms=validation_false_alarms(model.known_scores, model.info),
            selection=selection_record(selections(plan.recipe, plan.record)),
        ),
        seed=plan.recipe.data.split_seed,
        log=log,
        data_root=plan.data_root,
    )


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


def _export(net: Network, info: ModelInfo, means: Means, test: ImageSet, directory: RunDir) -> dict[str, Any]:
    """Write `model.onnx` and compare its outputs with the network's; returns the largest differences.

    Raises:
        ExportError: the outputs differ; the file is deleted then.
    """
    export_onnx(net, info, directory.onnx, means)
    try:
        return parity_record(check_parity(net, info, directory.onnx, test.images[:PARITY_IMAGES], means))
    except ExportError:
        directory.onnx.unlink()  # a wrong model must not be left behind
        raise


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


def compute_class_means(scorer: Scorer, train: ImageSet, seed: int, run: RunDir) -> Means:
    """Class means of at most `MEANS_FROM` unaugmented training images; written to `class_means.safetensors`."""
    sample = limit(train, MEANS_FROM, seed)
    means = class_means(scorer.outputs(sample.images)[1], sample.labels, len(train.classes))
    write_bytes(run.class_means, save_arrays({"class_means": means}))
    return means


def calibrate(
    info: ModelInfo, scorer: Scorer, means: Means, val: ImageSet | None, calibrated_by: ModelInfo | None, run: RunDir
) -> Calibrated:
    """Fit the calibration and the threshold for unknown images on validation, or take them from the calibration run."""
    info = info.model_copy(update={"unknown_score": "network" if scorer.net.scores_known else "class_mean"})
    if val is None:
        calibrated = ("temperature", "curvature", "unknown_threshold", "unknown_score")
        return Calibrated(info.model_copy(update={key: getattr(calibrated_by or info, key) for key in calibrated}))
    logits, features = scorer.outputs(val.images)
    found = fit_calibration(logits, val.labels)
    run.write_predictions("val", predictions(val, logits, found))
    known = scorer.known_scores(features, means)
    measured = {
        "temperature": found.temperature,
        "curvature": found.curvature,
        "unknown_threshold": threshold_at(known, FALSE_ALARM_RATE),
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
            "data.train_on is 'all', so there is no validation to fit the temperature and the threshold for unknown "
            "images on.",
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
            "version": package_version("thirtytwo"),
        }
    )


def _architecture(recipe: Recipe) -> list[str]:
    """The value of the network's option `architecture`, where it has one."""
    named = recipe.model.options.get("architecture")
    return [named] if isinstance(named, str) else []


def save_weights(net: Network, info: ModelInfo, run: RunDir) -> None:
    """Write `weights.safetensors`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_bytes(run.weights, save(tensors, metadata={METADATA_KEY: info.model_dump_json()}))
