"""Split images by their content, stratified by class and reproducible by seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.arrays import joined
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError
from thirtytwo.images.content import Hashes, hash_bytes
from thirtytwo.text import counted, listing, percent, quote

Split: TypeAlias = Literal["train", "val", "test"]
Purpose: TypeAlias = Literal["validation", "testing"]
Positions: TypeAlias = npt.NDArray[np.int64]
Places: TypeAlias = npt.NDArray[np.float64]
Chosen: TypeAlias = npt.NDArray[np.bool_]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES = {"val": "validation"}
"""Displayed names of splits, where they are not those in files."""
TEST_FRACTION = 0.2
"""Share of the training images that is split off where data has no test split."""
_SPELLINGS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> Split | None:
    """The split named by a folder, a file or a hub split (`Train`, `test-00000-of-00001`), or None."""
    first = re.match(r"[a-z]+", name.casefold())
    rest = name[first.end() :] if first else ""
    if first is None or re.search(r"[A-Za-z]", rest.replace("of", "")):
        return None
    return _SPELLINGS.get(first[0])


def hold_out(train: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Hold out about `fraction` of every class of `train` for validation; see `split_off` for the assignment.

    Returns:
        The remaining training images and the validation images, which are empty for a fraction of 0.

    Raises:
        DataError: a class that cannot be in both sets.
    """
    kept, held = split_off(train, fraction, seed, "validation")
    return train.take(kept), train.take(held)


def limit(images: ImageSet, count: int, seed: int, option: str = "--limit-train (data.limit_train)") -> ImageSet:
    """A stratified sample of `count` images, at least one per class; all of them where there are not more.

    Raises:
        DataError: `count` is smaller than the number of classes that have images; names the `option` that sets it.
    """
    if count >= len(images):
        return images
    present = int((images.counts > 0).sum())
    if count < present:
        raise DataError(
            f"{counted(count, 'image')} cannot cover {present} classes.",
            f"Set {option} to at least {present}, preferably ten times as many.",
        )
    return images.take(sample(images, _shares(images.counts, count), seed))


def covering_sample(images: ImageSet, count: int, seed: int) -> ImageSet:
    """A stratified sample of `count` images, or of one per class where there are more classes; all if not more."""
    return limit(images, max(count, int((images.counts > 0).sum())), seed)


