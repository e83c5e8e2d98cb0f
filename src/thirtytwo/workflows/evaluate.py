"""Evaluate a finished run again, and write its report again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thirtytwo.arguments import optional_path
from thirtytwo.config.recipe import Recipe
from thirtytwo.data.load import absolute, spec_of
from thirtytwo.data.run_data import RunData, find_again, is_own, load_as_stored
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import ThirtytwoError, check_choice, check_least
from thirtytwo.evaluation.calibration import calibration_of, is_calibrated
from thirtytwo.evaluation.corruptions import MAX_IMAGES
from thirtytwo.evaluation.evaluators import Request, Validation, evaluators
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import slug
from thirtytwo.run_paths import EVALUATED
from thirtytwo.rundir import RunDir, exclusive
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.text import counted
from thirtytwo.training.hardware import choose_hardware
from thirtytwo.workflows.loading import OtherImages, load_run, other_images, own_images
from thirtytwo.workflows.provenance import selection_record, selections
from thirtytwo.workflows.records import added_entries, count_test_evaluation, on_the_same_images, progress_logger
from thirtytwo.workflows.report import write_pages
from thirtytwo.workflows.scoring import Scored, measure_all, score


@preserve_torch_state()
@exclusive
def evaluate(
    run: Path | str,
    *,
    data: str | Path | None = None,
    split: str = "test",
    tta: bool = False,
    corruptions: bool = False,
    corruption_images: int = MAX_IMAGES,
    coverage: float | None = None,
    ood: str | Path | Sequence[str | Path] | None = (),
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
    **others: Any,
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
        corruptions: also evaluate on images with corruptions of every kind and severity.
        corruption_images: maximum number of images to corrupt, drawn from every class.
        coverage: also evaluate prediction sets that are calibrated on validation to contain the true class with this
            probability, between 0 and 1; no sets by default.
        ood: one or several data sets without any of the model's classes, to evaluate OOD detection on; none by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.
        others: options of evaluators from other packages (`thirtytwo.evaluation.evaluators`), by name.

    Returns:
        The metrics, with the keys of `metrics.json`; with `corruptions` also the content of `corruptions.json` under
        that key.

    Raises:
        ArgumentError: `split` is neither `test` nor `val`.
        RunError: the run does not exist, is not finished, or lacks the validation predictions that `coverage` needs.
        DataError: the data is missing or has changed, has other classes, lacks the split, or has too few images left
            that the run was not trained on.
        ThirtytwoError: an option has no effect without another one, such as `corruption_images`.
    """
    check_choice("split", split, EVALUATED)
    check_least("corruption_images", corruption_images, optional=False)
    log, root = progress_logger(show), optional_path("data_root", data_root)
    directory = RunDir.open(run)
    options = {
        "corruptions": corruptions,
        "corruption_images": corruption_images,
        "coverage": coverage,
        "ood": _specs("ood", ood),
        **_known(others),
    }
    chosen = [evaluator for evaluator in evaluators() if evaluator.requested(options)]
    _refuse_without_effect(options)
    context = _load(directory, None if data is None else spec_of(data), split, device, root)
    for notice in context.notices:
        log(notice)
    request = _request(directory, context, split, options, log)
    prepared = {evaluator.key: evaluator.check(request) for evaluator in chosen}
    shift = context.recipe.evaluate.tta_shift if tta else None
    _log_start(directory, context, split, log)
    scored = score(context.scorer, context.images, calibration_of(context.info), shift)
    metrics = _metrics(directory, context, scored, split)
    directory.write_predictions(context.name(split), scored.single)
    found, files = measure_all(chosen, request, scored, prepared)
    for key, record in files.items():
        directory.write_json(directory.evaluation_on(key, context.name(split)), record)
    metrics |= found | context.counts
    _write(directory, context, split, metrics)
    return metrics | files


def _specs(name: str, data: object) -> tuple[str, ...]:
    """The specs of an argument that is one data set, or several, or None."""
    several = isinstance(data, Iterable) and not isinstance(data, str | bytes | os.PathLike)
    every: Iterable[object] = () if data is None else data if several else (data,)  # type: ignore[assignment]
    return tuple(spec_of(one, name) for one in every)


def _log_start(directory: RunDir, context: _Context, split: str, log: Callable[[str], None]) -> None:
    """Log the images, and whether metrics on them are optimistic."""
    log(f"evaluating on {len(context.images):,} images of {context.dataset.name} ({split})")
    if context.own and split == "val":
        calibrated = ["the temperature and the threshold for unknown images"] if is_calibrated(context.info) else []
        if used := ", ".join([*calibrated, *_chosen(directory, context.recipe)]):
            log(f"validation was used to choose {used}: its metrics are optimistic")


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """The options of evaluators that `evaluate` does not list.

    Raises:
        TypeError: no evaluator has such an option.
    """
    names = {option.name for evaluator in evaluators() for option in evaluator.options}
    unknown = [name for name in options if name not in names]
    if unknown:
        raise TypeError(f"evaluate() got an unexpected keyword argument {unknown[0]!r}")
    return options


