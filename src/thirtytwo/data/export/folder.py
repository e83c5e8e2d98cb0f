"""A folder for each split and in it one for each class, with the image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.split import Split
from thirtytwo.errors import DataError
from thirtytwo.images.discover import is_junk
from thirtytwo.io import NAME_BYTES, folded
from thirtytwo.text import listing


@EXPORTS.register("folder")
class Folder(DataFormat):
    """`train/cat/000123.png`: files are copied byte for byte, images in tables are stored as they are."""

    title = "one folder per class in train/, val/ and test/"

    def check(self) -> None:
        self.plan.check_names("A folder", {name: _is_folder_name(name) for name in self.plan.classes})
        times = Counter(map(folded, self.plan.classes))
        if alike := [name for name in self.plan.classes if times[folded(name)] > 1]:
            raise DataError(
                f"The classes {listing(alike, 4)} of {self.plan.where} would have one folder where file systems ignore "
                "case, as those of Windows and macOS do.",
                "Use --format csv or parquet, or rename the classes.",
            )

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        files = []
        for item in items:
            file = self.place(split, self.plan.classes[item.label], item.file_name)
            file.write_bytes(item.encoded)
            files.append(file)
        return files


def _is_folder_name(name: str) -> bool:
    return bool(name) and not set(name) & {"/", "\0"} and not is_junk(name) and len(name.encode()) <= NAME_BYTES
