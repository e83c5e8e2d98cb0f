"""Scoring a finished run again, and writing its report again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.data.imageset import ImageSet
from thirtytwo.data.load import load_dataset
from thirtytwo.data.splits import limit
from thirtytwo.errors import DataError, RunError
from thirtytwo.fit.hardware import choose_hardware
from thirtytwo.judge.conformal import check_coverage, least_probability, measure_sets
from thirtytwo.judge.corruptions import PICTURES, measure_corruptions
from thirtytwo.judge.metrics import compute_metrics
from thirtytwo.judge.score import Scorer
from thirtytwo.pipeline.parts import pictures_of
from thirtytwo.pipeline.records import slug, teller, touch_test
from thirtytwo.pipeline.scoring import load_net, score
from thirtytwo.report.card import write_card
from thirtytwo.report.page import write_report
from thirtytwo.rundir import Predictions, RunDir

KEPT = ("accuracy_tta", "conformal")
"""Entries of metrics.json that stay where this time they were not asked for."""


def evaluate(
    run: Path | str,
    *,
    data: str | None = None,
    split: str = "test",
    tta: bool = False,
    corruptions: bool = False,
    corruption_pictures: int = PICTURES,
    coverage: float | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a finished run again, on its own test or validation rows or on other `data` with the same class names.

    Its own test rewrites `metrics.json` and the report and counts one more touch of test; anything else writes its
    own `predictions-….parquet` and leaves `metrics.json` alone. Gives the content of a `metrics.json`; with
    `corruptions` the content of `corruptions.json`, which is written as well, under that key.

    Args:
        run: the run directory.
        data: other data than the run's own.
        split: `test` or `val`.
        tta: also with test-time augmentation.
        corruptions: also under corruptions of every kind and strength.
        corruption_pictures: how many pictures are corrupted at most, drawn from every class.
        coverage: also prediction sets, calibrated on validation to hold the truth this often.
        device: what computes.
        data_root: where known data sets are looked for first.
        show: tell progress on standard error.

    Raises:
        RunError: no such run, not finished, or without the validation rows that sets are calibrated on.
        DataError: the classes do not match, there is no such split, or too little for what is asked.
    """
    say = teller(show)
    directory = RunDir.open(Path(run))
    calibration = None if coverage is None else _calibration(directory, coverage)
    recipe = directory.read_recipe()
    environment = directory.read_json(directory.environment)
    hardware = choose_hardware(recipe.train, device)
    net, info = load_net(directory, recipe)
    spec = data or environment["data"]["spec"]
    root = Path(data_root) if data_root is not None else None
    dataset = load_dataset(
        spec, data_root=root, image_size=info.input_size, resize=info.resize, seed=recipe.data.split_seed
    )
    own = dataset.fingerprint == environment["data"]["fingerprint"]
    pictures = pictures_of(dataset, split, info, directory if own else None)
    if calibration is not None and own and split == "val":
        raise DataError(
            "Prediction sets are calibrated on validation, so they cannot be measured on it.", "Leave out --split val."
        )
    spoilt = _drawn(pictures, corruption_pictures, recipe.data.split_seed) if corruptions else None
    say(f"scoring {len(pictures):,} pictures of {dataset.name} ({split})")
    scorer = Scorer(net.to(hardware.device), info.mean, info.std, hardware.device)
    single, averaged = score(scorer, pictures, info.temperature, recipe.evaluate.tta_shift if tta else None)
    name = split if own else f"{slug(spec)}-{split}"
    touches = touch_test(directory) if own and split == "test" else 0
    metrics = compute_metrics(
        single,
        dataset=dataset.name,
        split=split,
        superclasses=dataset.superclasses,
        tta=averaged,
        test_evaluations=touches or int(directory.read_json(directory.split)["test_evaluations"]),
    )
    if calibration is not None and coverage is not None:
        metrics["conformal"] = measure_sets(calibration, single, coverage)
    directory.write_predictions(name, single)
    table: dict[str, Any] | None = None
    if spoilt is not None:
        say(f"corrupting {len(spoilt):,} of {len(pictures):,} pictures")
        table = {"dataset": dataset.name, "split": split}
        table |= measure_corruptions(spoilt, scorer.logits, seed=recipe.data.split_seed, tell=say)
        directory.write_json(directory.corruptions_on(name), table)
    if own and split == "test":
        before = directory.read_json(directory.metrics) if directory.metrics.is_file() else {}
        metrics |= {key: before[key] for key in KEPT if before.get(key) and not metrics.get(key)}
        directory.write_json(directory.metrics, metrics)
        write_report(directory, pictures)
        write_card(directory)
    return metrics if table is None else metrics | {"corruptions": table}


def report(run: Path | str, *, data_root: Path | str | None = None) -> Path:
    """Write `report.html`, the figures and the model card of a run again; the path of the page.

    The pictures come from the run's data where it can still be read; without it the page says so.
    """
    directory = RunDir.open(Path(run))
    recipe = directory.read_recipe()
    pictures = None
    if directory.environment.is_file() and directory.predictions("test").is_file():
        info = directory.read_json(directory.environment)["data"]
        root = Path(data_root) if data_root is not None else None
        try:
            dataset = load_dataset(
                info["spec"],
                data_root=root,
                image_size=recipe.data.image_size,
                resize=recipe.data.resize,
                seed=recipe.data.split_seed,
            )
        except DataError:
            dataset = None
        if dataset is not None and dataset.fingerprint == info["fingerprint"]:
            pictures = dataset.test
    page = write_report(directory, pictures)
    write_card(directory)
    return page


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


def _drawn(pictures: ImageSet, most: int, seed: int) -> ImageSet:
    return limit(pictures, most, seed) if len(pictures) > most else pictures
