"""The one shape in which pictures travel: a uint8 array, labels, class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError
from thirtytwo.images.content import Hashes, hash_pixels


def _none() -> Hashes:
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures of one size.

    `images` uint8 `(N, H, W, 3)` RGB, possibly a read-only memory map; `labels` int64 `(N,)`, indices into `classes`;
    `rows` int64 `(N,)`, positions in the split as stored; `files` where pictures came from files. `hashes` uint64
    `(N,)` name the content of each image before it was resized (`images.content`), by its pixels here where the source
    gave none; `groups` uint64 `(N,)` are equal for images that must stay in one part, where groups were asked for.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    files: tuple[str, ...] | None = None
    hashes: Hashes = field(default_factory=_none)
    groups: Hashes | None = None

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
        ):
            raise DataError(
                f"{len(self.images)} images, {count} labels and {len(self.rows)} rows do not belong together."
            )
        if count and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes)):
            raise DataError(
                f"Labels must lie between 0 and {len(self.classes) - 1}; "
                f"found {self.labels.min()} to {self.labels.max()}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Pictures of each class, int64 `(C,)`."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def take(self, positions: npt.NDArray[np.int64]) -> ImageSet:
        """The pictures at `positions` (int64), copied, in that order."""
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            rows=self.rows[positions],
            files=None if self.files is None else tuple(self.files[position] for position in positions),
            hashes=self.hashes[positions],
            groups=None if self.groups is None else self.groups[positions],
        )


@dataclass(frozen=True, eq=False)
class DataSet:
    """Everything known of a data set: its splits, its name, and what was left out while reading it.

    `val` is the data's own validation split, or None where it has none (`splits.hold_out` makes one).
    `superclasses` maps each class to its superclass where the data has them. `fingerprint` names the content: equal for
    equal pixels, labels and class names, wherever they came from. `sizes` counts the pictures of each (width, height)
    before they were made one size. `thinned` holds the hashes of training images that an imbalance left out.
    """

    name: str
    train: ImageSet
    val: ImageSet | None
    test: ImageSet | None
    fingerprint: str
    superclasses: Mapping[str, str] | None = None
    skipped: tuple[str, ...] = field(default=())
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    thinned: Hashes = field(default_factory=_none)

    @property
    def stored(self) -> dict[str, ImageSet]:
        """The splits that there are, by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: images for name, images in every.items() if images is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices, the same in every split."""
        return self.train.classes
