"""The last steps of every run, trained or combined: calibration, metrics, model.onnx, report and model card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.evaluation.calibration import calibration_of, is_calibrated, uncalibrated
from thirtytwo.evaluation.evaluators import Request, Validation, evaluators
from thirtytwo.evaluation.metrics import compute_metrics, measured
from thirtytwo.evaluation.ood import validation_false_alarms
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import check_parity
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import CHECKSUM_KEY, METADATA_KEY, atomic_write, write_bytes
from thirtytwo.machine import package_version
from thirtytwo.models import Network
from thirtytwo.models.base import tensors_checksum
from thirtytwo.reprs import card, table
from thirtytwo.rundir import RunDir
from thirtytwo.text import SPACE, counted
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import UsageMeter, release_freed_memory
from thirtytwo.workflows.prepare import Plan
from thirtytwo.workflows.provenance import selection_record, selections
from thirtytwo.workflows.records import count_final_evaluation, final_record, read_earlier_metrics, restored_entries
from thirtytwo.workflows.report import write_pages
from thirtytwo.workflows.scoring import Calibrated, Means, calibrate, compute_class_means, measure_all, score

PARITY_IMAGES, PARITY_SIDE = 512, 64
"""Number of images whose outputs are compared after the export; fewer where they are larger than this side."""
CONFUSED = 5
"""Number of pairs of classes that a run shows in a notebook."""


@dataclass(frozen=True)
class Run:
    """A finished run: its directory, and the content of its `metrics.json`; `Run.load` opens an earlier one."""

    path: Path
    metrics: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Open a finished run again, as `train` returned it.

        Args:
            path: its directory.

        Raises:
            RunError: there is no run, or it is not finished or damaged.
        """
        directory = RunDir.open(path)
        return cls(directory.path, directory.read_json(directory.metrics))

    def __fspath__(self) -> str:
        """The run directory, so that functions which take a run's path take the run."""
        return str(self.path)

    def __repr__(self) -> str:
        accuracy, split = self.metrics["accuracy"]["value"], self.metrics["split"]
        return f"Run({str(self.path)!r}, {split} accuracy {accuracy:.4f})"

    def _repr_html_(self) -> str:
        """Metrics with intervals, the classes that are confused most, and where the report is."""
        shown = self.metrics
        rows = [(metric.name, value, ends) for metric, value, ends in measured(shown)]
        pairs = [(f"{row['true']} → {row['predicted']}", f"{row['count']:,}") for row in shown["confusions"][:CONFUSED]]
        parts = [table(rows, ("Metric", "Value", f"95{SPACE}% interval"))]
        if pairs:
            parts.append(table(pairs, ("Most confused: true → predicted", "Images")))
        images = counted(shown["n"], f"{shown['split']} image")
        title = f"{self.path}: {shown['dataset']}, {images}"
        times = counted(shown["test_evaluations"], "test evaluation")
        return card(title, *parts, note=f"{times}. Report: {RunDir(self.path).report}")


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
    before = read_earlier_metrics(directory)
    info = model_info(fitted, plan.recipe, plan.dataset, plan.parts)
    save_weights(fitted.net, info, directory)
    layout = plan.hardware.memory_format
    scorer = Scorer(fitted.net, fitted.mean, fitted.std, plan.hardware.device, memory_format=layout)
    means = compute_class_means(scorer, plan.parts.train, plan.recipe.data.split_seed, directory)
    shift = plan.recipe.evaluate.tta_shift if plan.recipe.evaluate.tta else None
    model = calibrate(info, scorer, means, plan.parts.val, plan.calibrated_by, directory, shift)
    if plan.calibrated_by is None and not is_calibrated(model.info):
        log(uncalibrated(len(plan.parts.val) if plan.parts.val is not None else 0))
    metrics = _evaluate_on_test(plan, scorer, model, means, directory, log, shift)
    metrics |= restored_entries(directory, before, metrics, log)
    release_freed_memory()
    log("writing model.onnx and the report")
    info = model.info.model_copy(update={"accuracy": metrics["accuracy"]["value"]})
    parity = _export(fitted.net, info, means, plan.parts.test, directory)
    directory.write_json(directory.environment, plan.record | final_record(fitted, info.input_size, parity, meter))
    directory.write_json(directory.metrics, metrics)
    return metrics


def _evaluate_on_test(
    plan: Plan,
    scorer: Scorer,
    model: Calibrated,
    means: Means,
    directory: RunDir,
    log: Callable[[str], None],
    tta_shift: int | None,
) -> dict[str, Any]:
    """Evaluate on test once, with every evaluator that is measured by default; returns the content of metrics.json."""
    test, chosen = plan.parts.test, selections(plan.recipe, plan.record)
    request = _request(plan, scorer, model, means, directory, log)
    default = [evaluator for evaluator in evaluators() if evaluator.default]
    prepared = {evaluator.key: evaluator.check(request) for evaluator in default}
    log(f"evaluating on {len(test):,} test images")
    scored = score(scorer, test, calibration_of(model.info), tta_shift)
    directory.write_predictions("test", scored.single)
    metrics = compute_metrics(
        scored.single,
        dataset=plan.dataset.name,
        split="test",
        superclasses=plan.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=count_final_evaluation(directory),
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


def _export(net: Network, info: ModelInfo, means: Means, test: ImageSet, directory: RunDir) -> dict[str, Any]:
    """Write `model.onnx`, once its outputs are those of the network; returns the largest differences.

    Raises:
        ExportError: the outputs differ; there is no `model.onnx` then.
    """
    directory.onnx.unlink(missing_ok=True)  # of an earlier session; a wrong or unchecked one must not be left behind
    count = min(PARITY_IMAGES, max(1, PARITY_IMAGES * PARITY_SIDE**2 // info.input_size**2))
    with atomic_write(directory.onnx) as temporary:
        export_onnx(net, info, temporary, means)
        return check_parity(net, info, temporary, test.images[:count], means, str(directory.onnx))


def model_info(fitted: Fitted, recipe: Recipe, dataset: DataSet, parts: Parts) -> ModelInfo:
    """The metadata of the model file, without calibration and accuracy."""
    return ModelInfo.model_validate(
        {
            "classes": parts.train.classes,
            "input_size": int(parts.train.images.shape[1]),
            "resize": recipe.data.resize,
            "mean": fitted.mean,
            "std": fitted.std,
            "temperature": 1.0,
            "unknown_threshold": None,
            "architecture": recipe.model.architecture,
            "dataset": dataset.name,
            "accuracy": None,
            "version": package_version("thirtytwo"),
        }
    )


def save_weights(net: Network, info: ModelInfo, run: RunDir) -> None:
    """Write `weights.safetensors`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    texts = {METADATA_KEY: info.model_dump_json(), CHECKSUM_KEY: tensors_checksum(save(tensors))}
    write_bytes(run.weights, save(tensors, metadata=texts))
