"""Runs of one recipe with several seeds or folds: `seed<N>/` or `fold<N>/` for each, and their summary."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from thirtytwo.arguments import given_paths
from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import DataError, RunError
from thirtytwo.evaluation.metrics import METRICS, metric_of
from thirtytwo.evaluation.sections import table_of
from thirtytwo.evaluation.statistics import Spread, spread
from thirtytwo.io import write_json, write_text
from thirtytwo.report.sections import table_markdown
from thirtytwo.run_paths import SEEDS_SUMMARY, holds_seeds
from thirtytwo.rundir import RunDir
from thirtytwo.text import DIGITS, as_markdown, duration, interval, percent

SUMMARY_TEXT = "summary.md"
SECONDS = "seconds_train"
Kind: TypeAlias = Literal["seed", "fold"]
"""What the runs differ in."""
_SEED_AND_TEXTS = ("seed", "description")
_NOTE = (
    "Mean and standard deviation (divisor n - 1) are over seeds: they measure seed variance. "
    "The 95\u00a0% interval of a run is over images: it measures sampling error of the test set."
)
_FOLDS_NOTE = (
    "Each run is tested on its fold of the training images, of which it was trained on none. "
    "Mean and standard deviation (divisor n - 1) are over folds. The interval of the mean is Student's t; it is "
    "approximate, since the training sets overlap. The interval of all predictions is Wilson's, over images."
)


def run_path(parent: Path, kind: Kind, number: int) -> Path:
    """The run directory of one seed or fold."""
    return parent / f"{kind}{number}"


def kind_of(content: Mapping[str, Any]) -> Kind:
    """What the runs of a summary differ in."""
    return "fold" if content.get("folds") else "seed"


def missing_runs(content: Mapping[str, Any]) -> list[int]:
    """Numbers of the seeds or folds of a summary that are not finished."""
    return sorted(set(content["planned"]) - {run[kind_of(content)] for run in content["runs"]})


def read_summary(parent: Path) -> dict[str, Any]:
    """The content of `summary.json`.

    Raises:
        RunError: missing or damaged.
    """
    path = parent / SEEDS_SUMMARY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{parent} has no {SEEDS_SUMMARY}.", "Give the directory that training with --seeds or --folds printed."
        ) from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.", _restore_hint(parent)) from None
    if not isinstance(content, dict) or not {"data", "asked", "planned", "runs"} <= content.keys():
        raise RunError(f"{path} is not a summary of seeds or folds.", _restore_hint(parent))
    return content


def _restore_hint(parent: Path) -> str:
    """How to replace a damaged summary."""
    kinds: tuple[Kind, ...] = ("seed", "fold")
    for kind in kinds:
        runs = [RunDir(path.parent) for path in sorted(parent.glob(f"{kind}*/recipe.toml"))]
        numbers = sorted(int(number) for run in runs if (number := run.path.name.removeprefix(kind)).isdecimal())
        if numbers:
            words = ["thirtytwo", "train", runs[0].recorded_data() or "DATA", "--resume", "--run", str(parent)]
            folds = ["--folds", str(runs[0].read_recipe().data.folds)]
            words += folds if kind == "fold" else ["--seeds", ",".join(map(str, numbers))]
            return f"Move it away and run: {shlex.join(words)}"
    return "Train the runs again with another --run."


def expanded_runs(runs: Path | str | Sequence[Path | str], *, folds: bool = False) -> tuple[list[Path], list[str]]:
    """The paths of the runs, with directories of seeds replaced by their finished runs; and what was left out.

    A directory of folds stays as it is, for its predictions out of their folds.

    Args:
        runs: run directories, and directories of seeds or folds; also a single one.
        folds: whether directories of folds are accepted.

    Raises:
        ArgumentError: one of `runs` is not a path.
        DataError: a run is named twice, or a directory of folds is not accepted.
        RunError: a directory of folds is not finished.
    """
    paths: list[Path] = []
    notices = []
    for named in given_paths("runs", runs):
        if not holds_seeds(named):
            paths.append(named)
            continue
        content = read_summary(named)
        if kind_of(content) == "fold":
            paths.append(_finished_folds(named, content) if folds else _refuse_folds(named))
            continue
        paths += [named / run["directory"] for run in content["runs"]]
        missing = missing_runs(content)
        if missing:
            notices.append(f"{named}: left out seed {', '.join(map(str, missing))}, which is not finished.")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise DataError(f"The run {path} is named twice.", "Name every run once.")
        seen.add(path.resolve())
    return paths, notices


def _finished_folds(named: Path, content: Mapping[str, Any]) -> Path:
    missing = missing_runs(content)
    if missing:
        words = shlex.join(["thirtytwo", "train", str(content["data"]), "--resume", "--run", str(named)])
        raise RunError(
            f"{named} is not finished: fold {', '.join(map(str, missing))} is missing.", f"Continue it with: {words}"
        )
    return named


def _refuse_folds(named: Path) -> Path:
    raise DataError(
        f"{named} holds the folds of a cross-validation, and each run was trained on test images of the others.",
        "Use runs of several seeds instead (--seeds).",
    )


def settings_without_seed(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe without seed and description: equal for runs that differ only in the seed."""
    settings = recipe.model_dump(mode="json", exclude=set(_SEED_AND_TEXTS))
    settings["data"].pop("calibrate_from")  # a path: each seed has its own calibration run
    settings["data"].pop("fold")
    return settings


