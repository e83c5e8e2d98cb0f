"""Divide a data set into the training, validation and test images of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.split import hold_out, limit
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError


@dataclass(frozen=True)
class Parts:
    """Training, validation and test images of one run; no image, by its content, is in two of them.

    `notes` describe images that were left out for that reason.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    notes: tuple[str, ...] = ()


def divide(dataset: DataSet, recipe: Recipe) -> Parts:
    """Divide a data set according to a recipe.

    Training images that are equal to test or validation images, or belong to a group of theirs, are left out, so that
    no image is used both for training and for evaluation.

    Raises:
        DataError: no test images, or a class without training images.
    """
    settings = recipe.data
    if dataset.test is None or not len(dataset.test):
        raise DataError(f"{dataset.name} has no test images.", "Add a folder test/ with the same classes.")
    notes: list[str] = []
    train, val = _without_shared(dataset.train, dataset.test, "test", notes), dataset.val
    if val is None:
        train, val = hold_out(train, settings.val_fraction, settings.split_seed)
        if settings.limit_train > len(train) and settings.train_on == "train":
            notes.append(
                f"nothing by data.limit_train = {settings.limit_train:,}: there are {len(train):,} to train on"
            )
        elif settings.limit_train and settings.train_on == "train":
            share = round(settings.limit_train * settings.val_fraction / (1 - settings.val_fraction))
            val = limit(val, max(share, int((val.counts > 0).sum())), settings.split_seed)
    else:
        val = _without_shared(val, dataset.test, "test", notes, what="validation")
        train = _without_shared(train, val, "validation", notes)
    if settings.train_on == "all" and len(val):
        train, val = concatenate(train, val), val.take(np.zeros(0, dtype=np.int64))
    if settings.limit_train:
        train = limit(train, settings.limit_train, settings.split_seed)
    return Parts(train, val if len(val) else None, dataset.test, tuple(notes))


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Concatenate two image sets, `first` before `second`."""
    files = groups = None
    if first.files is not None and second.files is not None:
        files = first.files + second.files
    if first.groups is not None and second.groups is not None:
        groups = np.concatenate([first.groups, second.groups])
    return replace(
        first,
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        rows=np.concatenate([first.rows, second.rows]),
        files=files,
        hashes=np.concatenate([first.hashes, second.hashes]),
        groups=groups,
    )


def _without_shared(images: ImageSet, held: ImageSet, name: str, notes: list[str], what: str = "training") -> ImageSet:
    """`images` without those that are also in `held`; appends to `notes` what was left out."""
    same = np.isin(images.hashes, held.hashes)
    if images.groups is not None and held.groups is not None:
        same |= np.isin(images.groups, held.groups)
    if not same.any():
        return images
    left = images.take(np.flatnonzero(~same))
    lost = [images.classes[index] for index in np.flatnonzero((images.counts > 0) & (left.counts == 0))]
    if lost and what == "training":
        raise DataError(
            f"Every training image of {', '.join(map(repr, lost[:5]))} is also a {name} image.",
            f"Use other images in the {name} split, or remove it so that one is split off automatically.",
        )
    many = int(same.sum())
    why = f"equal to {name} images" + (", or in one of their groups" if images.groups is not None else "")
    notes.append(f"{many:,} {what} images: {why}")
    return left
