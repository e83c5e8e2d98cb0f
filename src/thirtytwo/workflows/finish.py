"""The last steps of every run, trained or combined: calibration, metrics, model.onnx, report and model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.parts import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import ExportError
from thirtytwo.evaluation.confidence import calibration_record
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import check_parity, parity_record
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models import Net
from thirtytwo.report.augmented import PASSES, ROWS
from thirtytwo.report.card import write_card
from thirtytwo.report.page import write_report
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import Hardware
from thirtytwo.training.samples import draw_samples
from thirtytwo.training.usage import Meter
from thirtytwo.workflows.ood_data import Skipped, ood_sets, strangers_record, validation_alarms
from thirtytwo.workflows.records import final_record, touch_test
from thirtytwo.workflows.scoring import (
    Calibrated,
    Means,
    calibrate,
    calibration_of,
    compute_class_means,
    model_info,
    save_weights,
    score,
)
from thirtytwo.workflows.selection import selection_record, selections

PARITY_IMAGES = 512


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, and the content of its `metrics.json`."""

    path: Path
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Everything resolved before training; `record` becomes `environment.json`, `split` becomes `split.json`."""

    spec: str
    dataset: DataSet
    parts: Parts
    recipe: Recipe
    hardware: Hardware
    calibrated_by: ModelInfo | None
    record: dict[str, Any]
    split: dict[str, Any]
    data_root: Path | None


def begin(plan: Plan, directory: RunDir) -> RunDir:
    """Write the recipe, the split and the environment of a run; files of a resumed run stay as they are."""
    version = plan.record["versions"]["thirtytwo"]
    if not directory.recipe.is_file():
        directory.write_recipe(plan.recipe, f"thirtytwo {version}: resolved for {plan.dataset.name}.")
    if not directory.split.is_file():
        directory.write_json(directory.split, plan.split)
    if not directory.environment.is_file():
        directory.write_json(directory.environment, plan.record)
    return directory


def finish(plan: Plan, fitted: Fitted, directory: RunDir, log: Callable[[str], None], meter: Meter) -> dict[str, Any]:
    """Calibrate on validation, evaluate on test once, export, write the report; returns the content of metrics.json."""
    metrics = score_and_export(plan, fitted, directory, log, meter)
    write_pages(plan, directory)
    return metrics


def score_and_export(
    plan: Plan, fitted: Fitted, directory: RunDir, log: Callable[[str], None], meter: Meter
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


def write_pages(plan: Plan, directory: RunDir) -> None:
    """Write the report, its figures and the model card."""
    samples = draw_samples(plan.recipe, plan.parts.train, ROWS, PASSES)
    write_report(directory, plan.parts.test, val=plan.parts.val, samples=samples)
    write_card(directory)


def _evaluate_on_test(
    plan: Plan, scorer: Scorer, model: Calibrated, means: Means, directory: RunDir, log: Callable[[str], None]
) -> dict[str, Any]:
    """Evaluate on test once, and OOD detection; returns the content of metrics.json."""
    test, calibration = plan.parts.test, calibration_of(model.info)
    log(f"evaluating on {len(test):,} test images")
    shift = plan.recipe.evaluate.tta_shift if plan.recipe.evaluate.tta else None
    scored = score(scorer, test, calibration, shift)
    directory.write_predictions("test", scored.single)
    metrics = compute_metrics(
        scored.single,
        dataset=plan.dataset.name,
        split="test",
        superclasses=plan.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=touch_test(directory),
    )
    metrics["calibration"] = calibration_record(
        scored.single,
        scored.logits,
        calibration,
        temperature_only=model.temperature_only,
        fitted_on=len(plan.parts.val) if plan.parts.val is not None else 0,
    ) | selection_record(chosen := selections(plan.recipe, plan.record))
    if chosen and plan.parts.val is not None:
        log(f"validation was also used to choose {', '.join(chosen)}: its metrics are optimistic; test metrics are not")
    log("evaluating OOD detection")
    sets = ood_sets(model.info)
    for one in sets:
        if isinstance(one, Skipped):
            log(f"skipped {one.name}: {one.reason}")
    metrics["unknown"] = strangers_record(
        scorer,
        means,
        model.info,
        validation=validation_alarms(model.known_scores, model.info),
        test=scorer.known_scores(scored.features, means),
        sets=sets,
    )
    return metrics


def _export(net: Net, info: ModelInfo, means: Means, test: ImageSet, directory: RunDir) -> dict[str, Any]:
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
