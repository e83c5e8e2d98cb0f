"""Labelled images before decoding: what a source of data returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.data.split import SPLITS, Positions, Split, split_of
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.text import escape_bytes

Source: TypeAlias = bytes | Path
Stream: TypeAlias = Callable[[Positions], Iterator[Source]]


@dataclass(frozen=True, eq=False)
class UndecodedPart:
    """One split before decoding.

    Attributes:
        labels: int64 `(N,)`, indices into the classes.
        rows: increasing positions in the split as stored, int64 `(N,)`.
        stream: yields the encoded images of the given rows, in their order.
        name_of: name of a row in error messages.
        files: file of each image; None where images are not files.
        random_access: whether reading distant rows is as fast as reading consecutive ones.
        groups: group of each image, for images that must stay in one split; None: no groups.
        columns: names of the other columns of the table that lists the images.
        cells: the cells of a row in these columns, as text; they are read when first asked for.
        file_name: file name that a table gives an image of a row, or the archive that it is in; empty: none.
    """

    labels: npt.NDArray[np.int64]
    rows: Positions
    stream: Stream
    name_of: Callable[[int], str]
    files: tuple[str, ...] | None = None
    random_access: bool = False
    groups: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    cells: Callable[[int], tuple[str, ...]] = lambda row: ()
    file_name: Callable[[int], str] = lambda row: ""

    def place_of(self, split: str, row: int, classes: Sequence[str]) -> tuple[str, str, str]:
        """Split, file (or row, where images are not files) and class of an image, as in `ImageError.place`."""
        position = int(np.searchsorted(self.rows, row))
        return split, self.files[position] if self.files else str(row), classes[int(self.labels[position])]

    def take(self, positions: Positions) -> UndecodedPart:
        """The images at `positions`, which must be increasing."""
        return replace(
            self,
            labels=self.labels[positions],
            rows=self.rows[positions],
            files=None if self.files is None else tuple(self.files[position] for position in positions),
            groups=None if self.groups is None else tuple(self.groups[position] for position in positions),
        )


@dataclass(frozen=True, eq=False)
class UndecodedDataSet:
    """A data set before decoding.

    Attributes:
        name: name of the data set.
        where: what error messages call it, such as its folder.
        classes: class names in the order of the labels.
        parts: the splits by name.
        content: returns a key of the encoded content for the cache, or None where it has none.
        superclasses: superclass of each class, where the data has them.
        skipped: notes for the log: what was skipped and why, and what else is special, each as a phrase.
        warnings: those of `skipped` that the data's owner should know about.
        all_in_all: whether a split that lacks a class is an error instead of a note in `skipped`.
        one_class_fix: what to do if all images are of one class.
    """

    name: str
    where: str
    classes: tuple[str, ...]
    parts: Mapping[Split, UndecodedPart]
    content: Callable[[], str | None]
    superclasses: Mapping[str, str] | None = None
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    all_in_all: bool = False
    one_class_fix: str = "Put the images of each class into a folder of its own."


_GENERAL = frozenset(
    {"annotation", "annotations", "archive", "data", "dataset", "export", "files", "images", "index", "label", "labels"}
    | {"list", "metadata", "table"}
)
"""Names of files that do not say what is in them."""


def name_of_file(file: Path) -> str:
    """Name of a data set that is one file: that of the file, or of its folder where that says more.

    `pets/labels.csv`, `pets/data.npz` and `pets/train.csv` are called `pets`, `pets/beetles.csv` is called `beetles`.
    """
    folder = file.resolve().parent.name
    says_nothing = file.stem.casefold() in _GENERAL or split_of(file.stem) is not None
    return escape_bytes(folder if says_nothing and folder else file.stem)


def as_undecoded(data: DataSet, encode: Callable[[ImageSet, int], Source]) -> UndecodedDataSet:
    """A data set in memory as if it had not been decoded.

    Args:
        data: the data set.
        encode: makes what is read of an image, from its split and its position there.
    """

    def part(name: str, images: ImageSet) -> UndecodedPart:
        def stream(rows: Positions) -> Iterator[Source]:
            return (encode(images, int(position)) for position in np.searchsorted(images.rows, rows))

        return UndecodedPart(
            labels=images.labels,
            rows=images.rows,
            stream=stream,
            name_of=lambda row: images.name_of(int(np.searchsorted(images.rows, row)), name),
            files=images.files,
            random_access=True,
        )

    return UndecodedDataSet(
        name=data.name,
        where=data.name,
        classes=data.classes,
        parts={name: part(name, data.stored[name]) for name in SPLITS if name in data.stored},
        content=lambda: None,
        superclasses=data.superclasses,
        skipped=data.skipped,
        warnings=data.warnings,
    )
