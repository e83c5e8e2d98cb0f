"""Predictions out of the folds of a cross-validation, matched with the images of a data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from thirtytwo.data.apply_fixes import apply_fixes
from thirtytwo.data.fixes import FixPlan, read_fix_plan
from thirtytwo.data.load import open_undecoded
from thirtytwo.data.run_data import content_of
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, RunError
from thirtytwo.io import expand_home, is_directory, is_file
from thirtytwo.predictions import Predictions, read_predictions_file
from thirtytwo.run_paths import FIXES, OUT_OF_FOLD
from thirtytwo.rundir import RunDir
from thirtytwo.text import listing

_FIX = "Cross-validate this data again with: thirtytwo train DATA --folds 5"


def fixes_of(path: Path) -> FixPlan | None:
    """The plan of fixes that was applied to the data of a cross-validation, as its runs keep it; None without one.

    Args:
        path: as for `read_out_of_fold`.
    """
    path = expand_home(path)
    found = sorted((path if path.is_dir() else path.parent).glob(f"fold*/{FIXES}"))
    return read_fix_plan(found[0]) if found else None


def check_fixes(plan: FixPlan, spec: str, path: Path, data_root: Path | None = None) -> None:
    """Check that the plan of fixes of a cross-validation fits the data that its predictions are used for.

    Data that cannot be opened passes: loading it says why.

    Raises:
        DataError: it does not fit.
    """
    try:
        stored = open_undecoded(spec, data_root=data_root)
    except DataError:
        return
    try:
        apply_fixes(stored, plan)
    except DataError as error:
        raise DataError(
            f"The predictions in {path} are of data to which a plan of fixes was applied. {error.message}",
            "Name the data that was cross-validated, or cross-validate this data: thirtytwo train DATA --folds 5",
        ) from None


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Predictions of images by models that were not trained on them.

    Attributes:
        path: the file.
        positions: the predicted images, int64 `(M,)`, as positions in the splits of the data set one after the other.
        predictions: the predictions of these images, with the classes in the order of the data set.
    """

    path: Path
    positions: npt.NDArray[np.int64]
    predictions: Predictions


def read_out_of_fold(path: Path, data: DataSet) -> OutOfFold:
    """Read the predictions of a cross-validation, and check that they fit the data.

    Args:
        path: directory that `thirtytwo train --folds` wrote, or its `predictions-out-of-fold.parquet`.
        data: the data set; where it has no test split, its test set may have been split off since.

    Raises:
        RunError: there is no such file, or it is damaged.
        DataError: it is of other images, labels or classes.
    """
    path = expand_home(path)
    file = RunDir(path).predictions(OUT_OF_FOLD) if is_directory(path) else path
    if not is_file(file):
        raise RunError(
            f"There is no file {str(file)!r}.",
            "Give the directory that thirtytwo train --folds wrote once all folds were finished, or its "
            f"{RunDir(path).predictions(OUT_OF_FOLD).name}.",
        )
    predictions, content = read_predictions_file(file, _FIX)
    if set(predictions.classes) != set(data.classes):
        differ = sorted(set(predictions.classes) ^ set(data.classes))
        raise DataError(f"{file} has other classes than {data.name}: {listing(differ)}.", _FIX)
    found, parts = _predicted(predictions, data, file)
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    predictions = _in_order_of(predictions, data.classes)
    labels = np.concatenate([part.labels for part in parts])[order]
    wrong = int((labels != predictions.truth).sum())
    hashes = np.concatenate([part.hashes for part in parts])
    files = [name for part in parts for name in part.files or ()]
    named = predictions.files is None or not files or tuple(files[place] for place in order) == predictions.files
    if wrong or not named or (content and content != content_of(rows, hashes)):
        what = f"the labels of {wrong:,} images" if wrong else "images"
        raise DataError(f"{file} does not fit {data.name}: {what} differ from those that were predicted.", _FIX)
    return OutOfFold(file, found[order], predictions)


def _predicted(
    predictions: Predictions, data: DataSet, file: Path
) -> tuple[npt.NDArray[np.int64], tuple[ImageSet, ...]]:
    """Positions of the images that the rows are of, and their sets: train, or train and a test set split off of it.

    Raises:
        DataError: the rows are not those of the training images.
    """
    starts = dict(zip(data.stored, np.cumsum([0, *map(len, data.stored.values())]), strict=False))
    choices = [("train",), ("train", "test")] if data.test is not None else [("train",)]
    for names in choices:
        parts = tuple(data.stored[name] for name in names)
        rows = np.sort(np.concatenate([part.rows for part in parts]))
        if np.array_equal(rows, np.sort(predictions.rows)):
            positions = [starts[name] + np.arange(len(part)) for name, part in zip(names, parts, strict=True)]
            return np.concatenate(positions).astype(np.int64), parts
    raise DataError(
        f"{file} has predictions of {len(predictions.rows):,} images, which are not the {len(data.train):,} training "
        f"images of {data.name}.",
        f"{_FIX} If a plan of fixes was applied (--apply), give the directory of the folds, which has the plan.",
    )


def _in_order_of(predictions: Predictions, classes: tuple[str, ...]) -> Predictions:
    """The predictions by row, with the classes in this order."""
    place = {name: number for number, name in enumerate(classes)}
    label = np.array([place[name] for name in predictions.classes], dtype=np.int64)
    order = np.argsort(predictions.rows)
    columns = np.argsort(label)
    return replace(
        predictions,
        classes=classes,
        truth=label[predictions.truth[order]],
        probabilities=predictions.probabilities[order][:, columns],
        rows=predictions.rows[order],
        files=None if predictions.files is None else tuple(predictions.files[number] for number in order),
    )
