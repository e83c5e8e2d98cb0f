"""Data types for labelled images: arrays of pixels and labels, with class names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.data.arrays import Rows, taken
from thirtytwo.errors import DataError, ImageError, UnknownNameError, did_you_mean
from thirtytwo.images.content import Hashes, hash_pixels
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.images.render import data_uri
from thirtytwo.registry import Registry
from thirtytwo.reprs import Html, card, image, table
from thirtytwo.text import counted

SHOWN_CLASSES, SHOWN_IMAGES, SHOWN_SIDE = 20, 8, 32
"""Numbers of classes and of images of each that a data set shows in a notebook, and the height of these in pixels."""


def _none() -> Hashes:
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Together:
    """Groups of images that are split together, by content: images that differ only slightly, and the like.

    `hashes`: content hashes of images, uint64 `(M,)`, each once and increasing. `groups`: uint64 `(M,)`, the smallest
    content hash in the group of each, so that an image that is alone in its group has its own.
    """

    hashes: Hashes
    groups: Hashes

    def of(self, hashes: Hashes) -> Hashes:
        """The group of each image by its content hash, uint64 `(N,)`; its own hash where it is in no group."""
        if not len(self.hashes):
            return hashes
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.groups[places], hashes)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of different images in each group of two or more, int64 `(G,)`."""
        found = np.unique(self.groups, return_counts=True)[1]
        return np.asarray(found[found > 1], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    Attributes:
        images: RGB, uint8 `(N, H, W, 3)`, possibly a read-only memory map.
        labels: int64 `(N,)`, indices into `classes`.
        classes: class names.
        rows: positions in the split as stored, int64 `(N,)`.
        files: file of each image; None where images are not files.
        hashes: content hash of each image before resizing, uint64 `(N,)` (`images.content`); computed from `images`
            where the source gives none.
        groups: uint64 `(N,)`, equal for images that must stay in one split; None without groups.
        near: uint64 `(N,)`, equal for near-duplicates, which stay on one side where the set is split; None: unknown.
        large: larger copies of the images, uint8 `(N, L, L, 3)`, for random crops in training; None: there are none.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    files: tuple[str, ...] | None = None
    hashes: Hashes = field(default_factory=_none)
    groups: Hashes | None = None
    near: Hashes | None = None
    large: Rows | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if count and not len(self.hashes) and self.images.dtype == np.uint8:
            own = np.array([hash_pixels(image) for image in self.images], dtype=np.uint64)
            object.__setattr__(self, "hashes", own)
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise DataError(f"Images must be uint8 (N, H, W, 3); found {self.images.dtype} {self.images.shape}.")
        if (
            len(self.images) != count
            or len(self.rows) != count
            or len(self.hashes) != count
            or (self.files is not None and len(self.files) != count)
            or (self.groups is not None and len(self.groups) != count)
            or (self.near is not None and len(self.near) != count)
            or (self.large is not None and len(self.large) != count)
        ):
            raise DataError(
                f"Images, labels and rows must have the same length; found {len(self.images)}, {count} and "
                f"{len(self.rows)}."
            )
        if count and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes)):
            raise DataError(
                f"Labels must be between 0 and {len(self.classes) - 1}; "
                f"found {self.labels.min()} to {self.labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of images of each class, int64 `(C,)`."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def name_of(self, position: int, split: str = "") -> str:
        """The file of an image, or its row (`row 7`, or `test row 7` with the name of the split) where it has none."""
        return self.files[position] if self.files else f"{split} row {int(self.rows[position])}".lstrip()

    def take(self, positions: npt.NDArray[np.int64]) -> ImageSet:
        """Copy the images at `positions` (int64), in that order."""
        return replace(
            self,
            images=taken(self.images, positions),
            labels=self.labels[positions],
            rows=self.rows[positions],
            files=None if self.files is None else tuple(self.files[position] for position in positions),
            hashes=self.hashes[positions],
            groups=None if self.groups is None else self.groups[positions],
            near=None if self.near is None else self.near[positions],
            large=None if self.large is None else self.large.take(positions),
        )


@dataclass(frozen=True, eq=False)
class DataSet:
    """A loaded data set.

    Attributes:
        name: name of the data set.
        train: training images.
        val: validation split of the data; None where it has none (`split.hold_out` creates one).
        test: test split; None where there is none.
        fingerprint: hash of the content: equal for equal pixels, labels and class names, whatever their source.
        superclasses: superclass of each class, where the data has them.
        skipped: notes for the log: what was skipped while loading and why, and what else is special, each as a phrase.
        warnings: those of `skipped` that the data's owner should know about.
        sizes: number of images by original (width, height).
        thinned: hashes of images left out by an imbalance, or dropped by a plan of fixes.
        fixes: number of images that a plan of fixes `dropped`, `relabeled` and `moved`; empty without a plan.
        test_is_cut: whether the test split was split off the training images at random, since the data had none.
    """

    name: str
    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    fingerprint: str
    superclasses: Mapping[str, str] | None = None
    skipped: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    thinned: Hashes = field(default_factory=_none)
    fixes: Mapping[str, int] = field(default_factory=dict)
    test_is_cut: bool = False

    @property
    def median_side(self) -> float:
        """Median of the shorter sides of the original images in pixels; the decoded side where it is unknown."""
        sides = [min(size) for size, count in self.sizes.items() for _ in range(count)]
        return float(median(sides)) if sides else float(self.train.images.shape[1])

    @property
    def stored(self) -> dict[str, ImageSet]:
        """The existing splits by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in every.items() if images is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices, the same in every split."""
        return self.train.classes

    def __repr__(self) -> str:
        parts = (f"{name} {len(images):,}" for name, images in self.stored.items())
        return f"DataSet({self.name!r}, {len(self.classes):,} classes, {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The number of images of each class in each split, and some training images of each class."""
        stored = self.stored
        head = ("Class", *(f"{name}, {len(images):,}" for name, images in stored.items()), "")
        rows = [
            (label, *(f"{int(images.counts[index]):,}" for images in stored.values()), self._samples(index))
            for index, label in enumerate(self.classes[:SHOWN_CLASSES])
        ]
        more = len(self.classes) - len(rows)
        title = f"{self.name}: {counted(sum(map(len, stored.values())), 'image')}, {len(self.classes):,} classes"
        return card(title, table(rows, head), note=f"and {more:,} more classes" if more else "")

    def _samples(self, index: int) -> Html:
        """The first training images of a class."""
        places = np.flatnonzero(self.train.labels == index)[:SHOWN_IMAGES]
        uris = [data_uri(self.train.images[place], SHOWN_SIDE) for place in places]
        return Html("".join(image(uri, SHOWN_SIDE, self.classes[index]) for uri in uris))


@dataclass(frozen=True)
class Request:
    """How to load a data set; see `load.load_dataset` for the other fields.

    Attributes:
        options: options of the spec (`?label=…`).
        unreadable: list to which errors of unreadable images are appended, which are then left out; None: they raise a
            DataError.
        group_by: regular expression on file paths, or the name of a table column; a group stays in one split.
        large: side of the larger copies of training images (`ImageSet.large`); 0: none.
        whole: load the data as stored: no test set is split off, and a single class, or a test split alone, is allowed.
        spec: the spec as the user gave it, for advice; empty: unknown.
        together: training images that stay on one side where a split is cut from them; None: equal ones only.
        split_test: whether a test set is split off where the data has none.
        lacking: list to which a split and a class are appended where the split lacks the class but must have it, which
            is then allowed; None: that raises a DataError.
    """

    data_root: Path | None = None
    image_size: int | Literal["auto"] = "auto"
    resize: ResizeRule = "crop"
    seed: int = 0
    cache: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    unreadable: list[ImageError] | None = None
    group_by: str = ""
    whole: bool = False
    large: int = 0
    spec: str = ""
    together: Together | None = None
    split_test: bool = True
    lacking: list[tuple[str, str]] | None = None


IMBALANCE = "imbalance"
"""Option of every data set: `cifar10?imbalance=100`."""

Factory: TypeAlias = Callable[[Request], DataSet]

DATASETS: Registry[Factory] = Registry("data set")


def refuse_options(request: Request, where: str, known: Collection[str]) -> None:
    """Check the options of a spec.

    Raises:
        UnknownNameError: an option that this source does not support.
    """
    for option in request.options:
        if option not in known:
            raise UnknownNameError(f"{where} has no option {option!r}.", did_you_mean(option, {*known, IMBALANCE}))