def write_summary(parent: Path, content: Mapping[str, Any]) -> None:
    """Write the content of `summarize` as `summary.json` and `summary.md`."""
    write_json(parent / SEEDS_SUMMARY, content)
    write_text(parent / SUMMARY_TEXT, summary_text(content))


def remove_summary(parent: Path) -> None:
    """Remove the summary of `parent`."""
    for name in (SEEDS_SUMMARY, SUMMARY_TEXT):
        (parent / name).unlink(missing_ok=True)


def summarize(
    parent: Path, data: str, planned: Sequence[int], asked: Mapping[str, Any], folds: int = 0
) -> dict[str, Any]:
    """The content of `summary.json`: every metric of every finished run, and its mean, std, n, min and max.

    Args:
        parent: directory that holds the runs.
        data: the data, as it was named.
        planned: all seeds or folds to train.
        asked: the arguments of training.
        folds: number of folds; 0: the runs are of several seeds.

    Raises:
        RunError: the runs have different recipes, or one of their files is damaged.
    """
    kind: Kind = "fold" if folds else "seed"
    found = {number: RunDir(run_path(parent, kind, number)) for number in planned}
    finished = {number: run for number, run in found.items() if run.metrics.is_file() and run.environment.is_file()}
    _check_one_recipe(finished, kind)
    runs = [{kind: number, **_entry(run)} for number, run in finished.items()]
    statistics = {key: _statistics_of(runs, key) for key in (*(metric.key for metric in METRICS), SECONDS)}
    seconds = statistics.pop(SECONDS)
    return {
        "data": data,
        "asked": dict(asked),
        "planned": list(planned),
        **({"folds": folds} if folds else {}),
        "split": "fold" if folds else "test",
        "runs": runs,
        "figures": {key: over.as_dict() for key, over in statistics.items() if over is not None},
        SECONDS: None if seconds is None else seconds.as_dict(),
    }


