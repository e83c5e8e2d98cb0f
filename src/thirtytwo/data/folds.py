"""Divide images into the folds of a cross-validation: stratified by class, grouped, and reproducible by seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.split import Parts, divide, members_of, places_of, units_of
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError
from thirtytwo.text import listing

Folds = npt.NDArray[np.int64]


def assign_folds(images: ImageSet, folds: int, seed: int) -> Folds:
    """Assign each image to one of `folds` folds, 0 to `folds` - 1: int64 `(N,)`.

    Equal images, groups and near-duplicates where they are known (`split.units_of`) are in one fold. Units are assigned
    one after the other, large ones first, then by class, in an order that depends on their content and `seed`, to the
    fold that has the smallest share of their classes so far: the greedy rule of scikit-learn's `StratifiedGroupKFold`
    with shares instead of their standard deviation. Classes of single images are thus divided evenly, to one image.

    Args:
        images: the images.
        folds: number of folds, at least 2.
        seed: seed of the order.

    Raises:
        DataError: a class has too few images or groups to be in every fold, and twice in the other ones.
    """
    units, unit_of = np.unique(units_of(images), return_inverse=True)
    members = members_of(images, unit_of)
    _check_enough(images, [len(own) for own in members], folds)
    fold_of = _assign_units(images, unit_of, places_of(units, f"folds {seed}"), folds)
    _check_all_classes(images, members, fold_of, folds)
    return fold_of[unit_of]


def with_fold(data: DataSet, folds: int, fold: int, seed: int) -> DataSet:
    """The data with one fold of its training images as test images; the stored test images are left out.

    Args:
        data: a data set; its validation images, if it has some, stay as they are.
        folds: number of folds.
        fold: number of the fold to test on, from 1.
        seed: seed of the folds.

    Raises:
        DataError: as `assign_folds`.
    """
    held = assign_folds(data.train, folds, seed) == fold - 1
    return replace(data, train=data.train.take(np.flatnonzero(~held)), test=data.train.take(np.flatnonzero(held)))


def divide_or_fold(dataset: DataSet, recipe: Recipe) -> Parts:
    """Divide a data set according to a recipe, as `split.divide`; with `data.folds`, one of the folds is the test set.

    Raises:
        DataError: as `split.divide` and `assign_folds`.
    """
    settings = recipe.data
    if not settings.folds:
        return divide(dataset, recipe)
    parts = divide(with_fold(dataset, settings.folds, settings.fold, settings.split_seed), recipe)
    left_out = "" if dataset.test is None else f"; the {len(dataset.test):,} test images of the data are left out"
    note = (
        f"cross-validation: the test images are fold {settings.fold} of {settings.folds} of {len(dataset.train):,} "
        f"training images{left_out}"
    )
    return replace(parts, notes=(note, *parts.notes))


def _assign_units(images: ImageSet, unit_of: Folds, places: npt.NDArray[np.float64], folds: int) -> Folds:
    """The fold of each unit, int64 `(U,)`."""
    pairs, counts = np.unique(np.stack([unit_of, images.labels]), axis=1, return_counts=True)
    starts = np.searchsorted(pairs[0], np.arange(len(places) + 1))
    sizes = np.bincount(unit_of)
    shares = np.zeros((folds, len(images.classes)))  # of the images of each class
    totals = np.zeros(folds)
    fold_of = np.zeros(len(places), dtype=np.int64)
    for unit in np.lexsort((places, pairs[1, starts[:-1]], -sizes)).tolist():
        own = slice(starts[unit], starts[unit + 1])
        classes, weights = pairs[1, own], counts[own] / images.counts[pairs[1, own]]
        filled = (shares[:, classes] * weights).sum(axis=1) / weights.sum()
        chosen = int(np.lexsort((totals, filled.round(9)))[0])
        shares[chosen, classes] += weights
        totals[chosen] += sizes[unit]
        fold_of[unit] = chosen
    return fold_of


def _check_enough(images: ImageSet, units: list[int], folds: int) -> None:
    """Check that each class has enough units for every fold, and two in the others: one to train on, one to validate.

    Raises:
        DataError: some have not.
    """
    least = max(folds, 4) if folds == 2 else folds
    few = {name: count for name, count in zip(images.classes, units, strict=True) if 0 < count < least}
    if few:
        grouped = images.groups is not None or images.near is not None
        kind = "images, groups counted once" if grouped else "different images"
        found = listing((f"{name!r} has {count}" for name, count in few.items()), quoted=False)
        raise DataError(
            f"{folds} folds need at least {least} images of each class ({kind}): {found}.",
            f"Use at most {max(2, min(few.values()))} folds, add images, or remove the class."
            if min(few.values()) > 2
            else "Add images, or remove the class.",
        )


def _check_all_classes(images: ImageSet, members: list[Folds], fold_of: Folds, folds: int) -> None:
    """Check that every fold has every class.

    Raises:
        DataError: one has not, as can happen where groups have images of several classes.
    """
    for index, own in enumerate(members):
        if len(own) and len(np.unique(fold_of[own])) < folds:
            raise DataError(
                f"Groups cannot be divided into {folds} folds that all have images of {images.classes[index]!r}.",
                "Use fewer folds, or smaller groups with data.group_by.",
            )
