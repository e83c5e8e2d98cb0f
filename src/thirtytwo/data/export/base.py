"""A format that data sets are exported in, the images it is given, and the registry, which other packages extend."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from thirtytwo.data.split import Split
from thirtytwo.errors import DataError
from thirtytwo.images.decode import decode
from thirtytwo.images.pixels import Pixels
from thirtytwo.images.render import from_ppm
from thirtytwo.registry import Registry
from thirtytwo.text import listing

PARTS = ".parts"
"""Folder in the output for what is joined at the end; removed afterwards."""


@dataclass(frozen=True, eq=False)
class Item:
    """An image to export.

    Attributes:
        split: its split.
        row: its position in the split as stored.
        label: index of its class.
        encoded: the content of an image file.
        file_name: a file name that is unique in its split and sorts as the rows do: `000123.png`, or `000123-IMG_7.jpg`
            for an image that was the file `IMG_7.jpg`.
        name: what messages and tables call it: its file or row.
        group: its group; empty where it has none.
    """

    split: Split
    row: int
    label: int
    encoded: bytes
    file_name: str
    name: str
    group: str = ""

    @cached_property
    def pixels(self) -> Pixels:
        """The decoded image, uint8 `(H, W, 3)`; raises as `decode` does."""
        own = from_ppm(self.encoded)
        return decode(self.encoded, self.name) if own is None else own

    @property
    def suffix(self) -> str:
        """Suffix of the file name."""
        return Path(self.file_name).suffix


@dataclass(frozen=True, eq=False)
class Plan:
    """What is exported.

    Attributes:
        where: what messages call the data set.
        classes: class names in the order of the labels.
        superclasses: superclass of each class; None where there are none.
        totals: number of images of each split.
        sizes: number of images by width and height in pixels, upright.
        grouped: whether images have groups.
    """

    where: str
    classes: tuple[str, ...]
    superclasses: Mapping[str, str] | None
    totals: Mapping[Split, int]
    sizes: Counter[tuple[int, int]]
    grouped: bool

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the superclasses, sorted; empty where there are none."""
        return tuple(sorted(set((self.superclasses or {}).values())))

    @cached_property
    def group_of(self) -> tuple[int, ...]:
        """Index into `groups` of the superclass of each class; empty where there are none."""
        index = {name: number for number, name in enumerate(self.groups)}
        return tuple(index[self.superclasses[name]] for name in self.classes) if self.superclasses else ()

    def check_equal_sizes(self, format: str) -> tuple[int, int]:
        """The width and height that all images have.

        Raises:
            DataError: they differ.
        """
        if len(self.sizes) > 1:
            found = (f"{count:,} of {wide}×{high}" for (wide, high), count in self.sizes.most_common(3))
            raise DataError(
                f"{self.where} has images of {len(self.sizes):,} sizes ({', '.join(found)}"
                f"{', …' if len(self.sizes) > 3 else ''} pixels); {format} needs images of one size.",
                "Use --format folder, csv, parquet or webdataset.",
            )
        return next(iter(self.sizes))

    def check_names(self, format: str, is_valid: Mapping[str, bool]) -> None:
        """Check class names.

        Raises:
            DataError: some are not valid.
        """
        if wrong := [name for name, valid in is_valid.items() if not valid]:
            raise DataError(
                f"{format} cannot hold the class names {listing(wrong, 3)} of {self.where}.",
                "Use --format parquet, or rename the classes.",
            )

    def check_lines(self, format: str) -> None:
        """Check that class names fit a text file with one of them in each line; raises as `check_names` does."""
        names = (*self.classes, *self.groups)
        self.check_names(format, {name: name.strip() == name and len(name.splitlines()) == 1 for name in names})


class DataFormat(ABC):
    """Writes a data set in one layout, in shards: an interrupted export continues after the last complete one.

    A format of another package is a subclass, registered by its name in the entry-point group `thirtytwo.data_formats`.

    Attributes:
        title: what it writes, as a phrase.
        as_pixels: whether it stores decoded pixels instead of encoded images.
        readable: whether thirtytwo reads what it writes, so that the export is verified by reading it again.
        groups: what becomes of groups that the data has, as a note; empty: they are read again as they were.
        data: path of DATA in the output, such as `labels.csv`; empty: the output itself.
        shard_images: largest number of images of a shard.
        shard_bytes: bytes of encoded images after which a shard ends.
    """

    title: ClassVar[str]
    as_pixels: ClassVar[bool] = False
    readable: ClassVar[bool] = True
    groups: ClassVar[str] = "groups are not kept; the formats csv and webdataset keep them"
    data: ClassVar[str] = ""
    shard_images: ClassVar[int] = 256
    shard_bytes: ClassVar[int] = 2**28

    def __init__(self, folder: Path, plan: Plan) -> None:
        """Prepare to write to `folder`, which may not exist yet.

        Raises:
            DataError: the data set does not fit the format.
        """
        self.folder, self.plan = folder, plan
        self.check()

    def check(self) -> None:  # noqa: B027, most have nothing to check
        """Check that the data set fits the format; raises a DataError where it does not."""

    def is_full(self, split: Split, images: int, size: int) -> bool:
        """Whether a shard of this many images and bytes is complete."""
        return images >= self.shard_images or size >= self.shard_bytes

    @abstractmethod
    def write(self, split: Split, number: int, items: Iterator[Item]) -> Sequence[Path]:
        """Write a shard and return its files, which must depend on the arguments only.

        Args:
            split: split of the images.
            number: number of the shard in its split, from 0.
            items: the images of the shard, to be read to the end.
        """

    def finish(self, shards: Mapping[Split, int]) -> None:  # noqa: B027, most have nothing to join
        """Complete the output when all shards are written, for example by joining files in `PARTS`.

        Args:
            shards: number of shards of each split.
        """

    def place(self, *parts: str) -> Path:
        """A path in the output, whose folder is created."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def part(self, split: Split, number: int, suffix: str) -> Path:
        """Path of the part of a shard that `finish` joins with the others."""
        return self.place(PARTS, f"{split}-{number:06d}{suffix}")

    def parts(self, split: Split, shards: Mapping[Split, int], suffix: str) -> list[Path]:
        """The parts of all shards of a split."""
        return [self.part(split, number, suffix) for number in range(shards.get(split, 0))]

    def remove_parts(self) -> None:
        """Remove the parts, which were joined."""
        shutil.rmtree(self.folder / PARTS)


EXPORTS: Registry[type[DataFormat]] = Registry("data format")
