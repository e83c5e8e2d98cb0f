"""Several seeds of one recipe in one directory: `seed<N>/` each, `summary.json` and `summary.md` beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import DataError, RunError
from thirtytwo.evaluation.statistics import Spread, spread
from thirtytwo.io import write_json, write_text
from thirtytwo.report.page import FIGURES, PLAIN_NUMBERS
from thirtytwo.report.run_record import duration, interval, percent
from thirtytwo.rundir import SEEDS_SUMMARY, RunDir, holds_seeds

SUMMARY_TEXT = "summary.md"
SECONDS = "seconds_train"
_APART = ("seed", "description")
_NOTE = (
    "Mean and standard deviation (divisor n - 1) are over seeds: how much the outcome depends on chance in training. "
    "A run's 95% interval is over pictures: how much it depends on which pictures were scored."
)


def seed_path(parent: Path, seed: int) -> Path:
    """Where the run of one seed lies."""
    return parent / f"seed{seed}"


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
            f"{parent} has no {SEEDS_SUMMARY}.", "Give the directory that training with --seeds printed."
        ) from None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.", "Delete it and resume with --seeds.") from None
    if not isinstance(content, dict) or not {"data", "asked", "planned", "runs"} <= content.keys():
        raise RunError(f"{path} is no summary of seeds.", "Delete it and resume with --seeds.")
    return content


def expanded_runs(runs: Sequence[Path | str]) -> tuple[list[Path], list[str]]:
    """Each run's path, directories of seeds replaced by their finished runs, and what is left out.

    Raises:
        DataError: a run is named twice.
    """
    paths: list[Path] = []
    notices = []
    for given in map(Path, runs):
        if not holds_seeds(given):
            paths.append(given)
            continue
        content = read_summary(given)
        paths += [given / run["directory"] for run in content["runs"]]
        missing = sorted(set(content["planned"]) - {run["seed"] for run in content["runs"]})
        if missing:
            notices.append(f"{given}: seed {', '.join(map(str, missing))} is not finished and left out.")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise DataError(f"The run {path} is named twice.", "Name every run once.")
        seen.add(path.resolve())
    return paths, notices


def settings_without_seed(recipe: Recipe) -> dict[str, Any]:
    """What a recipe sets, as nested tables, but for its seed and words: equal for runs that differ by chance only."""
    settings = recipe.model_dump(mode="json", exclude=set(_APART))
    settings["data"].pop("calibrate_from")  # a path: each seed has its own twin
    return settings


def write_summary(parent: Path, data: str, planned: Sequence[int], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Write `summary.json` and `summary.md` of the finished runs below `parent`; the content of the former.

    `planned` are the seeds that belong here, `asked` how training was called.

    Raises:
        RunError: the runs are not of one recipe, or an artefact is damaged.
    """
    content = summarise(parent, data, planned, asked)
    write_json(parent / SEEDS_SUMMARY, content)
    write_text(parent / SUMMARY_TEXT, summary_text(content))
    return content


def summarise(parent: Path, data: str, planned: Sequence[int], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `summary.json`: each figure of each finished run, and its mean, std, n, min and max."""
    found = {seed: RunDir(seed_path(parent, seed)) for seed in planned}
    finished = {seed: run for seed, run in found.items() if run.metrics.is_file() and run.environment.is_file()}
    _check_one_recipe(finished)
    runs = [_entry(seed, run) for seed, run in finished.items()]
    spreads = {key: _spread_of(runs, key) for key in (*(key for key, _, _ in FIGURES), SECONDS)}
    seconds = spreads.pop(SECONDS)
    return {
        "data": data,
        "asked": dict(asked),
        "planned": list(planned),
        "split": "test",
        "runs": runs,
        "figures": {key: over.as_dict() for key, over in spreads.items() if over is not None},
        SECONDS: None if seconds is None else seconds.as_dict(),
    }


def summary_text(content: Mapping[str, Any]) -> str:
    """`summary.json` as a Markdown page."""
    runs, planned = content["runs"], content["planned"]
    lines = [
        f"# {content['data']}, recipe {content['asked'].get('recipe') or 'fast'}: {_seeds(len(runs))}",
        "",
        f"Each run is scored on {content['split']}, one view a picture unless said. {_NOTE}",
    ]
    missing = [seed for seed in planned if seed not in {run["seed"] for run in runs}]
    if missing:
        lines += ["", f"Not finished yet: seed {', '.join(map(str, missing))}."]
    if runs:
        lines += ["", "| figure | mean | std | n | min | max |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(row)} |" for row in summary_rows(content)]
        lines += ["", "| run | accuracy | 95% interval | trained in |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {run['directory']} | {percent(run['accuracy'])} | {interval(run['accuracy_ci95'])} | "
            f"{duration(run[SECONDS])} |"
            for run in runs
        ]
    return "\n".join(lines) + "\n"


def summary_rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Name, mean, std, n, min and max of each figure as texts."""
    rows: list[tuple[str, ...]] = []
    for key, name, _ in FIGURES:
        figure = content["figures"].get(key)
        if figure is not None:
            rows.append((name, *spread_texts(key, figure)))
    seconds = content.get(SECONDS)
    if seconds is not None:
        rows.append(("Training took", *spread_texts(SECONDS, seconds)))
    return rows


def spread_texts(key: str, figure: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Mean, std, n, min and max of a figure as texts in its unit."""

    def shown(value: float | None) -> str:
        if value is None:
            return "–"
        if key == SECONDS:
            return duration(value)
        return f"{value:.4f}" if key in PLAIN_NUMBERS else percent(value)

    return (
        shown(figure["mean"]),
        shown(figure["std"]),
        str(figure["n"]),
        shown(figure["min"]),
        shown(figure["max"]),
    )


def _entry(seed: int, run: RunDir) -> dict[str, Any]:
    metrics, environment = run.read_json(run.metrics), run.read_json(run.environment)
    figures = {key: (metrics.get(key) or {}).get("value") for key, _, _ in FIGURES}
    return {
        "seed": seed,
        "directory": run.path.name,
        "n": metrics["n"],
        **figures,
        "accuracy_ci95": metrics["accuracy"]["ci95"],
        SECONDS: (environment.get("seconds") or {}).get("train"),
    }


def _spread_of(runs: Sequence[Mapping[str, Any]], key: str) -> Spread | None:
    values = [run[key] for run in runs if run.get(key) is not None]
    return spread(values) if values and len(values) == len(runs) else None


def _check_one_recipe(runs: Mapping[int, RunDir]) -> None:
    first: tuple[Path, dict[str, Any], Any] | None = None
    for run in runs.values():
        settings = settings_without_seed(run.read_recipe())
        fingerprint = (run.read_json(run.environment).get("data") or {}).get("fingerprint")
        if first is None:
            first = run.path, settings, fingerprint
        elif (settings, fingerprint) != first[1:]:
            what = "recipe" if settings != first[1] else "data"
            raise RunError(
                f"{run.path} was trained with another {what} than {first[0]}, so they are not seeds of one recipe.",
                "Train them in two directories and compare these.",
            )


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
