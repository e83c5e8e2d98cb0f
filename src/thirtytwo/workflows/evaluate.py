"""Scoring a finished run again, and writing its report again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.parts import Parts
from thirtytwo.data.run_data import RunData, find_again, is_own, load_as_stored, load_run_data
from thirtytwo.data.split import limit
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, RunError
from thirtytwo.evaluation.confidence import calibration_record
from thirtytwo.evaluation.conformal import check_coverage, least_probability, measure_sets
from thirtytwo.evaluation.corruptions import PICTURES, measure_corruptions
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.io import check_free, write_text
from thirtytwo.report.augmented import PASSES, ROWS
from thirtytwo.report.card import write_card
from thirtytwo.report.page import render, write_report
from thirtytwo.report.run_record import gather
from thirtytwo.rundir import Predictions, RunDir, alone, writing_at
from thirtytwo.training.hardware import choose_hardware, preserved
from thirtytwo.training.samples import draw_samples
from thirtytwo.workflows.ood_data import check_thresholded, ood_sets, strangers_record
from thirtytwo.workflows.parts import Scorable, other_images, own_images
from thirtytwo.workflows.records import slug, teller, touch_test
from thirtytwo.workflows.scoring import Means, Scored, calibration_of, load_net, score
from thirtytwo.workflows.selection import selection_record, selections

KEPT = ("accuracy_tta", "conformal", "unknown")
"""Entries of metrics.json that stay where this time they were not asked for."""


@preserved()
@alone
def evaluate(
    run: Path | str,
    *,
    data: str | None = None,
    split: str = "test",
    tta: bool = False,
    corruptions: bool = False,
    corruption_pictures: int = PICTURES,
    coverage: float | None = None,
    ood: Sequence[str] = (),
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a finished run again, on its own test or validation images or on other `data` with the same class names.

    Its own images are found by their content, as `split.json` records it: what is missing or new since is logged, and
    counted as `changed` in the metrics. Other data is scored whole where it has no splits; what the run was trained on
    or chosen on is left out, and counted as `excluded`.

    Its own test rewrites `metrics.json` and the report and counts one more touch of test; anything else writes its
    own `predictions-….parquet` and leaves `metrics.json` alone. Gives the content of a `metrics.json`; with
    `corruptions` the content of `corruptions.json`, which is written as well, under that key.

    Args:
        run: the run directory.
        data: other data than the run's own, or where that is now.
        split: `test` or `val`.
        tta: also with test-time augmentation.
        corruptions: also under corruptions of every kind and strength.
        corruption_pictures: how many pictures are corrupted at most, drawn from every class.
        coverage: also prediction sets, calibrated on validation to hold the truth this often.
        ood: data sets that hold none of its classes: how well it tells that it does not know them is measured as well.
        device: what computes.
        data_root: where known data sets are looked for first.
        show: tell progress on standard error.

    Raises:
        RunError: no such run, not finished, or without the validation rows that sets are calibrated on.
        DataError: the data is not there or other data than it was, the classes do not match, there is no such split,
            nothing is left that the run does not know, or too little for what is asked.
    """
    say = teller(show)
    directory = RunDir.open(Path(run))
    calibration = None if coverage is None else _calibration(directory, coverage)
    there = _opened(directory, data, split, device, data_root)
    if calibration is not None and there.own and split == "val":
        raise DataError(
            "Prediction sets are calibrated on validation, so they cannot be measured on it.", "Leave out --split val."
        )
    for sentence in there.told:
        say(sentence)
    if ood and not (there.own and split == "test"):
        raise DataError(
            "OOD metrics compare other data with the run's own test, which is not scored here.",
            "Leave out --ood, or --data and --split.",
        )
    means = _means(directory, there.info) if ood else None
    others = ood_sets(there.info, ood, there.data_root) if ood else []
    spoilt = _drawn(there.pictures, corruption_pictures, there.recipe.data.split_seed) if corruptions else None
    say(f"scoring {len(there.pictures):,} pictures of {there.dataset.name} ({split})")
    if there.own and split == "val":
        used = ", ".join(["temperature and the threshold for unknown", *_chosen(directory, there.recipe)])
        say(f"validation was used to choose {used}: scores on it are optimistic")
    shift = there.recipe.evaluate.tta_shift if tta else None
    scored = score(there.scorer, there.pictures, calibration_of(there.info), shift)
    metrics = _figures(directory, there, scored, split)
    if calibration is not None and coverage is not None:
        sets = measure_sets(calibration, scored.single, coverage)
        metrics["conformal"] = sets | selection_record(_chosen(directory, there.recipe))
    if means is not None:
        say("scoring OOD data")
        before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
        metrics["unknown"] = strangers_record(
            there.scorer,
            means,
            there.info,
            validation=(before.get("unknown") or {}).get("validation"),
            test=there.scorer.known_scores(scored.features, means),
            sets=others,
        )
    metrics |= there.counts
    directory.write_predictions(there.name(split), scored.single)
    table: dict[str, Any] | None = None
    if spoilt is not None:
        say(f"corrupting {len(spoilt):,} of {len(there.pictures):,} pictures")
        table = {"dataset": there.dataset.name, "split": split}
        table |= measure_corruptions(spoilt, there.scorer.logits, seed=there.recipe.data.split_seed, tell=say)
        directory.write_json(directory.corruptions_on(there.name(split)), table)
    if there.own and split == "test":
        before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
        if _on_the_same_images(before, metrics):
            metrics |= {key: before[key] for key in KEPT if before.get(key) and not metrics.get(key)}
        directory.write_json(directory.metrics, metrics)
        _write_pages(directory, there.recipe, there.parts)
    elif not there.own:
        directory.write_json(directory.metrics_on(there.name(split)), metrics)
    return metrics if table is None else metrics | {"corruptions": table}


