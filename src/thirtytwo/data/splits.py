"""Dividing pictures, stratified by class and repeatable by seed."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.data.imageset import ImageSet
from thirtytwo.errors import DataError

Split: TypeAlias = Literal["train", "val", "test"]
Positions: TypeAlias = npt.NDArray[np.int64]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
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
    """The split a folder, file or hub split of this name holds (`Train`, `test-00000-of-00001`), or None."""
    first = re.match(r"[a-z]+", name.casefold())
    rest = name[first.end() :] if first else ""
    if first is None or re.search(r"[A-Za-z]", rest.replace("of", "")):
        return None
    return _SPELLINGS.get(first[0])


def hold_out(train: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Divide `train` into what is trained on and what is held out for choices.

    Every class gives `fraction` of its pictures, at least one. A fraction of 0 holds nothing out.

    Raises:
        DataError: a class with a single picture.
    """
    kept, held = part_off(train.labels, train.classes, fraction, seed, "validation")
    return train.take(kept), train.take(held)


def limit(images: ImageSet, count: int, seed: int) -> ImageSet:
    """`count` of the pictures, each class keeping its share and at least one; all of them where there are no more.

    Raises:
        DataError: `count` is smaller than the number of classes that have pictures.
    """
    if count >= len(images):
        return images
    present = int((images.counts > 0).sum())
    if count < present:
        raise DataError(
            f"{count} pictures cannot cover {present} classes.",
            f"Ask for at least {present}, better ten times as many.",
        )
    return images.take(draw(images.labels, _shares(images.counts, count), seed))


def part_off(
    labels: Positions, classes: tuple[str, ...], fraction: float, seed: int, purpose: str
) -> tuple[Positions, Positions]:
    """Positions that stay and positions set aside, both int64 and rising; `fraction` of each class, at least one.

    Raises:
        DataError: a class with a single picture; `purpose` says what the other one was wanted for.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"The part set aside for {purpose} is {fraction}; expected 0 or more and less than 1.")
    counts = np.bincount(labels, minlength=len(classes))
    everything = np.arange(len(labels), dtype=np.int64)
    if fraction == 0:
        return everything, everything[:0]
    single = [classes[index] for index in np.flatnonzero(counts == 1)]
    if single:
        raise DataError(
            f"{_listed(single)} {'has' if len(single) == 1 else 'have'} 1 picture each; "
            f"expected at least 2, one to train on and one for {purpose}.",
            "Add pictures or remove the class.",
        )
    wanted = np.where(counts > 0, np.clip(np.rint(counts * fraction), 1, np.maximum(counts - 1, 1)), 0).astype(np.int64)
    aside = draw(labels, wanted, seed)
    return np.setdiff1d(everything, aside, assume_unique=True), aside


def draw(labels: Positions, wanted: npt.NDArray[np.int64], seed: int) -> Positions:
    """`wanted[c]` positions of each class c by chance, int64 and rising."""
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == index))[:count] for index, count in enumerate(wanted)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _shares(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """`total` divided as `counts` are, in whole numbers, at least 1 where there is anything."""
    exact = counts * total / counts.sum()
    least = np.minimum(counts, 1)
    shares: npt.NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), least)
    while (step := int(np.sign(total - shares.sum()))) != 0:
        can_move = shares < counts if step > 0 else shares > least
        shares[np.where(can_move, step * (exact - shares), -np.inf).argmax()] += step
    return shares


def _listed(names: list[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
