"""Cross-validate a recipe: one run for each fold, predictions of every image out of its fold, and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thirtytwo.arguments import given_path, optional_path, optional_source
from thirtytwo.data.load import spec_of
from thirtytwo.errors import RecipeError, check_least
from thirtytwo.predictions import Predictions
from thirtytwo.report.seeds import read_summary
from thirtytwo.run_paths import OUT_OF_FOLD, holds_seeds
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.records import progress_logger
from thirtytwo.workflows.series import Series, open_directory, resume_series, train_each
from thirtytwo.workflows.train import with_settings

MOST = 100
_NOT_SET = ("data.folds", "data.fold")


@dataclass(frozen=True)
class FoldRuns:
    """Runs of a cross-validation: their directory, each run, and the content of `summary.json`."""

    path: Path
    runs: tuple[Run, ...]
    summary: dict[str, Any]

    @property
    def predictions(self) -> Predictions:
        """Predictions of every training image by the run that was not trained on it."""
        return RunDir(self.path).read_predictions(OUT_OF_FOLD)


def train_folds(
    data: str | Path,
    *,
    folds: int | None = None,
    recipe: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    resume: bool = False,
    limit_train: int | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> FoldRuns:
    """Train a recipe once for each of `folds` folds of the training images, into `fold<N>/` below `run`.

    Each run is tested on its fold and trained on the other ones, from which its validation images are held out as
    usual. So no choice of a run (the best epoch, the temperature) depends on the images that it is tested on. Test
    images that the data have are not used at all: they stay for the final evaluation. Where the data have none, all
    images are divided into folds.

    `summary.json`, `summary.md`, `report.html` and `predictions-out-of-fold.parquet` are written to `run`, the last two
    once all folds are finished.

    Args:
        data: the data, as in `train`.
        folds: number of folds, 2 to 100; may be omitted with `resume`.
        recipe: name of a recipe, or path of a recipe file; chosen by the data by default, as in `train`.
        overrides: values that replace those of the recipe, by dotted key. `data.split_seed` is the seed of the folds.
        run: the directory to create, or to continue with `resume`; a new one under `runs/` by default.
        seed: seed of the training of every fold; the recipe's by default.
        epochs: number of epochs, at least 1; the recipe's by default.
        resume: continue in `run` with the arguments of the first call.
        limit_train: use at most this many training images in each run; all by default.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Raises:
        ThirtytwoError: as in `train`; a class has too few images for the folds; or the arguments differ from those of
            the call that is resumed.
        KeyboardInterrupt: interrupted; continue with `resume`.
    """
    data = spec_of(data)
    check_least("limit_train", limit_train)
    settings = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train}
    changes = with_settings(overrides, settings)
    for key in _NOT_SET:
        if key in changes:
            raise RecipeError(f"{key!r} is set by the cross-validation of all folds.", "Omit one of the two.")
    if folds is None and resume and run is not None and holds_seeds(given_path("run", run)):
        folds = int(read_summary(given_path("run", run)).get("folds") or 0) or None
    check_least("folds", folds, 2)
    if folds is None or not 2 <= folds <= MOST:
        raise RecipeError(f"The number of folds is {folds}; expected 2 to {MOST}.", "Choose 5, for example.")
    series = Series(data, optional_source("recipe", recipe), changes, folds)
    root = optional_path("data_root", data_root)
    planned = list(range(1, folds + 1))
    with open_directory(run, series, resume, root) as parent:
        if resume:
            series, planned = resume_series(parent, series, planned)
        runs = train_each(parent, series, planned, device, root, show, progress_logger(show))
        return FoldRuns(parent, tuple(runs), series.write(parent, planned))
