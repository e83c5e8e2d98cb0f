"""Compare finished runs: metrics, cost, paired tests, and disagreements."""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.arguments import given_paths, optional_path
from thirtytwo.config.resolve import flatten
from thirtytwo.data.run_data import load_out_of_fold, load_run_data
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError, OutputError, RunError, ThirtytwoError, check_choice, require
from thirtytwo.evaluation.metrics import METRICS
from thirtytwo.evaluation.statistics import Spread, aligned, compare_means, compare_pair, disagreements, holm, spread
from thirtytwo.inference.timing import Timing, time_models, where_timed
from thirtytwo.io import (
    create_directory,
    expand_home,
    is_unused,
    lock_directory,
    numbered,
    write_json,
    write_text,
)
from thirtytwo.predictions import Predictions
from thirtytwo.report.comparison import ComparedRun, Comparison, Group, GroupPair, Pair
from thirtytwo.report.comparison_page import comparison_text, render_comparison
from thirtytwo.report.gallery import locate
from thirtytwo.report.run_record import RunRecord, read_run_record
from thirtytwo.report.seeds import SECONDS, expanded_runs, read_summary, run_path, settings_without_seed
from thirtytwo.run_paths import EVALUATED, OUT_OF_FOLD, default_path, holds_seeds
from thirtytwo.rundir import RunDir

PAGE, TEXT, NUMBERS = "comparison.html", "comparison.md", "comparison.json"
DEFAULT_OUT = default_path("comparison")
_ANOTHER = "Choose another directory with --out."
NO_IMAGES = (
    "The images were not available when this was written. "
    "To include them, compare again where the data is (with THIRTYTWO_DATA or --data-root)."
)


def compare(
    runs: Path | str | Sequence[Path | str],
    *,
    out: Path | str | None = None,
    split: str = "test",
    timed: bool = False,
    data_root: Path | str | None = None,
) -> Comparison:
    """Compare finished runs that were evaluated on the same images, and write HTML page, Markdown and JSON.

    PyTorch is not needed.

    Args:
        runs: two or more run directories; a directory of seeds stands for every finished run in it, and one of folds
            for its predictions of all images.
        out: the directory to create; a new one under `runs/` by default.
        split: the split to compare on, `test` or `val`.
        timed: also measure the milliseconds per image of each `model.onnx`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.

    Returns:
        The comparison; `page` is the path of the HTML page.

    Raises:
        ArgumentError: `split` is neither `test` nor `val`.
        DataError: fewer than two runs, a run given twice, or runs that were not evaluated on the same images.
        RunError: a run is missing, damaged, or was not evaluated on `split`; or another process writes to `out`.
        OutputError: `out` is not empty, or cannot be written.
    """
    check_choice("split", split, EVALUATED)
    for module in ("pyarrow", "scipy", "jinja2"):
        require(module, "train")
    named, target, root = given_paths("runs", runs), optional_path("out", out), optional_path("data_root", data_root)
    if target is not None:
        target = expand_home(target)
        _refuse_used(target)
    found = gather_comparison(named, split, timed=timed, data_root=root)
    with _claimed(target) as place:
        write_json(place / NUMBERS, found.as_dict())
        write_text(place / TEXT, comparison_text(found))
        write_text(place / PAGE, render_comparison(found))
    return replace(found, page=place / PAGE)


def _refuse_used(place: Path) -> None:
    """Check that `place` can become the directory of a comparison, or holds an interrupted one.

    Raises:
        OutputError: it exists and is not an empty directory.
    """
    interrupted = {NUMBERS, TEXT}  # the page is written last
    if place.exists() and not (place.is_dir() and is_unused(place, interrupted)):
        raise OutputError(f"{place} exists and is not empty.", _ANOTHER)


@contextmanager
def _claimed(out: Path | None) -> Iterator[Path]:
    """Create and lock `out` while the block runs; None: the first of the default directories that does not exist.

    Raises:
        OutputError: it cannot be created, or is not empty.
        RunError: another process has locked it.
    """
    create = partial(create_directory, error=OutputError, fix=_ANOTHER)
    place = out or next(filter(create, numbered(DEFAULT_OUT)))
    create(place)
    with lock_directory(place):
        _refuse_used(place)  # again: another process may have written to it before the lock was acquired
        yield place


