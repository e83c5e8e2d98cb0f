"""Which pictures a run trains on, holds out and scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.data.splits import hold_out, limit
from thirtytwo.errors import DataError
from thirtytwo.predict.modelfile import ModelInfo
from thirtytwo.recipe import Recipe
from thirtytwo.rundir import RunDir


@dataclass(frozen=True)
class Parts:
    """The pictures of one run: trained on, held out for choices, and scored once."""

    train: ImageSet
    val: ImageSet | None
    test: ImageSet


def divide(dataset: DataSet, recipe: Recipe) -> Parts:
    """Training, validation and test pictures as the recipe says."""
    settings = recipe.data
    if dataset.test is None or not len(dataset.test):
        raise DataError(f"{dataset.name} has no test pictures to score.", "Add a folder test/ with the same classes.")
    train = limit(dataset.train, settings.limit_train, settings.split_seed) if settings.limit_train else dataset.train
    if dataset.val is not None:
        val = dataset.val if len(dataset.val) else None
    else:
        train, held = hold_out(train, settings.val_fraction, settings.split_seed)
        val = held if len(held) else None
    if settings.train_on == "all" and val is not None:
        train = joined(train, val)
        val = None
    return Parts(train, val, dataset.test)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one, `first` before `second`."""
    files = None
    if first.files is not None and second.files is not None:
        files = first.files + second.files
    return replace(
        first,
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        rows=np.concatenate([first.rows, second.rows]),
        files=files,
    )


def pictures_of(dataset: DataSet, split: str, info: ModelInfo, own: RunDir | None) -> ImageSet:
    """The pictures of a split with labels in the model's order of classes.

    Raises:
        DataError: no such split, or other classes.
    """
    if split == "val" and dataset.val is None and own is not None:
        rows = np.asarray(own.read_json(own.split)["val_rows"], dtype=np.int64)
        pictures = dataset.train.take(np.flatnonzero(np.isin(dataset.train.rows, rows)))
    else:
        found = {"val": dataset.val, "test": dataset.test}.get(split)
        if found is None:
            raise DataError(f"{dataset.name} has no split {split!r}.", "Choose the other one with --split.")
        pictures = found
    if not len(pictures):
        raise DataError(f"The split {split!r} of {dataset.name} is empty.", "Choose another with --split.")
    if dataset.classes == tuple(info.classes):
        return pictures
    missing = sorted(set(dataset.classes) - set(info.classes))
    if missing:
        raise DataError(
            f"{dataset.name} has classes the model was not trained on: {', '.join(missing[:10])}.",
            f"The model knows: {', '.join(list(info.classes)[:20])}.",
        )
    place = np.array([info.classes.index(name) for name in dataset.classes], dtype=np.int64)
    return replace(pictures, labels=place[pictures.labels], classes=tuple(info.classes))
