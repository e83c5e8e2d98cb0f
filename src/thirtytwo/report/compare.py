"""Hold finished runs against each other: figures and cost, paired tests, and where they disagree."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.run_data import load_run_data
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError, OutputError, RunError, ThirtytwoError, require
from thirtytwo.evaluation.statistics import Spread, aligned, compare_means, compare_pair, disagreements, holm, spread
from thirtytwo.inference.timing import Timing, time_models, where_timed
from thirtytwo.io import write_json, write_text
from thirtytwo.report.comparison import Comparison, Contender, Group, GroupPair, Pair
from thirtytwo.report.comparison_markdown import comparison_text
from thirtytwo.report.comparison_page import render_comparison
from thirtytwo.report.page import FIGURES
from thirtytwo.report.run_record import Facts, gather
from thirtytwo.report.seeds import SECONDS, expanded_runs, settings_without_seed
from thirtytwo.rundir import Predictions, RunDir

PAGE, TEXT, NUMBERS = "comparison.html", "comparison.md", "comparison.json"
DEFAULT_OUT = Path("runs") / "comparison"
NO_PICTURES = (
    "The pictures were not at hand when this was written. "
    "Compare again where the data is (with THIRTYTWO_DATA or --data-root) to see them."
)


def compare(
    runs: Path | str | Sequence[Path | str],
    *,
    out: Path | str | None = None,
    split: str = "test",
    timed: bool = False,
    data_root: Path | str | None = None,
) -> Comparison:
    """Compare finished runs on the pictures all of them were scored on, and write page, Markdown and JSON.

    A directory of seeds stands for every finished run in it. `out` is a new directory (one under `runs/` when not
    given). `timed` also measures milliseconds a picture through each `model.onnx`. Needs no PyTorch.

    Raises:
        DataError: fewer than two runs, one named twice, or runs that were not scored on the same pictures.
        RunError: a run is missing, damaged, or was not scored on `split`.
        OutputError: `out` is not empty, or cannot be written.
    """
    for module in ("pyarrow", "scipy", "jinja2"):
        require(module, "train")
    place = Path(out) if out is not None else _fresh(DEFAULT_OUT)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise OutputError(f"{place} exists and is not empty.", "Choose another directory with --out.")
    named = [runs] if isinstance(runs, (str, Path)) else runs
    found = gather_comparison(named, split, timed=timed, data_root=Path(data_root) if data_root is not None else None)
    write_json(place / NUMBERS, found.as_dict())
    write_text(place / TEXT, comparison_text(found))
    write_text(place / PAGE, render_comparison(found))
    return replace(found, page=place / PAGE)


def gather_comparison(
    runs: Sequence[Path | str], split: str = "test", *, timed: bool = False, data_root: Path | None = None
) -> Comparison:
    """Read runs and hold them against each other; a directory of seeds stands for every finished run in it.

    `timed` also measures milliseconds a picture through each `model.onnx`. Pictures come from the runs' data where it
    can be read.

    Raises:
        DataError: fewer than two runs, one named twice, or runs that were not scored on the same pictures.
        RunError: a run is missing, damaged, or was not scored on `split`.
    """
    paths, notices = expanded_runs(runs)
    if len(paths) < 2:
        found = f"found {len(paths)}: {paths[0]}" if paths else "found none"
        raise DataError(f"A comparison needs at least 2 runs; {found}.", "Name another run.")
    names = _names(paths)
    facts = {name: _read(RunDir.open(path), split) for name, path in zip(names, paths, strict=True)}
    predictions = aligned({name: _predictions(found, split) for name, found in facts.items()})
    metrics = {name: _metrics(found) for name, found in facts.items()}
    ranked = sorted(names, key=lambda name: (-metrics[name]["accuracy"]["value"], metrics[name]["nll"]["value"]))
    timings: Sequence[Timing | None] = (
        time_models([facts[name].run.onnx for name in ranked]) if timed else [None] * len(ranked)
    )
    contenders = tuple(
        Contender(letter, name, facts[name], predictions[name], metrics[name], timing)
        for letter, name, timing in zip(islice(_letters(), len(ranked)), ranked, timings, strict=True)
    )
    groups = _groups(contenders)
    pictures, missing = _pictures(contenders, split, data_root)
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
        pictures=pictures,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """As few last parts of each path as tell them apart."""
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


def _read(run: RunDir, split: str) -> Facts:
    if not run.predictions(split).is_file():
        run.read_predictions(split)  # says what is missing, and how it is made
    return gather(run, split)


def _predictions(facts: Facts, split: str) -> Predictions:
    if facts.predictions is None:
        raise RunError(f"{facts.run.path} has no predictions for {split!r}.", "Score it with: thirtytwo evaluate RUN")
    return facts.predictions


def _metrics(facts: Facts) -> dict[str, Any]:
    """The run's figures, checked to be of its predictions.

    Raises:
        RunError: `metrics.json` and the predictions are of different pictures or answers.
    """
    metrics, given = facts.metrics, facts.predictions
    if metrics is None or given is None:
        raise RunError(f"{facts.run.path} has no figures.", "Score it with: thirtytwo evaluate RUN")
    right, said = int((given.predicted == given.truth).sum()), metrics["accuracy"]["value"] * metrics["n"]
    if metrics["n"] != len(given.truth) or abs(said - right) > 0.5:
        raise RunError(
            f"{facts.run.metrics} and {facts.run.predictions(facts.split).name} do not belong together: "
            f"{round(said):,} right of {metrics['n']:,} against {right:,} of {len(given.truth):,}.",
            f"Score the run again with: thirtytwo evaluate {facts.run.path}",
        )
    return metrics


def _pairs(runs: Sequence[Contender]) -> tuple[Pair, ...]:
    places = [(first, second) for first in range(len(runs)) for second in range(first + 1, len(runs))]
    tests = [compare_pair(runs[first].predictions, runs[second].predictions) for first, second in places]
    adjusted = holm([test.p_value for test in tests])
    return tuple(Pair(*place, test, p) for place, test, p in zip(places, tests, adjusted, strict=True))


def _groups(runs: Sequence[Contender]) -> tuple[Group, ...]:
    """Runs of one recipe and data together, in the order of their mean accuracy; none where no recipe has two runs."""
    alike: list[tuple[Any, list[int]]] = []
    for place, run in enumerate(runs):
        what = settings_without_seed(run.facts.recipe), run.facts.data.get("fingerprint")
        members = next((members for known, members in alike if known == what), None)
        if members is None:
            alike.append((what, [place]))
        else:
            members.append(place)
    if all(len(members) == 1 for _, members in alike):
        return ()
    groups = [
        Group(runs[members[0]].facts.recipe.name, tuple(members), _spreads([runs[place] for place in members]))
        for _, members in alike
    ]
    return tuple(sorted(groups, key=lambda group: -group.figures["accuracy"].mean))


def _spreads(runs: Sequence[Contender]) -> dict[str, Spread]:
    figures = {}
    for key, _, _ in FIGURES:
        values = [found["value"] for run in runs if (found := run.figure(key)) is not None]
        if len(values) == len(runs):
            figures[key] = spread(values)
    seconds = [run.seconds for run in runs if run.seconds is not None]
    if len(seconds) == len(runs):
        figures[SECONDS] = spread(seconds)
    return figures


def _group_pairs(runs: Sequence[Contender], groups: Sequence[Group]) -> tuple[GroupPair, ...]:
    values = [[runs[place].accuracy for place in group.members] for group in groups]
    found = (
        (first, second, compare_means(values[first], values[second]))
        for first in range(len(groups))
        for second in range(first + 1, len(groups))
    )
    return tuple(GroupPair(first, second, test) for first, second, test in found if test is not None)


def _settings(runs: Sequence[Contender]) -> dict[str, list[Any]]:
    """Dotted recipe keys on which the runs do not agree, with each run's value."""
    flat = [dict(_flat(run.facts.recipe.model_dump(mode="json", exclude={"description"}))) for run in runs]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    rows = {key: [values.get(key) for values in flat] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key == "members" and isinstance(value, list):
            yield before + key, ", ".join(str(member.get("name")) for member in value)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _notices(runs: Sequence[Contender], split: str) -> list[str]:
    """What makes the comparison less than fair."""
    notices = []
    if split != "test":
        notices.append(f"These are figures on {split}, which served for choices. They are not a test result.")
    touched = [(run, int(run.metrics.get("test_evaluations") or 0)) for run in runs]
    often = [f"{run.letter} {times} times" for run, times in touched if times > 1]
    if split == "test" and often:
        notices.append(
            f"Test was scored more than once: {', '.join(often)}. Anything chosen after the first look can flatter."
        )
    machines = {run.trained_on for run in runs}
    if len(machines) > 1:
        notices.append("The runs were trained on different machines, so their training times do not compare.")
    trained = {run.facts.data.get("train") for run in runs}
    if len(trained) > 1:
        told = ", ".join(f"{run.letter} {run.facts.data.get('train') or 0:,}" for run in runs)
        notices.append(f"The runs were trained on different numbers of pictures: {told}.")
    return notices


def _pictures(runs: Sequence[Contender], split: str, data_root: Path | None) -> tuple[ImageSet | None, list[str]]:
    """The pictures that were scored, in the order of the predictions; or None and a sentence why."""
    predictions = runs[0].predictions
    for run in runs:
        try:
            parts = load_run_data(run.facts.run, data_root).parts
        except (ThirtytwoError, KeyError):
            continue
        given = parts.test if split == "test" else parts.val
        places = None if given is None else _places(predictions, given)
        if given is not None and places is not None:
            return given.take(places), []
    return None, [NO_PICTURES]


def _places(predictions: Predictions, pictures: ImageSet) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Where each prediction's picture lies in `pictures`; None where one is missing or has another label."""
    place_of = {row: place for place, row in enumerate(pictures.rows.tolist())}
    places = [place_of.get(row, -1) for row in predictions.rows.tolist()]
    if -1 in places:
        return None
    found = np.asarray(places, dtype=np.int64)
    labels = [pictures.classes[label] for label in pictures.labels[found].tolist()]
    if labels != [predictions.classes[truth] for truth in predictions.truth.tolist()]:
        return None
    return found


def _fresh(path: Path) -> Path:
    """`path`, or the first of `path-2`, `path-3`, … that is not there yet."""
    number, fresh = 1, path
    while fresh.exists():
        number += 1
        fresh = path.with_name(f"{path.name}-{number}")
    return fresh