def summary_text(content: Mapping[str, Any]) -> str:
    """`summary.json` as a Markdown page."""
    runs, kind = content["runs"], kind_of(content)
    title = f"{content['data']}, recipe {content['asked'].get('recipe') or 'chosen by the data'}"
    note = f"Each run is evaluated on {content['split']}, with one view per image unless stated. {_NOTE}"
    parts = [
        f"# {as_markdown(title)}: {len(runs)} {kind}{'' if len(runs) == 1 else 's'}",
        _FOLDS_NOTE if kind == "fold" else note,
        *cross_validation_sentences(content),
    ]
    if missing := missing_runs(content):
        parts.append(f"Not finished yet: {kind} {', '.join(map(str, missing))}.")
    if runs:
        metrics = table_of(("metric", "mean", "std", "n", "min", "max"), summary_rows(content))
        rows = [
            (run["directory"], percent(run["accuracy"]), interval(run["accuracy_ci95"]), duration(run[SECONDS]))
            for run in runs
        ]
        parts += [
            table_markdown(metrics),
            table_markdown(table_of(("run", "accuracy", "95\u00a0% interval", "training time"), rows)),
        ]
    return "\n\n".join(parts) + "\n"


def cross_validation_sentences(content: Mapping[str, Any]) -> list[str]:
    """The accuracy of a finished cross-validation with its intervals, as sentences; none without one."""
    found = content.get("cross_validation")
    if not found:
        return []
    mean, every = found["mean_accuracy"], found["out_of_fold"]["accuracy"]
    over_folds = f"Accuracy over {content['folds']} folds: {percent(mean['value'])}"
    over_images = f"All {found['out_of_fold']['n']:,} predictions out of their folds: {percent(every['value'])}"
    return [
        f"{over_folds}, 95\u00a0% interval {interval(mean['ci95'])} (Student's t).",
        f"{over_images}, 95\u00a0% interval {interval(every['ci95'])} (Wilson).",
    ]


def summary_rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, mean, std, n, min and max of each metric, formatted."""
    rows: list[tuple[str, ...]] = []
    for metric in METRICS:
        statistics = content["figures"].get(metric.key)
        if statistics is not None:
            rows.append((metric.name, *spread_texts(metric.key, statistics)))
    seconds = content.get(SECONDS)
    if seconds is not None:
        rows.append(("Training time", *spread_texts(SECONDS, seconds)))
    return rows


def spread_texts(key: str, statistics: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Mean, std, n, min and max of a metric, formatted with its unit."""

    def formatted(value: float | None, digits: int = DIGITS) -> str:
        if value is None:
            return "–"
        return duration(value) if key == SECONDS else metric_of(key).text(value, digits)

    return (
        formatted(statistics["mean"]),
        formatted(statistics["std"], DIGITS + 1),
        str(statistics["n"]),
        formatted(statistics["min"]),
        formatted(statistics["max"]),
    )


def _entry(run: RunDir) -> dict[str, Any]:
    metrics, environment = run.read_json(run.metrics), run.read_json(run.environment)
    values = {metric.key: (metrics.get(metric.key) or {}).get("value") for metric in METRICS}
    return {
        "directory": run.path.name,
        "n": metrics["n"],
        **values,
        "accuracy_ci95": metrics["accuracy"]["ci95"],
        SECONDS: (environment.get("seconds") or {}).get("train"),
    }


def _statistics_of(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    values = [run[key] for run in runs if run.get(key) is not None]
    return spread(values) if values and len(values) == len(runs) else None


def _check_one_recipe(runs: Mapping[int, RunDir], kind: Kind) -> None:
    """Check that runs have the same data, and those of several seeds the same resolved recipe.

    What a recipe is resolved to can differ between folds, which have different training images (a batch no larger than
    their number, class weights).

    Raises:
        RunError: they differ.
    """
    first: tuple[Path, dict[str, Any], Any] | None = None
    for run in runs.values():
        settings = settings_without_seed(run.read_recipe()) if kind == "seed" else {}
        fingerprint = (run.read_json(run.environment).get("data") or {}).get("fingerprint")
        if first is None:
            first = run.path, settings, fingerprint
        elif (settings, fingerprint) != first[1:]:
            what = "recipe" if settings != first[1] else "data"
            raise RunError(
                f"{run.path} was trained with another {what} than {first[0]}, so they cannot be summarized together.",
                "Train them in two directories and compare the directories.",
            )