def _refuse_without_effect(options: Mapping[str, Any]) -> None:
    """Check that no option is set of an evaluator that is not requested, before test is evaluated.

    Raises:
        ThirtytwoError: one is.
    """
    for evaluator in evaluators():
        if evaluator.options and not evaluator.requested(options):
            first, *others = evaluator.options
            for option in others:
                if options.get(option.name, option.default) != option.default:
                    alone, needed = (f"--{one.name.replace('_', '-')}" for one in (option, first))
                    raise ThirtytwoError(
                        f"{alone} has no effect without {needed}.", f"Add {needed}, or remove {alone}."
                    )


def _write(directory: RunDir, context: _Context, split: str, metrics: dict[str, Any]) -> None:
    """Write the metrics where they belong, and the pages after an evaluation of the run's own test."""
    if not context.own:
        directory.write_json(directory.metrics_on(context.name(split)), metrics)
    elif split == "test":
        before = _last_metrics(directory)
        if on_the_same_images(before, metrics):
            metrics |= {key: value for key, value in added_entries(before).items() if not metrics.get(key)}
        directory.write_json(directory.metrics, metrics)
        write_pages(directory, context.recipe, context.parts)


def _last_metrics(directory: RunDir) -> dict[str, Any]:
    return directory.read_json(directory.metrics) if directory.metrics.is_file() else {}


def _request(
    directory: RunDir, context: _Context, split: str, options: dict[str, Any], log: Callable[[str], None]
) -> Request:
    before = _last_metrics(directory)
    temperature_only = (before.get("calibration") or {}).get("temperature_only")
    return Request(
        run=directory.path,
        dataset=context.dataset.name,
        split=split,
        own=context.own,
        images=context.images,
        info=context.info,
        network=context.scorer,
        class_means=directory.read_class_means,
        validation=Validation(
            count=int(directory.read_json(directory.split)["n_val"]),
            predictions=partial(directory.read_predictions, "val"),
            temperature_only=temperature_only["temperature"] if temperature_only else None,
            false_alarms=(before.get("unknown") or {}).get("validation"),
            selection=selection_record(_chosen(directory, context.recipe)),
        ),
        seed=context.recipe.data.split_seed,
        log=log,
        options=options,
        data_root=context.data_root,
    )


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
    label: str = ""
    """Name of other data in the names of files."""

    @property
    def own(self) -> bool:
        """Whether the images belong to the data of the run."""
        return self.parts is not None

    def name(self, split: str) -> str:
        """The name that predictions on this split are stored under."""
        return split if self.own else f"{self.label}-{split}"


def _load(directory: RunDir, data: str | None, split: str, device: str, root: Path | None) -> _Context:
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
            counts: dict[str, Any] = {"excluded": other.excluded}
            notices = _left_out(other, directory)
            counts |= {"data": absolute(data) or data}
            label = _label(directory, data, split)
            return _Context(
                recipe, info, scorer, dataset, other.images, None, spec, root, notices, counts, other.own_test, label
            )
        found = find_again(directory, dataset)
    images = own_images(found, split, directory)
    notices = tuple(found.changes())
    return _Context(
        recipe, info, scorer, found.dataset, images, found.parts, spec, root, notices, _changed(found, split)
    )


def _label(directory: RunDir, data: str, split: str) -> str:
    """The name of other data in the names of files: that of its folder, with a hash of its place if that is taken."""
    name, place = slug(data), absolute(data) or data
    earlier = directory.metrics_on(f"{name}-{split}")
    before = directory.read_json(earlier).get("data", place) if earlier.is_file() else place
    return name if before == place else f"{name}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"


def _changed(found: RunData, split: str) -> dict[str, Any]:
    """The entry of the metrics on images that are missing or new since training; empty where there are none."""
    missing = found.lost.get(split, 0)
    return {"changed": {"missing": missing, "new": len(found.new)}} if missing or found.new else {}


def _left_out(other: OtherImages, run: RunDir) -> tuple[str, ...]:
    if other.excluded is None:
        return (f"{run.path} recorded no hashes of its images, so its training images cannot be left out",)
    reasons = {"trained_on": "trained on", "validation": "validated and calibrated on"}
    lines = [
        f"left out {counted(count, 'image')} that {run.path} was {reasons[reason]}"
        for reason, count in other.excluded.items()
        if count
    ]
    if other.own_test:
        are = "is" if other.own_test == 1 else "are"
        images = counted(other.own_test, "image")
        lines.append(f"{images} {are} of the run's own test set: counted as a test evaluation")
    return tuple(lines)


def _metrics(directory: RunDir, context: _Context, scored: Scored, split: str) -> dict[str, Any]:
    """The metrics; counts one more test evaluation where the images are the run's own test."""
    evaluations = count_test_evaluation(directory) if context.own_test or (context.own and split == "test") else 0
    record = directory.read_json(directory.split)
    return compute_metrics(
        scored.single,
        dataset=context.dataset.name,
        split=split,
        superclasses=context.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=evaluations or int(record["test_evaluations"]),
    )


def _chosen(directory: RunDir, recipe: Recipe) -> list[str]:
    return selections(recipe, directory.read_json(directory.environment))
