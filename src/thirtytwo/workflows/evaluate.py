"""Evaluate a finished run again, and write its report again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.run_data import RunData, find_again, is_own, load_as_stored
from thirtytwo.data.split import Parts, limit
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, RunError
from thirtytwo.evaluation.calibration import calibration_record
from thirtytwo.evaluation.conformal import check_coverage, least_probability, measure_sets
from thirtytwo.evaluation.corruptions import MAX_IMAGES, measure_corruptions
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.ood import check_thresholded, ood_record, ood_sets
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import slug
from thirtytwo.rundir import Predictions, RunDir, exclusive
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.hardware import choose_hardware
from thirtytwo.workflows.finish import Means, Scored, calibration_of, score
from thirtytwo.workflows.loading import OtherImages, load_run, other_images, own_images
from thirtytwo.workflows.provenance import selection_record, selections
from thirtytwo.workflows.records import count_test_evaluation, progress_logger
from thirtytwo.workflows.report import write_pages

KEPT = ("accuracy_tta", "conformal", "unknown")
"""Entries of metrics.json that are kept where this evaluation does not measure them."""


@preserve_torch_state()
@exclusive
def evaluate(
    run: Path | str,
    *,
    data: str | None = None,
    split: str = "test",
    tta: bool = False,
    corruptions: bool = False,
    corruption_images: int = MAX_IMAGES,
    coverage: float | None = None,
    ood: Sequence[str] = (),
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Evaluate a finished run on its own test or validation images, or on other `data` with the same class names.

    The run's own images are found by their content hashes in `split.json`: missing and new images are logged, and
    counted as `changed` in the metrics. Other data without splits is used completely; images that the run was trained
    on or validated on are left out, and counted as `excluded`.

    An evaluation on the run's own test rewrites `metrics.json` and the report, and counts as one more test evaluation.
    Any other writes its own `predictions-….parquet` and leaves `metrics.json` unchanged.

    Args:
        run: the run directory.
        data: data to evaluate on, as in `train`; the run's own by default. Also names the new place of the run's data.
        split: the split to evaluate on, `test` or `val`.
        tta: also evaluate with test-time augmentation.
        corruptions: also evaluate on images with corruptions of every kind and strength.
        corruption_images: maximum number of images to corrupt, drawn from every class.
        coverage: also evaluate prediction sets that are calibrated on validation to contain the true class with this
            probability, between 0 and 1; no sets by default.
        ood: data sets without any of the model's classes, to evaluate OOD detection on; none by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Returns:
        The metrics, with the keys of `metrics.json`; with `corruptions` also the content of `corruptions.json` under
        that key.

    Raises:
        RunError: the run does not exist, is not finished, or lacks the validation predictions that `coverage` needs.
        DataError: the data is missing or has changed, has other classes, lacks the split, or has too few images left
            that the run was not trained on.
    """
    log = progress_logger(show)
    directory = RunDir.open(Path(run))
    calibration = None if coverage is None else _calibration_predictions(directory, coverage)
    context = _load(directory, data, split, device, data_root)
    if calibration is not None and context.own and split == "val":
        raise DataError(
            "Prediction sets are calibrated on validation, so they cannot be evaluated on it.", "Omit --split val."
        )
    for notice in context.notices:
        log(notice)
    if ood and not (context.own and split == "test"):
        raise DataError(
            "OOD metrics compare other data with the run's own test, which is not evaluated here.",
            "Omit --ood, or --data and --split.",
        )
    means = _load_class_means(directory, context.info) if ood else None
    ood_images = ood_sets(context.info, ood, context.data_root) if ood else []
    sample = limit(context.images, corruption_images, context.recipe.data.split_seed) if corruptions else None
    log(f"evaluating on {len(context.images):,} images of {context.dataset.name} ({split})")
    if context.own and split == "val":
        used = ", ".join(["the temperature and the threshold for unknown", *_chosen(directory, context.recipe)])
        log(f"validation was used to choose {used}: its metrics are optimistic")
    shift = context.recipe.evaluate.tta_shift if tta else None
    scored = score(context.scorer, context.images, calibration_of(context.info), shift)
    metrics = _metrics(directory, context, scored, split)
    if calibration is not None and coverage is not None:
        sets = measure_sets(calibration, scored.single, coverage)
        metrics["conformal"] = sets | selection_record(_chosen(directory, context.recipe))
    if means is not None:
        log("evaluating OOD detection")
        before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
        metrics["unknown"] = ood_record(
            partial(context.scorer.score_known, means=means),
            context.info,
            validation=(before.get("unknown") or {}).get("validation"),
            test=context.scorer.known_scores(scored.features, means),
            sets=ood_images,
        )
    metrics |= context.counts
    directory.write_predictions(context.name(split), scored.single)
    table: dict[str, Any] | None = None
    if sample is not None:
        log(f"evaluating corruptions on {len(sample):,} of {len(context.images):,} images")
        table = {"dataset": context.dataset.name, "split": split}
        table |= measure_corruptions(sample, context.scorer.logits, seed=context.recipe.data.split_seed, tell=log)
        directory.write_json(directory.corruptions_on(context.name(split)), table)
    if context.own and split == "test":
        before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
        if _on_the_same_images(before, metrics):
            metrics |= {key: before[key] for key in KEPT if before.get(key) and not metrics.get(key)}
        directory.write_json(directory.metrics, metrics)
        write_pages(directory, context.recipe, context.parts)
    elif not context.own:
        directory.write_json(directory.metrics_on(context.name(split)), metrics)
    return metrics if table is None else metrics | {"corruptions": table}


