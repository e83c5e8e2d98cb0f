"""The binary files of CIFAR-10, or of CIFAR-100 where the classes have superclasses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.sources.cifar_archive import BINARY_10, BINARY_100, SIDE, Layout
from thirtytwo.data.split import Split
from thirtytwo.errors import DataError

_MOST = 256
"""Number of values of a byte."""


@EXPORTS.register("cifar-binary")
class CifarBinary(DataFormat):
    """Records of one label byte, or two (superclass and class), and 3,072 bytes of pixels: red, green, blue plane."""

    title = "binary files as those of CIFAR-10 and CIFAR-100, for images of 32×32 pixels"
    as_pixels = True
    shard_images = 10_000

    def is_full(self, split: Split, images: int, size: int) -> bool:
        """Only CIFAR-10's training images are in several files."""
        return split == "train" and not self.plan.superclasses and images >= self.shard_images

    def check(self) -> None:
        width, height = self.plan.check_equal_sizes("cifar-binary")
        if (width, height) != (SIDE, SIDE):
            raise DataError(
                f"{self.plan.where} has images of {width}×{height} pixels; CIFAR's binary files hold {SIDE}×{SIDE}.",
                "Use --format npz.",
            )
        if "val" in self.plan.totals:
            raise DataError(
                f"{self.plan.where} has a validation split; CIFAR's binary files have train and test only.",
                "Use --format npz.",
            )
        if len(self.plan.classes) > _MOST:
            raise DataError(
                f"{self.plan.where} has {len(self.plan.classes):,} classes; CIFAR's binary files hold at most {_MOST}.",
                "Use --format npz.",
            )
        self.plan.check_lines("A CIFAR archive")

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        file = self.place(self._name(split, number))
        with file.open("wb") as stream:
            for item in items:
                groups = [self.plan.group_of[item.label]] if self.plan.superclasses else []
                stream.write(bytes([*groups, item.label]) + item.pixels.transpose(2, 0, 1).tobytes())
        return [file]

    def finish(self, shards: Mapping[Split, int]) -> None:
        lists = (self.plan.classes, self.plan.groups) if self.plan.superclasses else (self.plan.classes,)
        for file, names in zip(self._layout.meta, lists, strict=True):
            self.place(file).write_text("".join(f"{name}\n" for name in names), encoding="utf-8", newline="\n")

    @property
    def _layout(self) -> Layout:
        return BINARY_100 if self.plan.superclasses else BINARY_10

    def _name(self, split: Split, number: int) -> str:
        if self.plan.superclasses:
            return f"{split}.bin"
        return f"data_batch_{number + 1}.bin" if split == "train" else "test_batch.bin"
