"""Train one recipe with several seeds: one run for each, and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from thirtytwo.arguments import optional_path, optional_source
from thirtytwo.data.load import spec_of
from thirtytwo.errors import ArgumentError, RecipeError, check_least
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.records import progress_logger
from thirtytwo.workflows.series import Series, open_directory, resume_series, train_each
from thirtytwo.workflows.train import with_settings


@dataclass(frozen=True)
class SeedRuns:
    """Runs of several seeds: their directory, each run, and the content of `summary.json`."""

    path: Path
    runs: tuple[Run, ...]
    summary: dict[str, Any]


def train_seeds(
    data: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    recipe: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    epochs: int | None = None,
    resume: bool = False,
    limit_train: int | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> SeedRuns:
    """Train a recipe once with each of `seeds`, into `seed<N>/` below `run`, and summarize the metrics.

    `summary.json` and `summary.md` are rewritten after each run.

    Args:
        data: the data, as in `train`.
        seeds: the seeds to train, each at least 0. With `resume` they are added to the earlier ones, and may be
            omitted.
        recipe: name of a recipe, or path of a recipe file; chosen by the data by default, as in `train`.
        overrides: values that replace those of the recipe, by dotted key; `seed` is not allowed.
        run: the directory to create, or to continue with `resume`; a new one under `runs/` by default.
        epochs: number of epochs, at least 1; the recipe's by default.
        resume: continue in `run` with the arguments of the first call.
        limit_train: use at most this many training images; all by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Returns:
        The directory, the runs, and the content of `summary.json`.

    Raises:
        ThirtytwoError: as in `train`; or the arguments differ from those of the call that is resumed.
        KeyboardInterrupt: interrupted; continue with `resume`.
    """
    data = spec_of(data)
    check_least("limit_train", limit_train)
    changes = with_settings(overrides, {"schedule.epochs": epochs, "data.limit_train": limit_train})
    if "seed" in changes:
        raise RecipeError("'seed' is set to one value, and several seeds were given.", "Omit one of the two.")
    series = Series(data, optional_source("recipe", recipe), changes)
    planned = _check_seeds(seeds) if seeds is not None else []
    if not resume and not planned:
        raise RecipeError("No seeds were given.", "Give some, such as 0, 1 and 2.")
    root = optional_path("data_root", data_root)
    with open_directory(run, series, resume, root) as parent:
        if resume:
            series, planned = resume_series(parent, series, planned)
        runs = train_each(parent, series, planned, device, root, show, progress_logger(show))
        return SeedRuns(parent, tuple(runs), series.write(parent, planned))


def _check_seeds(seeds: Any) -> list[int]:
    if not isinstance(seeds, Iterable) or None in (seeds := list(seeds)):
        raise ArgumentError(f"seeds must be integers, such as [0, 1, 2]; found {seeds!r}.")
    for seed in seeds:
        check_least("seed", seed, 0)
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise RecipeError(f"Seed {twice[0]} is named twice.", "Name each seed once.")
    return [index(seed) for seed in seeds]
