"""One NumPy file with arrays of pixels and labels."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.split import SPLITS, Split

_PIXELS, _LABELS = ".x", ".y"


@EXPORTS.register("npz")
class Npz(DataFormat):
    """`data.npz` with `x_train`, uint8 `(N, H, W, 3)`, `y_train`, int64 `(N,)`, the other splits, and `classes`."""

    title = "data.npz with x_train, y_train, …, for images of one size"
    data = "data.npz"
    as_pixels = True
    shard_images = 4096

    def check(self) -> None:
        self.plan.check_equal_sizes("npz")

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        pixels, labels = (self.part(split, number, suffix) for suffix in (_PIXELS, _LABELS))
        indices = []
        with pixels.open("wb") as stream:
            for item in items:
                stream.write(np.ascontiguousarray(item.pixels).data)
                indices.append(item.label)
        labels.write_bytes(np.array(indices, dtype="<i8").tobytes())
        return [pixels, labels]

    def finish(self, shards: Mapping[Split, int]) -> None:
        ((width, height),) = self.plan.sizes
        with zipfile.ZipFile(self.place(self.data), "w", zipfile.ZIP_STORED) as archive:
            for split in SPLITS:
                if count := self.plan.totals.get(split):
                    shape = (count, height, width, 3)
                    _join(archive, f"x_{split}", "|u1", shape, self.parts(split, shards, _PIXELS))
                    _join(archive, f"y_{split}", "<i8", (count,), self.parts(split, shards, _LABELS))
            with _member(archive, "classes") as stream:
                np.lib.format.write_array(stream, np.array(self.plan.classes), allow_pickle=False)
        self.remove_parts()


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _join(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...], parts: list[Path]) -> None:
    """Add an array whose data are the contents of `parts`."""
    with _member(archive, name) as stream:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            with part.open("rb") as data:
                shutil.copyfileobj(data, stream)
