"""Several runs of one recipe below one directory, such as those of several seeds or folds: train, resume, summarize."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.arguments import given_path
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.io import is_directory
from thirtytwo.report.folds import write_out_of_fold
from thirtytwo.report.seeds import (
    Kind,
    missing_runs,
    read_summary,
    remove_summary,
    run_path,
    summarize,
    write_summary,
)
from thirtytwo.run_paths import SEEDS_SUMMARY, default_path, holds_seeds
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.choose import choose_recipe
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.train import train


@dataclass(frozen=True)
class Series:
    """What the runs have in common: the data, the recipe and its changes, and the number of folds (0: of seeds)."""

    data: str
    recipe: str | None
    overrides: dict[str, Any]
    folds: int = 0

    @property
    def kind(self) -> Kind:
        """What the runs differ in."""
        return "fold" if self.folds else "seed"

    def options_of(self, number: int) -> dict[str, Any]:
        """The arguments of `train` for one run: its seed or fold, besides the data and the recipe."""
        if not self.folds:
            return {"seed": number, "overrides": self.overrides}
        return {"overrides": self.overrides | {"data.folds": self.folds, "data.fold": number}}

    def write(self, parent: Path, planned: Sequence[int]) -> dict[str, Any]:
        """Write the summary of the finished runs below `parent`; returns the content of `summary.json`."""
        asked = {"recipe": self.recipe, "overrides": self.overrides}
        content = summarize(parent, self.data, planned, asked, self.folds)
        if self.folds and not missing_runs(content):
            content |= {"cross_validation": write_out_of_fold(parent, content)}
        write_summary(parent, content)
        return content


@contextmanager
def open_directory(run: Path | str | None, series: Series, resume: bool, data_root: Path | None) -> Iterator[Path]:
    """Create or open the directory of the runs, locked against other processes.

    Raises:
        RunError: it is not empty, is not given with `resume`, or another process writes to it.
    """
    if not resume:
        path = given_path("run", run) if run is not None else _default_path(series, data_root)
        with RunDir.create_locked(run, path) as new:
            yield new.path
        return
    if run is None:
        raise RunError(f"The {series.kind}s to resume were not given.", "Name their directory with --run.")
    parent = RunDir(given_path("run", run))  # expands the home directory
    with parent.writing() if is_directory(parent.path) else nullcontext():
        yield parent.path


def train_each(
    parent: Path,
    series: Series,
    planned: Sequence[int],
    device: str,
    data_root: Path | str | None,
    show: bool,
    log: Callable[[str], None],
) -> list[Run]:
    """Train or resume every run, one after the other; the summary is rewritten after each."""
    runs: list[Run] = []
    if not holds_seeds(parent):
        series.write(parent, planned)  # so that they can be resumed even if this process is killed
    for place, number in enumerate(planned, start=1):
        directory = run_path(parent, series.kind, number)
        if place > 1:  # not for the first: its arguments are not checked yet
            log(f"{series.kind} {number}: run {place} of {len(planned)}")
        options: dict[str, Any] = {"resume": True}
        if not RunDir(directory).recipe.is_file():
            options = {"recipe": series.recipe, **series.options_of(number)}
            options["overrides"] = _with_resolved(options["overrides"], runs)
        try:
            runs.append(train(series.data, run=directory, device=device, data_root=data_root, show=show, **options))
        except BaseException:
            if any(run_path(parent, series.kind, one).is_dir() for one in planned):
                with suppress(ThirtytwoError):
                    series.write(parent, planned)
            else:
                remove_summary(parent)  # the arguments were refused
            raise
        series.write(parent, planned)
    return runs


def _with_resolved(overrides: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    """Overrides with what `auto` was resolved to in the first run, so that all are trained and divided alike."""
    if not runs:
        return dict(overrides)
    first = RunDir(runs[0].path).read_recipe()
    found = {"train.precision": first.train.precision, "data.keep_together": first.data.keep_together}
    kept = {key: value for key, value in found.items() if overrides.get(key, "auto") == "auto" and value != "auto"}
    return {**overrides, **kept}


def resume_series(parent: Path, series: Series, planned: list[int]) -> tuple[Series, list[int]]:
    """The arguments of the first call, and the number of every run to train.

    Raises:
        RunError: there is nothing to resume, or the arguments differ.
    """
    kind = series.kind
    if RunDir(parent).recipe.is_file():
        raise RunError(f"{parent} is a run of one {kind}.", f"Resume it without {_options(kind)}.")
    if not holds_seeds(parent):
        if not planned or not any(run_path(parent, kind, number).is_dir() for number in planned):
            raise RunError(
                f"{parent} holds no {kind}s to resume: it has no {SEEDS_SUMMARY}.",
                f"Give the directory that training with --{kind}s writes to, and the --{kind}s.",
            )
        return series, planned
    content = read_summary(parent)
    asked = content["asked"]
    first = Series(
        content["data"], asked.get("recipe"), dict(asked.get("overrides") or {}), int(content.get("folds") or 0)
    )
    if first.kind != kind:
        raise RunError(f"{parent} holds {first.kind}s.", f"Resume it without {_options(kind)}.")
    differ = [
        f"{what} (was {before!r}, now {now!r})"
        for what, before, now in (
            ("data", first.data, series.data),
            ("recipe", first.recipe, series.recipe or first.recipe),
            ("folds", first.folds, series.folds),
        )
        if before != now
    ]
    differ += [
        f"{key} (was {first.overrides.get(key)!r}, now {value!r})"
        for key, value in series.overrides.items()
        if first.overrides.get(key) != value
    ]
    if differ:
        command = shlex.join(["thirtytwo", "train", first.data, "--resume", "--run", str(parent)])
        raise RunError(
            f"{parent} was started with other arguments: {', '.join(differ)}.",
            f"Start new runs with another --run, or continue these with: {command}",
        )
    before = [int(number) for number in content["planned"]]
    return first, before + [number for number in planned if number not in before]


def _options(kind: Kind) -> str:
    return "--seeds and --repeat" if kind == "seed" else "--folds"


def _default_path(series: Series, data_root: Path | None) -> Path:
    recipe = series.recipe or choose_recipe(series.data, series.overrides, data_root).value
    return default_path(series.data, Path(recipe).stem, f"{series.kind}s")
