"""Train one recipe with several seeds: one run for each, and a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.report.seeds import read_summary, remove_summary, seed_path, write_summary
from thirtytwo.rundir import SEEDS_SUMMARY, RunDir, default_path, holds_seeds
from thirtytwo.workflows.choose import choose_recipe
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.records import progress_logger
from thirtytwo.workflows.train import train, with_settings


@dataclass(frozen=True)
class SeedRuns:
    """Runs of several seeds: their directory, each run, and the content of `summary.json`."""

    path: Path
    runs: tuple[Run, ...]
    summary: dict[str, Any]


@dataclass(frozen=True)
class _Request:
    """The arguments of training, without the seed."""

    data: str
    recipe: str | None
    overrides: dict[str, Any]


def train_seeds(
    data: str,
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
    changes = with_settings(overrides, {"schedule.epochs": epochs, "data.limit_train": limit_train})
    if "seed" in changes:
        raise RecipeError("'seed' is set to one value, and several seeds were given.", "Omit one of the two.")
    request = _Request(data, None if recipe is None else str(recipe), changes)
    planned = _check_seeds(seeds) if seeds is not None else []
    if not resume and not planned:
        raise RecipeError("No seeds were given.", "Give some, such as 0, 1 and 2.")
    root = None if data_root is None else Path(data_root)
    with _open_directory(run, request, resume, root) as parent:
        if resume:
            request, planned = _resume_request(parent, request, planned)
        runs = _train_each(parent, request, planned, device, data_root, show, progress_logger(show))
        return SeedRuns(parent, tuple(runs), _write(parent, request, planned))


@contextmanager
def _open_directory(run: Path | str | None, request: _Request, resume: bool, data_root: Path | None) -> Iterator[Path]:
    """Create or open the directory of the seeds, locked against other processes.

    Raises:
        RunError: it is not empty, is not given with `resume`, or another process writes to it.
    """
    if not resume:
        path = Path(run) if run is not None else _default_path(request, data_root)
        with RunDir.create_locked(run, path) as new:
            yield new.path
        return
    if run is None:
        raise RunError("The seeds to resume were not given.", "Name their directory with --run.")
    with RunDir(Path(run)).writing() if Path(run).is_dir() else nullcontext():
        yield Path(run)


def _train_each(
    parent: Path,
    request: _Request,
    planned: Sequence[int],
    device: str,
    data_root: Path | str | None,
    show: bool,
    log: Callable[[str], None],
) -> list[Run]:
    runs: list[Run] = []
    if not holds_seeds(parent):
        _write(parent, request, planned)  # so that the seeds can be resumed even if this process is killed
    for number, seed in enumerate(planned, start=1):
        directory = seed_path(parent, seed)
        if number > 1:  # not for the first: its arguments are not checked yet
            log(f"seed {seed}: run {number} of {len(planned)}")
        started = RunDir(directory).recipe.is_file()
        options: dict[str, Any] = (
            {"resume": True} if started else {"recipe": request.recipe, "overrides": request.overrides}
        )
        if not started:
            options |= {"seed": seed, "overrides": _with_precision(request.overrides, runs)}
        try:
            runs.append(train(request.data, run=directory, device=device, data_root=data_root, show=show, **options))
        except BaseException:
            if any(seed_path(parent, one).is_dir() for one in planned):
                with suppress(ThirtytwoError):
                    _write(parent, request, planned)
            else:
                remove_summary(parent)  # the arguments were refused
            raise
        _write(parent, request, planned)
    return runs


def _with_precision(overrides: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Overrides with the precision that the first run resolved, so that all seeds are trained with the same one."""
    if not runs or overrides.get("train.precision", "auto") != "auto":
        return dict(overrides)
    found = RunDir(runs[0].path).read_recipe().train.precision
    return dict(overrides) if found == "auto" else {**overrides, "train.precision": found}


def _resume_request(parent: Path, request: _Request, planned: list[int]) -> tuple[_Request, list[int]]:
    """The arguments of the first call, and every seed to train.

    Raises:
        RunError: there is nothing to resume, or the arguments differ.
    """
    if RunDir(parent).recipe.is_file():
        raise RunError(f"{parent} is a run of one seed.", "Resume it without --seeds and --repeat.")
    if not holds_seeds(parent):
        if not planned or not any(seed_path(parent, seed).is_dir() for seed in planned):
            raise RunError(
                f"{parent} holds no seeds to resume: it has no {SEEDS_SUMMARY}.",
                "Give the directory that training with --seeds writes to, and the --seeds.",
            )
        return request, planned
    content = read_summary(parent)
    first = _Request(content["data"], content["asked"].get("recipe"), dict(content["asked"].get("overrides") or {}))
    differ = [
        f"{what} (was {before!r}, now {now!r})"
        for what, before, now in (
            ("data", first.data, request.data),
            ("recipe", first.recipe, request.recipe or first.recipe),
        )
        if before != now
    ]
    differ += [
        f"{key} (was {first.overrides.get(key)!r}, now {value!r})"
        for key, value in request.overrides.items()
        if first.overrides.get(key) != value
    ]
    if differ:
        raise RunError(
            f"{parent} was started with other arguments: {', '.join(differ)}.",
            "Resume without --recipe, --set and --epochs, or start a new run with another --run.",
        )
    before = [int(seed) for seed in content["planned"]]
    return first, before + [seed for seed in planned if seed not in before]


def _write(parent: Path, request: _Request, planned: Sequence[int]) -> dict[str, Any]:
    return write_summary(parent, request.data, planned, {"recipe": request.recipe, "overrides": request.overrides})


def _check_seeds(seeds: Sequence[int]) -> list[int]:
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise RecipeError(f"Seed {twice[0]} is named twice.", "Name each seed once.")
    below = [seed for seed in seeds if seed < 0]
    if below:
        raise RecipeError(f"Seeds must be at least 0; found {below[0]}.")
    return list(seeds)


def _default_path(request: _Request, data_root: Path | None) -> Path:
    recipe = request.recipe or choose_recipe(request.data, request.overrides, data_root).value
    return default_path(request.data, Path(recipe).stem, "seeds")