def split_off(images: ImageSet, fraction: float, seed: int, purpose: Purpose) -> tuple[Positions, Positions]:
    """Split off about `fraction` of each class.

    Each image has a pseudo-random number from 0 to 1 that depends only on its content, `seed` and `purpose`; it is
    split off where the number is below `fraction`. Assignments are therefore independent: adding, removing or renaming
    images moves no others, and copies stay together, also across classes. In return, the counts match the fraction only
    approximately. Where all images of a class would be on one side, as can happen for small classes, the image closest
    to the boundary changes sides, and may change back when images are added. A training image is thus not held out
    later when images are added, except in classes that would have had no training images.

    Groups, near-duplicates where they are known, and equal images count as one image. A group with more than
    `LARGEST_HELD` times the wanted number of images of one of its classes is not split off, so that it does not take
    the place of most others.

    Returns:
        Positions that remain and positions split off, both int64 and increasing.

    Raises:
        DataError: a class that cannot be on both sides, since it has a single image or group.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"The fraction split off for {purpose} is {fraction}; expected 0 or more and less than 1.")
    everything = np.arange(len(images), dtype=np.int64)
    if fraction == 0 or not len(images):
        return everything, everything[:0]
    units, unit_of = np.unique(units_of(images), return_inverse=True)
    members = members_of(images, unit_of)
    _check_both_sides(images, [len(own) for own in members], purpose)
    places = places_of(units, f"{purpose} {seed}")
    held = places < fraction
    if images.groups is not None or images.near is not None:
        large = _large(images, unit_of, fraction)
        held &= ~large
        places = np.where(large, 1.0 + places, places)
    _ensure_both_sides(members, places, held, images, purpose)
    chosen = held[unit_of]
    return everything[~chosen], everything[chosen]


def sample(images: ImageSet, wanted: npt.NDArray[np.int64], seed: int) -> Positions:
    """Sample `wanted[c]` positions of each class c, int64 and increasing, by image content and `seed`."""
    places = places_of(images.hashes, f"drawn {seed}")
    order = np.argsort(places, kind="stable")
    drawn = [order[images.labels[order] == index][:count] for index, count in enumerate(wanted)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def group_ids(names: Iterable[str], hashes: Hashes) -> Hashes:
    """Hashes of group names, uint64 `(N,)`; an image of no group (an empty name) has its own hash in `hashes`."""
    found = (hash_bytes(b"group ", name.encode()) if name else own for name, own in zip(names, hashes, strict=True))
    return np.array(list(found), dtype=np.uint64)


LARGEST_HELD = 2.0
"""Largest group that is split off, as a multiple of the images wanted of a class."""


UNEVEN = 1.25
"""Factor by which a share that is split off differs from the wanted one so that it is remarked on."""
_UNEVEN_CLASSES = 3
"""Number of classes that such a remark names."""


def uneven_share(
    images: ImageSet, held: npt.NDArray[np.int64], fraction: float, name: str, seed: int = 0
) -> tuple[str, ...]:
    """A remark on a split that is much larger or smaller than wanted, as a whole or of a class, with the reason.

    Which images are split off depends on the content of each alone, so that images that are added move no others; the
    number of them is binomial, and far from the wanted one only where images are few. Groups of images that stay
    together are the reason where they more than double the variance of how many.

    Args:
        images: the images before the split.
        held: number of images of each class that were split off, int64 `(C,)`.
        fraction: the wanted share of them.
        name: name of the split that they became.
        seed: the seed with which they were drawn, `data.split_seed`.
    """
    total, off = len(images), int(held.sum())
    if not fraction or not total:
        return ()
    counts = images.counts
    wanted = fraction * counts
    uneven = np.flatnonzero((held > 2 * wanted + 1) | ((held < wanted / 2 - 1) & (counts > held)))
    share = off / total
    if not len(uneven) and fraction / UNEVEN <= share <= fraction * UNEVEN:
        return ()
    uneven = uneven[np.argsort(-np.abs(held - wanted)[uneven], kind="stable")]
    classes = [
        f"{int(held[index]):,} of {int(counts[index]):,} images of {quote(images.classes[index])}"
        for index in uneven.tolist()
    ]
    sizes = np.unique(units_of(images), return_counts=True)[1]
    reason = "each image is drawn by its content, so the share varies where images are few"
    if (sizes**2).sum() > 2 * total:
        reason = f"images that belong together stay on one side, up to {sizes.max():,} here"
    return (
        f"{name} has {percent(share, 0)} of the images ({off:,} of {total:,}), where {percent(fraction, 0)} are wanted"
        + (f", and {listing(classes, _UNEVEN_CLASSES, quoted=False)}" if classes else "")
        + f": {reason}; --set data.split_seed={seed + 1} draws others, and folders train, val and test fix the split",
    )


def _large(images: ImageSet, unit_of: Positions, fraction: float) -> Chosen:
    """Whether each unit has two or more images of a class, and more than are wanted of it: bool `(U,)`."""
    pairs, counts = np.unique(np.stack([unit_of, images.labels]), axis=1, return_counts=True)
    large = np.zeros(int(unit_of.max()) + 1, dtype=bool)
    wanted = LARGEST_HELD * fraction * images.counts[pairs[1]]
    large[pairs[0, (counts > 1) & (counts > wanted)]] = True
    return large


def members_of(images: ImageSet, unit_of: Positions) -> list[Positions]:
    """The units of each class, given the unit of each image."""
    pairs = np.unique(np.stack([images.labels, unit_of]), axis=1)
    return [pairs[1, pairs[0] == index] for index in range(len(images.classes))]


def units_of(images: ImageSet) -> Hashes:
    """An id for each image, equal for images that stay together: equal images, groups and near-duplicates."""
    kinds = [keys for keys in (images.groups, images.near) if keys is not None]
    if not kinds:
        return images.hashes
    units = kinds[0]
    while True:  # propagate the smallest id through equal images and groups until nothing changes
        before = units
        for keys in (images.hashes, *kinds):
            _, place = np.unique(keys, return_inverse=True)
            least = np.full(place.max() + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
            np.minimum.at(least, place, units)
            units = least[place]
        if (units == before).all():
            return units


def places_of(units: Hashes, key: str) -> npt.NDArray[np.float64]:
    """A pseudo-random number from 0 to 1 for each unit, float64 `(N,)`."""
    salt = hashlib.blake2b(key.encode(), digest_size=16).digest()
    drawn = [
        int.from_bytes(hashlib.blake2b(unit.to_bytes(8, "big"), digest_size=8, key=salt).digest(), "big")
        for unit in units.tolist()
    ]
    return np.array(drawn, dtype=np.float64) / 2.0**64


def _ensure_both_sides(
    members: Sequence[Positions], places: Places, held: Chosen, images: ImageSet, purpose: Purpose
) -> None:
    """Move units closest to the boundary so that every class is on both sides.

    Raises:
        DataError: no sequence of single moves achieves this.
    """
    for index, own in enumerate(members):
        if not len(own) or (held[own].any() and not held[own].all()):
            continue
        wanted = not held[own].any()
        order = own[np.argsort(places[own] if wanted else -places[own], kind="stable")]
        others = [other for other in members if (held[other] != wanted).any()]
        for unit in order:
            held[unit] = wanted
            if all((held[other] != wanted).any() for other in others):
                break
            held[unit] = not wanted
        else:
            raise DataError(
                f"Groups and equal images cannot be split so that {images.classes[index]!r} is both in training and in "
                f"{purpose}.",
                "Choose smaller groups with data.group_by, add images, or divide the data into train/, val/ and test/.",
            )


def _check_both_sides(images: ImageSet, units: Sequence[int], purpose: Purpose) -> None:
    single = [name for name, count in zip(images.classes, units, strict=True) if count == 1]
    if not single:
        return
    have, each = ("has", "") if len(single) == 1 else ("have", " each")
    counts = dict(zip(images.classes, images.counts.tolist(), strict=True))
    if images.groups is not None and not all(counts[name] == 1 for name in single):
        raise DataError(
            f"{listing(single)} {have} 1 group{each} by data.group_by (equal images "
            f"count as one); expected at least 2, one to train on and one for {purpose}.",
            "Name smaller groups with --group-by, or divide the data into train/, val/ and test/ yourself.",
        )
    if images.near is not None and not all(counts[name] == 1 for name in single):
        raise DataError(
            f"{listing(single)} {have} 1 distinct image{each} (near-duplicates count "
            f"as one); expected at least 2, one to train on and one for {purpose}.",
            "Add images, remove the class, or set data.keep_together to 'copies'.",
        )
    what = "1 image" if all(counts[name] == 1 for name in single) else "1 distinct image"
    raise DataError(
        f"{listing(single)} {have} {what}{each}; expected at least 2, one to train on and one for {purpose}.",
        "Add images or remove the class.",
    )


def _shares(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """`total` distributed in proportion to `counts`, in integers, at least 1 for each count above 0."""
    exact = counts * total / counts.sum()
    least = np.minimum(counts, 1)
    shares: npt.NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), least)
    while (step := int(np.sign(total - shares.sum()))) != 0:
        can_move = shares < counts if step > 0 else shares > least
        shares[np.where(can_move, step * (exact - shares), -np.inf).argmax()] += step
    return shares


@dataclass(frozen=True)
class Parts:
    """Training, validation and test images of one run; no image, by its content, is in two of them.

    `notes` describe images that were left out for that reason, and settings without effect.
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
        whole = train
        train, val = hold_out(whole, settings.val_fraction, settings.split_seed)
        notes += uneven_share(whole, val.counts, settings.val_fraction, "val", settings.split_seed)
        if settings.limit_train > len(train) and settings.train_on == "train":
            notes.append(
                f"data.limit_train = {settings.limit_train} has no effect: "
                f"there are only {len(train):,} training images"
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
    notes += [] if len(val) else _without_validation(recipe)
    return Parts(train, val if len(val) else None, dataset.test, tuple(notes))


def _without_validation(recipe: Recipe) -> list[str]:
    """Notes on settings that have no effect where no images are held out for validation."""
    unused = [f"train.patience = {recipe.train.patience}"] if recipe.train.patience else []
    unused += ["train.keep = 'best'"] if recipe.train.keep == "best" else []
    cause = (
        "data.train_on = 'all'"
        if recipe.data.train_on == "all"
        else f"data.val_fraction = {recipe.data.val_fraction:g}"
    )
    return [f"{setting} has no effect: no images are held out for validation ({cause})" for setting in unused]


def concatenate(first: ImageSet, second: ImageSet) -> ImageSet:
    """Concatenate two image sets, `first` before `second`."""
    files = groups = near = None
    if first.files is not None and second.files is not None:
        files = first.files + second.files
    if first.groups is not None and second.groups is not None:
        groups = np.concatenate([first.groups, second.groups])
    if first.near is not None and second.near is not None:
        near = np.concatenate([first.near, second.near])
    return replace(
        first,
        images=joined(first.images, second.images),
        labels=np.concatenate([first.labels, second.labels]),
        rows=np.concatenate([first.rows, second.rows]),
        files=files,
        hashes=np.concatenate([first.hashes, second.hashes]),
        groups=groups,
        near=near,
        large=None if first.large is None or second.large is None else first.large.joined(second.large),
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
    notes.append(f"skipped {counted(many, f'{what} image')}: {why}")
    return left
