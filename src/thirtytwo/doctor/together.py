"""Near-duplicates that stay on one side where validation and test are cut from the training images.

They are found on small copies, so that the split of an image does not depend on the image size of a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from thirtytwo.config.recipe import DataSettings
from thirtytwo.config.recommend import is_small
from thirtytwo.config.settings import Choice
from thirtytwo.data import cache
from thirtytwo.data.fixes import FixPlan
from thirtytwo.data.folds import assign_folds
from thirtytwo.data.load import is_known, load_dataset, survey
from thirtytwo.data.split import TEST_FRACTION, split_off
from thirtytwo.data.types import DataSet, ImageSet, Together
from thirtytwo.doctor import near_duplicates
from thirtytwo.doctor.near_duplicates import find_pairs, grouped, thumbnails
from thirtytwo.errors import DataError

MOST = 20_000
"""Number of images up to which `auto` searches for near-duplicates: its time grows with their square."""
WHAT = "kept in one split"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Kept:
    """What stays together: the resolved `data.keep_together`, the groups if there are any, and the choice to log."""

    value: Literal["near-duplicates", "copies"]
    together: Together | None = None
    choices: tuple[Choice, ...] = ()


COPIES = Kept("copies")


def kept_together(
    spec: str, settings: DataSettings, data_root: Path | None = None, fix_plan: FixPlan | None = None
) -> Kept:
    """Resolve `data.keep_together` for a data set, and find its near-duplicates where they are to stay together.

    `auto` leaves the splits of known data sets, of data that brings its own, and of small images as they are: small
    images of one kind, such as digits, resemble each other too much. Data that cannot be loaded resolves to `copies`,
    since loading it for training reports why.

    Args:
        spec: the data set, as in `load_dataset`.
        settings: the table `[data]` of a recipe.
        data_root: folder in which known data sets are searched first.
        fix_plan: images to drop, relabel or move first; None: none.

    Raises:
        ThirtytwoError: the size limit of the cache in the environment is not a number.
    """
    wanted = settings.keep_together
    if wanted == "copies":
        return COPIES
    try:
        if wanted == "auto" and (reason := _reason_for_copies(spec, settings, data_root)):
            return Kept("copies", choices=(Choice(WHAT, "copies", reason),))
        data = load_dataset(
            spec,
            data_root=data_root,
            seed=settings.split_seed,
            whole=True,
            skip_unreadable=settings.skip_unreadable,
            fix_plan=fix_plan,
        )
    except DataError:
        return COPIES
    if not _cuts(data, settings):
        return Kept("copies", choices=(Choice(WHAT, "copies", "no split is cut from the training images"),))
    together = find_together(data)
    if wanted == "auto" and not _can_divide(data, together, settings):
        reason = "a class has too few images that are no near-duplicates of each other"
        return Kept("copies", choices=(Choice(WHAT, "copies", reason),))
    return Kept("near-duplicates", together, (_found(data, together, settings),))


def find_together(data: DataSet) -> Together:
    """Groups of near-duplicates among the training images, taken from the cache where they were found before."""
    train = data.train

    def make() -> cache.Entry:
        groups = _groups(train).view(np.uint8).reshape(-1, 8)
        return cache.Entry({"groups": groups}, {"groups": train.hashes}, {}, data.fingerprint)

    steps = [near_duplicates.SPECTRA, near_duplicates.COARSE, near_duplicates.FINE, near_duplicates.LEAST_CONTRAST]
    content = cache.digest([data.fingerprint, train.hashes.tolist()])
    stored = cache.cached(cache.digest(["together", _FORMAT, steps, content]), make, f"{data.name}, near-duplicates")
    groups = np.ascontiguousarray(stored.images["groups"]).reshape(-1).view(np.uint64)
    hashes, first = np.unique(train.hashes, return_index=True)
    return Together(hashes, groups[first])


def _groups(train: ImageSet) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """The smallest content hash in the group of near-duplicates of each image, uint64 `(N,)`."""
    found = train.hashes.copy()
    for members in grouped(find_pairs(thumbnails(train.images))):
        found[members] = train.hashes[members].min()
    least = dict(zip(train.hashes.tolist(), found.tolist(), strict=True))
    for content, group in zip(train.hashes.tolist(), found.tolist(), strict=True):  # equal images may be too flat to be
        least[content] = min(least[content], group)  # compared in one of the groups only
    return np.array([least[content] for content in train.hashes.tolist()], dtype=np.uint64)


def _reason_for_copies(spec: str, settings: DataSettings, data_root: Path | None) -> str:
    """Why `auto` keeps only copies together, as far as that is known before images are decoded; empty: it is not."""
    if is_known(spec):
        return "the splits of known data sets stay the same"
    if settings.group_by:
        return f"groups are given by data.group_by = {settings.group_by!r}"
    found = survey(spec, data_root=data_root)
    if is_small(found.side):
        return f"small images, with a median shorter side of {found.side:,} pixels"
    if found.images > MOST:
        return f"{found.images:,} images; near-duplicates are searched for among up to {MOST:,}"
    return ""


def _cuts(data: DataSet, settings: DataSettings) -> bool:
    """Whether a split is cut from the training images."""
    return bool(settings.folds) or data.test is None or (data.val is None and settings.val_fraction > 0)


def _can_divide(data: DataSet, together: Together, settings: DataSettings) -> bool:
    """Whether the training images can be divided with near-duplicates on one side."""
    near = together.of(data.train.hashes)
    train = ImageSet(
        data.train.images, data.train.labels, data.classes, data.train.rows, hashes=data.train.hashes, near=near
    )
    try:
        if settings.folds:
            fold_of = assign_folds(train, settings.folds, settings.split_seed)
            train = train.take(np.flatnonzero(fold_of != settings.fold - 1))
        elif data.test is None:
            train = train.take(split_off(train, TEST_FRACTION, settings.split_seed, "testing")[0])
        if data.val is None:
            split_off(train, settings.val_fraction, settings.split_seed, "validation")
    except DataError:
        return False
    return True


def _found(data: DataSet, together: Together, settings: DataSettings) -> Choice:
    """The number of groups, for the log."""
    sizes = together.sizes
    count = f"{len(sizes):,} group{'' if len(sizes) == 1 else 's'} of near-duplicates"
    largest = f", the largest of {int(sizes.max()):,}" if len(sizes) else ""
    reason = f"data.keep_together = {settings.keep_together!r}; {int(sizes.sum()):,} of {len(data.train):,} images"
    return Choice(WHAT, count, reason + largest)
