"""The same recipe with several seeds: one run each, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.report.seeds import read_summary, seed_path, write_summary
from thirtytwo.rundir import SEEDS_SUMMARY, RunDir, holds_seeds
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.records import slug, teller
from thirtytwo.workflows.train import train


@dataclass(frozen=True)
class SeedRuns:
    """The runs of several seeds: the directory they lie in, each run, and the content of `summary.json`."""

    path: Path
    runs: tuple[Run, ...]
    summary: dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    """How training is called, but for the seed."""

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
    """Train a recipe once for each of `seeds`, into `seed<N>/` below `run`, and summarise the figures.

    Everything else is as in `train`. `summary.json` and `summary.md` are written anew after each run. `resume` goes on
    in `run` where it stopped, as it was called at first; further `seeds` may be added then, none need be named.

    Raises:
        ThirtytwoError: as `train`; or `resume` and what is in `run` do not fit what is asked for now.
        KeyboardInterrupt: stopped by hand; continue with `resume`.
    """
    changes = dict(overrides or {})
    changes |= {
        key: value
        for key, value in (("schedule.epochs", epochs), ("data.limit_train", limit_train))
        if value is not None
    }
    if "seed" in changes:
        raise RecipeError("'seed' is set to one value, and several seeds are asked for.", "Leave one of the two out.")
    asked = _Asked(data, None if recipe is None else str(recipe), changes)
    planned = _checked(seeds) if seeds is not None else []
    if not resume and not planned:
        raise RecipeError("No seeds were named.", "Name some, such as 0, 1 and 2.")
    with _place(run, asked, resume) as place:
        parent, asked, planned = _continued(place, asked, planned) if resume else (place, asked, planned)
        runs = _train_each(parent, asked, planned, device, data_root, show, teller(show))
        return SeedRuns(parent, tuple(runs), _write(parent, asked, planned))


@contextmanager
def _place(run: Path | str | None, asked: _Asked, resume: bool) -> Iterator[Path]:
    """The directory of the seeds, that nobody else writes to meanwhile.

    Raises:
        RunError: it is used already, is not named where it is to be resumed, or another process writes to it.
    """
    if not resume:
        with RunDir.begun(run, _default_path(asked)) as new:
            yield new.path
        return
    if run is None:
        raise RunError("Which seeds are to be resumed is not said.", "Name their directory with --run.")
    with RunDir(Path(run)).writing() if Path(run).is_dir() else nullcontext():
        yield Path(run)


def _train_each(
    parent: Path,
    asked: _Asked,
    planned: Sequence[int],
    device: str,
    data_root: Path | str | None,
    show: bool,
    say: Callable[[str], None],
) -> list[Run]:
    runs: list[Run] = []
    for number, seed in enumerate(planned, start=1):
        place = seed_path(parent, seed)
        if number > 1:  # before the first, nothing is said until it is known to be all right
            say(f"seed {seed}: run {number} of {len(planned)}")
        begun = RunDir(place).recipe.is_file()
        how: dict[str, Any] = {"resume": True} if begun else {"recipe": asked.recipe, "overrides": asked.overrides}
        if not begun:
            how |= {"seed": seed, "overrides": _with_precision(asked.overrides, runs)}
        try:
            runs.append(train(asked.data, run=place, device=device, data_root=data_root, show=show, **how))
        except BaseException:
            if RunDir(place).recipe.is_file():
                with suppress(ThirtytwoError):
                    _write(parent, asked, planned)
            raise
        _write(parent, asked, planned)
    return runs


def _with_precision(overrides: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Later seeds are trained in the precision that the first came to: a timing must not be a part of their spread."""
    if not runs or overrides.get("train.precision", "auto") != "auto":
        return dict(overrides)
    found = RunDir(runs[0].path).read_recipe().train.precision
    return dict(overrides) if found == "auto" else {**overrides, "train.precision": found}


def _continued(parent: Path, asked: _Asked, planned: list[int]) -> tuple[Path, _Asked, list[int]]:
    """Where to go on, how it was called at first, and every seed that belongs there.

    Raises:
        RunError: nothing is there, or it was called otherwise.
    """
    if RunDir(parent).recipe.is_file():
        raise RunError(f"{parent} is a run of one seed.", "Resume it without --seeds and --repeat.")
    if not holds_seeds(parent):
        if not planned or not any(seed_path(parent, seed).is_dir() for seed in planned):
            raise RunError(
                f"{parent} holds no seeds to resume: it has no {SEEDS_SUMMARY}.",
                "Give the directory that training with --seeds was to write, and the --seeds.",
            )
        return parent, asked, planned
    content = read_summary(parent)
    first = _Asked(content["data"], content["asked"].get("recipe"), dict(content["asked"].get("overrides") or {}))
    differ = [
        f"{what} (was {before!r}, now {now!r})"
        for what, before, now in (
            ("data", first.data, asked.data),
            ("recipe", first.recipe, asked.recipe or first.recipe),
        )
        if before != now
    ]
    differ += [
        f"{key} (was {first.overrides.get(key)!r}, now {value!r})"
        for key, value in asked.overrides.items()
        if first.overrides.get(key) != value
    ]
    if differ:
        raise RunError(
            f"{parent} was begun otherwise: {', '.join(differ)}.",
            "Resume without --recipe, --set and --epochs, or start anew with another --run.",
        )
    before = [int(seed) for seed in content["planned"]]
    return parent, first, before + [seed for seed in planned if seed not in before]


def _write(parent: Path, asked: _Asked, planned: Sequence[int]) -> dict[str, Any]:
    return write_summary(parent, asked.data, planned, {"recipe": asked.recipe, "overrides": asked.overrides})


def _checked(seeds: Sequence[int]) -> list[int]:
    twice = sorted({seed for seed in seeds if list(seeds).count(seed) > 1})
    if twice:
        raise RecipeError(f"Seed {twice[0]} is named twice.", "Every seed makes one run; name each once.")
    below = [seed for seed in seeds if seed < 0]
    if below:
        raise RecipeError(f"Seeds must be at least 0; found {below[0]}.")
    return list(seeds)


def _default_path(asked: _Asked) -> Path:
    return Path("runs") / f"{slug(asked.data)}-{slug(Path(asked.recipe or 'fast').stem)}-seeds"