def gather_comparison(
    runs: Sequence[Path | str], split: str = "test", *, timed: bool = False, data_root: Path | None = None
) -> Comparison:
    """Compare runs without writing anything; arguments and errors are as in `compare`.

    Images come from the data of the runs where it can be read.
    """
    paths, notices = expanded_runs(runs, folds=True)
    if len(paths) < 2:
        found = f"found {len(paths)}: {paths[0]}" if paths else "found none"
        raise DataError(f"A comparison needs at least 2 runs; {found}.", "Give another run.")
    names = _names(paths)
    record = {name: _read(path, split) for name, path in zip(names, paths, strict=True)}
    predictions = aligned({name: _predictions(found, split) for name, found in record.items()})
    metrics = {name: _metrics(found) for name, found in record.items()}
    ranked = sorted(names, key=lambda name: (-metrics[name]["accuracy"]["value"], metrics[name]["nll"]["value"]))
    timings: Sequence[Timing | None] = (
        time_models([record[name].run.onnx for name in ranked]) if timed else [None] * len(ranked)
    )
    contenders = tuple(
        ComparedRun(letter, name, record[name], predictions[name], metrics[name], timing)
        for letter, name, timing in zip(islice(_letters(), len(ranked)), ranked, timings, strict=True)
    )
    groups = _groups(contenders)
    images, missing = _load_images(contenders, split, data_root)
    return Comparison(
        split=split,
        runs=contenders,
        pairs=_pairs(contenders),
        groups=groups,
        group_pairs=_group_pairs(contenders, groups),
        disagreements=tuple(disagreements([run.predictions for run in contenders])),
        settings=_settings(contenders),
        notices=(*notices, *_notices(contenders, split), *missing),
        timed_on=where_timed() if timed else None,
        images=images,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest distinct suffixes of the paths."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("paths differ")


def _letters() -> Iterator[str]:
    """A, B, … Z, AA, AB, …"""
    yield from string.ascii_uppercase
    for before in _letters():
        yield from (before + letter for letter in string.ascii_uppercase)


def _read(path: Path, split: str) -> RunRecord:
    """The files of a run; of a cross-validation, those of its first fold with the results of all folds.

    Raises:
        DataError: validation is compared, and `path` holds a cross-validation.
    """
    if holds_seeds(path):
        if split != "test":
            raise DataError(
                f"{path} holds a cross-validation, of which only the predictions out of the folds can be compared.",
                "Leave out --split, or name runs of single folds.",
            )
        directory, first = RunDir(path), RunDir(run_path(path, "fold", 1))
        metrics = directory.read_json(directory.metrics_on(OUT_OF_FOLD))
        return replace(
            read_run_record(first, "test"), predictions=directory.read_predictions(OUT_OF_FOLD), metrics=metrics
        )
    run = RunDir.open(path)
    if not run.predictions(split).is_file():
        run.read_predictions(split)  # raises the error that says how to create it
    return read_run_record(run, split)


def _predictions(record: RunRecord, split: str) -> Predictions:
    if record.predictions is None:
        raise RunError(f"{record.run.path} has no predictions for {split!r}.", _evaluate_hint(record))
    return record.predictions


def _metrics(record: RunRecord) -> dict[str, Any]:
    """The metrics of a run, checked against its predictions.

    Raises:
        RunError: `metrics.json` and the predictions do not match.
    """
    metrics, predictions = record.metrics, record.predictions
    if metrics is None or predictions is None:
        raise RunError(f"{record.run.path} has no metrics.", _evaluate_hint(record))
    right, recorded = int(predictions.correct.sum()), metrics["accuracy"]["value"] * metrics["n"]
    if metrics["n"] != len(predictions.truth) or abs(recorded - right) > 0.5:
        raise RunError(
            f"{record.run.metrics} and {record.run.predictions(record.split).name} do not match: "
            f"{round(recorded):,} of {metrics['n']:,} correct, and {right:,} of {len(predictions.truth):,}.",
            _evaluate_hint(record),
        )
    return metrics


def _evaluate_hint(record: RunRecord) -> str:
    words = ["thirtytwo", "evaluate", str(record.run.path), "--split", record.split]
    return f"Evaluate the run again with: {shlex.join(words)}"


def _pairs(runs: Sequence[ComparedRun]) -> tuple[Pair, ...]:
    places = [(first, second) for first in range(len(runs)) for second in range(first + 1, len(runs))]
    tests = [compare_pair(runs[first].predictions, runs[second].predictions) for first, second in places]
    adjusted = holm([test.p_value for test in tests])
    return tuple(Pair(*place, test, p) for place, test, p in zip(places, tests, adjusted, strict=True))


def _groups(runs: Sequence[ComparedRun]) -> tuple[Group, ...]:
    """Runs grouped by recipe and data, highest mean accuracy first; empty where no recipe has two runs."""
    by_settings: list[tuple[Any, list[int]]] = []
    for place, run in enumerate(runs):
        what = settings_without_seed(run.record.recipe), run.record.data.get("fingerprint")
        members = next((members for known, members in by_settings if known == what), None)
        if members is None:
            by_settings.append((what, [place]))
        else:
            members.append(place)
    if all(len(members) == 1 for _, members in by_settings):
        return ()
    groups = [
        Group(runs[members[0]].record.recipe.name, tuple(members), _seed_statistics([runs[place] for place in members]))
        for _, members in by_settings
    ]
    return tuple(sorted(groups, key=lambda group: -group.statistics["accuracy"].mean))


def _seed_statistics(runs: Sequence[ComparedRun]) -> dict[str, Spread]:
    statistics = {}
    for metric in METRICS:
        values = [found["value"] for run in runs if (found := run.metric(metric.key)) is not None]
        if len(values) == len(runs):
            statistics[metric.key] = spread(values)
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if len(seconds) == len(runs):
        statistics[SECONDS] = spread(seconds)
    return statistics


def _group_pairs(runs: Sequence[ComparedRun], groups: Sequence[Group]) -> tuple[GroupPair, ...]:
    values = [[runs[place].accuracy for place in group.members] for group in groups]
    found = (
        (first, second, compare_means(values[first], values[second]))
        for first in range(len(groups))
        for second in range(first + 1, len(groups))
    )
    return tuple(GroupPair(first, second, test) for first, second, test in found if test is not None)


def _settings(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Dotted recipe keys whose values differ between runs, with the value of each run."""
    recipes = [run.record.recipe.model_dump(mode="json", exclude={"description"}) for run in runs]
    flat = [{key: _readable(key, value) for key, value in flatten(recipe).items()} for recipe in recipes]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    rows = {key: [values.get(key) for values in flat] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _readable(key: str, value: Any) -> Any:
    """The value of a recipe key, with the members of an ensemble by name."""
    if key.rpartition(".")[2] == "members" and isinstance(value, list):
        return ", ".join(str(member.get("name")) for member in value)
    return value


def _notices(runs: Sequence[ComparedRun], split: str) -> list[str]:
    """Limits of the comparison that the reader must know."""
    notices = []
    if split != "test":
        notices.append(f"These metrics are on {split}, which was used for model selection. They are not test results.")
    evaluations = [(run, int(run.metrics.get("test_evaluations") or 0)) for run in runs]
    often = [f"{run.letter} {times} times" for run, times in evaluations if times > 1]
    if split == "test" and often:
        notices.append(
            f"More than one test evaluation: {', '.join(often)}. If anything was chosen after the first, metrics are "
            "optimistic."
        )
    machines = {run.trained_on for run in runs}
    if len(machines) > 1:
        notices.append("The runs were trained on different machines, so their training times are not comparable.")
    trained = {run.record.data.get("train") for run in runs}
    if len(trained) > 1:
        counts = ", ".join(f"{run.letter} {run.record.data.get('train') or 0:,}" for run in runs)
        notices.append(f"The runs were trained on different numbers of images: {counts}.")
    return notices


def _load_images(runs: Sequence[ComparedRun], split: str, data_root: Path | None) -> tuple[ImageSet | None, list[str]]:
    """The evaluated images in the order of the predictions; or None and the reason as a sentence."""
    predictions = runs[0].predictions
    for run in runs:
        try:
            part = _images_of(run, split, data_root)
        except (ThirtytwoError, KeyError):
            continue
        places, _ = locate(predictions, part, np.arange(len(predictions.rows)))
        if part is not None and places is not None:
            return part.take(places), []
    return None, [NO_IMAGES]


def _images_of(run: ComparedRun, split: str, data_root: Path | None) -> ImageSet | None:
    """The images of a split of a run; of a cross-validation, those of all folds."""
    if run.metrics["split"] == OUT_OF_FOLD:
        parent = run.record.run.path.parent
        folds = [RunDir(parent / fold["directory"]) for fold in read_summary(parent)["runs"]]
        return load_out_of_fold(folds, data_root)
    parts = load_run_data(run.record.run, data_root).parts
    return parts.test if split == "test" else parts.val