def _on_the_same_images(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether both are metrics of all of the run's test images, so that entries of one hold for the other."""
    missing = [(metrics.get("changed") or {}).get("missing", 0) for metrics in (before, now)]
    return before.get("n") == now["n"] and not any(missing)


@dataclass(frozen=True)
class _Opened:
    """A finished run and the images it is to be scored on.

    `parts` are those of the run where the images are its own, else None; `told` says what has changed or was left out,
    `counts` are the entries of the metrics for that.
    """

    recipe: Recipe
    info: ModelInfo
    scorer: Scorer
    dataset: DataSet
    pictures: ImageSet
    parts: Parts | None
    spec: str
    data_root: Path | None
    told: tuple[str, ...]
    counts: dict[str, Any]
    own_test: int = 0
    """How many images of other data are of the run's own test."""

    @property
    def own(self) -> bool:
        """Whether the images are of the data that the run was trained on."""
        return self.parts is not None

    def name(self, split: str) -> str:
        """What predictions of this split are filed under."""
        return split if self.own else f"{slug(self.spec)}-{split}"


def _opened(directory: RunDir, data: str | None, split: str, device: str, data_root: Path | str | None) -> _Opened:
    recipe = directory.read_recipe()
    environment = directory.read_json(directory.environment)
    hardware = choose_hardware(recipe.train, device)
    net, info = load_net(directory)
    root = Path(data_root) if data_root is not None else None
    spec = data or environment["data"]["spec"]
    scorer = Scorer(net.to(hardware.device), info.mean, info.std, hardware.device)
    if data is None:
        found = load_run_data(directory, root, image_size=info.input_size)
    else:
        dataset = load_as_stored(directory, data, root, image_size=info.input_size)
        if not is_own(directory, data, dataset):
            other = other_images(dataset, split, info.classes, directory)
            counts = {"excluded": other.excluded}
            told = _left_out(other, directory)
            return _Opened(recipe, info, scorer, dataset, other.images, None, spec, root, told, counts, other.own_test)
        found = find_again(directory, dataset)
    pictures = own_images(found, split, directory)
    told, counts = tuple(found.told()), _changed(found, split)
    return _Opened(recipe, info, scorer, found.dataset, pictures, found.parts, spec, root, told, counts)


def _changed(found: RunData, split: str) -> dict[str, Any]:
    """The entry of the metrics on what has changed since training, where something has."""
    missing = len(found.missing.get(split, ()))
    return {"changed": {"missing": missing, "new": len(found.new)}} if missing or found.new else {}


def _left_out(other: Scorable, run: RunDir) -> tuple[str, ...]:
    if other.excluded is None:
        return (f"{run.path} recorded no content of its images, so what it was trained on cannot be left out",)
    reasons = {"trained_on": "trained on", "validation": "chosen and calibrated on"}
    lines = [
        f"left out {count:,} images that {run.path} was {reasons[reason]}"
        for reason, count in other.excluded.items()
        if count
    ]
    if other.own_test:
        lines.append(f"{other.own_test:,} images are of the run's own test set: counted as a test evaluation")
    return tuple(lines)


def _figures(directory: RunDir, there: _Opened, scored: Scored, split: str) -> dict[str, Any]:
    """The content of a `metrics.json`, counting one more touch where it is the run's own test."""
    touches = touch_test(directory) if there.own_test or (there.own and split == "test") else 0
    record = directory.read_json(directory.split)
    metrics = compute_metrics(
        scored.single,
        dataset=there.dataset.name,
        split=split,
        superclasses=there.dataset.superclasses,
        tta=scored.averaged,
        test_evaluations=touches or int(record["test_evaluations"]),
    )
    before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
    straight = (before.get("calibration") or {}).get("temperature_only")
    metrics["calibration"] = calibration_record(
        scored.single,
        scored.logits,
        calibration_of(there.info),
        temperature_only=straight["temperature"] if straight else None,
        fitted_on=int(record["n_val"]),
    ) | selection_record(_chosen(directory, there.recipe))
    return metrics


def _chosen(directory: RunDir, recipe: Recipe) -> list[str]:
    return selections(recipe, directory.read_json(directory.environment))


@preserved()
def report(
    run: Path | str,
    *,
    pictures: bool = True,
    out: Path | str | None = None,
    force: bool = False,
    data_root: Path | str | None = None,
) -> Path:
    """Write `report.html`, the figures and the model card of a run again; the path of the page.

    The pictures come from the run's data where it can still be read; without it the page says so.

    Args:
        run: the run directory.
        pictures: without them the page can go where the pictures may not.
        out: a file for the page alone; what the run directory holds stays as it is then.
        force: replace `out` if it is there.
        data_root: where known data sets are looked for first.

    Raises:
        RunError: no run there, or a damaged artefact.
        OutputError: `out` is there already, or cannot be written.
    """
    directory = RunDir.open(Path(run))
    target = None if out is None else Path(out)
    if target is not None:
        check_free(target, force=force)
    with directory.writing() if target is None else writing_at(target):
        recipe = directory.read_recipe()
        parts = _parts_of(directory, Path(data_root) if data_root is not None else None) if pictures else None
        if target is None:
            return _write_pages(directory, recipe, parts)
        write_text(target, render(gather(directory, "test"), **_shown(recipe, parts), passed_on=True))
        return target


def _parts_of(run: RunDir, data_root: Path | None) -> Parts | None:
    """The images that the run was trained on and scored with, or None where they are not there as they were."""
    if not run.environment.is_file() or not run.predictions("test").is_file():
        return None
    try:
        return load_run_data(run, data_root).parts
    except (DataError, RunError):
        return None


def _write_pages(run: RunDir, recipe: Recipe, parts: Parts | None) -> Path:
    """Write report and model card, with pictures where the run's data is at hand; the report's path."""
    page = write_report(run, **_shown(recipe, parts))
    write_card(run)
    return page


def _shown(recipe: Recipe, parts: Parts | None) -> dict[str, Any]:
    """The pictures of a report, as its arguments."""
    if parts is None:
        return {"pictures": None}
    samples = draw_samples(recipe, parts.train, ROWS, PASSES) if len(parts.train) else None
    return {"pictures": parts.test, "val": parts.val, "samples": samples}


def _calibration(run: RunDir, coverage: float) -> Predictions:
    """The run's predictions of its validation rows, found good for sets of this coverage before anything is scored.

    Raises:
        RunError: nothing was held out, or what was said of it is not there.
        DataError: a coverage that cannot be had, or not with so few rows.
    """
    check_coverage(coverage)
    if not run.read_json(run.split).get("n_val"):
        raise RunError(
            f"{run.path} held no validation pictures out, and prediction sets are calibrated on those.",
            "Train with data.val_fraction above 0 and data.train_on = 'train'.",
        )
    calibration = run.read_predictions("val")
    least_probability(calibration, coverage)
    return calibration


def _means(run: RunDir, info: ModelInfo) -> Means:
    """The class means that `known_score` compares with.

    Raises:
        RunError: the model calls nothing unknown, or they are not there.
    """
    check_thresholded(info)
    try:
        return load_file(run.class_means)["class_means"]
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(f"{run.class_means} is missing or damaged: {error}.", "Train the run again.") from None


def _drawn(pictures: ImageSet, most: int, seed: int) -> ImageSet:
    return limit(pictures, most, seed) if len(pictures) > most else pictures