def _on_the_same_images(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether both are metrics of all of the run's test images, so that entries of one hold for the other."""
    missing = [(metrics.get("changed") or {}).get("missing", 0) for metrics in (before, now)]
    return before.get("n") == now["n"] and not any(missing)


@dataclass(frozen=True)
class _Context:
    """A finished run and the images to evaluate it on.

    `parts` are those of the run where the images are its own, else None; `notices` say what has changed or was left
    out, `counts` are the entries of the metrics for that.
    """

    recipe: Recipe
    info: ModelInfo
    scorer: Scorer
    dataset: DataSet
    images: ImageSet
    parts: Parts | None
    spec: str
    data_root: Path | None
    notices: tuple[str, ...]
    counts: dict[str, Any]
    own_test: int = 0
    """How many images of other data are of the run's own test."""

    @property
    def own(self) -> bool:
        """Whether the images belong to the data of the run."""
        return self.parts is not None

    def name(self, split: str) -> str:
        """The name that predictions on this split are stored under."""
        return split if self.own else f"{slug(self.spec)}-{split}"


def _load(directory: RunDir, data: str | None, split: str, device: str, data_root: Path | str | None) -> _Context:
    root = Path(data_root) if data_root is not None else None
    loaded = load_run(directory, root)
    recipe, info = loaded.recipe, loaded.info
    hardware = choose_hardware(recipe.train, device)
    spec = data or loaded.environment["data"]["spec"]
    scorer = Scorer(loaded.network.to(hardware.device), info.mean, info.std, hardware.device)
    if data is None:
        found = loaded.data
    else:
        dataset = load_as_stored(directory, data, root, image_size=info.input_size)
        if not is_own(directory, data, dataset):
            other = other_images(dataset, split, info.classes, directory)
            counts = {"excluded": other.excluded}
            notices = _left_out(other, directory)
            return _Context(
                recipe, info, scorer, dataset, other.images, None, spec, root, notices, counts, other.own_test
            )
        found = find_again(directory, dataset)
    images = own_images(found, split, directory)
    notices, counts = tuple(found.changes()), _changed(found, split)
    return _Context(recipe, info, scorer, found.dataset, images, found.parts, spec, root, notices, counts)


def _changed(found: RunData, split: str) -> dict[str, Any]:
    """The entry of the metrics on images that are missing or new since training; empty where there are none."""
    missing = len(found.missing.get(split, ()))
    return {"changed": {"missing": missing, "new": len(found.new)}} if missing or found.new else {}


def _left_out(other: OtherImages, run: RunDir) -> tuple[str, ...]:
    if other.excluded is None:
        return (f"{run.path} recorded no hashes of its images, so its training images cannot be left out",)
    reasons = {"trained_on": "trained on", "validation": "validated and calibrated on"}
    lines = [
        f"left out {count:,} images that {run.path} was {reasons[reason]}"
        for reason, count in other.excluded.items()
        if count
    ]
    if other.own_test:
        lines.append(f"{other.own_test:,} images are of the run's own test set: counted as a test evaluation")
    return tuple(lines)


def _metrics(directory: RunDir, context: _Context, scored: Scored, split: str) -> dict[str, Any]:
    """The metrics; counts one more test evaluation where the images are the run's own test."""
    evaluations = count_test_evaluation(directory) if context.own_test or (context.own and split == "test") else 0
    record = directory.read_json(directory.split)
    metrics = compute_metrics(
        scored.single,
        dataset=context.dataset.name,
        split=split,
        superclasses=context.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=evaluations or int(record["test_evaluations"]),
    )
    before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
    temperature_only = (before.get("calibration") or {}).get("temperature_only")
    metrics["calibration"] = calibration_record(
        scored.single,
        scored.logits,
        calibration_of(context.info),
        temperature_only=temperature_only["temperature"] if temperature_only else None,
        fitted_on=int(record["n_val"]),
    ) | selection_record(_chosen(directory, context.recipe))
    return metrics


def _chosen(directory: RunDir, recipe: Recipe) -> list[str]:
    return selections(recipe, directory.read_json(directory.environment))


def _calibration_predictions(run: RunDir, coverage: float) -> Predictions:
    """The run's validation predictions, checked to be enough for this coverage.

    Raises:
        RunError: the run has no validation images, or their predictions are missing.
        DataError: `coverage` is out of range, or there are too few validation images for it.
    """
    check_coverage(coverage)
    if not run.read_json(run.split).get("n_val"):
        raise RunError(
            f"{run.path} has no validation images, and prediction sets are calibrated on them.",
            "Train with data.val_fraction above 0 and data.train_on = 'train'.",
        )
    calibration = run.read_predictions("val")
    least_probability(calibration, coverage)
    return calibration


def _load_class_means(run: RunDir, info: ModelInfo) -> Means:
    """Load the class means that `known_score` is computed from.

    Raises:
        RunError: the model has no threshold for unknown, or the class means are missing.
    """
    check_thresholded(info)
    return run.read_class_means()
