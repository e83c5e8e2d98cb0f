"""A table `labels.csv` of image files in `images/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.split import SPLITS, Split
from thirtytwo.text import CsvWriter

_PART = ".csv"


@EXPORTS.register("csv")
class Table(DataFormat):
    """Columns `file`, `label`, `split`, `group` where there are groups, and `source`, the former name of the image."""

    title = "labels.csv and a folder images/"
    groups = ""
    data = "labels.csv"

    def check(self) -> None:
        self.plan.check_names("A CSV file", {name: bool(name) and name.strip() == name for name in self.plan.classes})

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        part = self.part(split, number, _PART)
        files = [part]
        with part.open("w", encoding="utf-8", newline="") as stream:
            writer = CsvWriter(stream)
            for item in items:
                file = self.place("images", split, item.file_name)
                file.write_bytes(item.encoded)
                files.append(file)
                group = [item.group] if self.plan.grouped else []
                name = file.relative_to(self.folder).as_posix()
                writer.writerow([name, self.plan.classes[item.label], split, *group, item.name])
        return files

    def finish(self, shards: Mapping[Split, int]) -> None:
        columns = ["file", "label", "split", *(["group"] if self.plan.grouped else []), "source"]
        with self.place(self.data).open("wb") as stream:
            stream.write(f"{','.join(columns)}\n".encode())
            for part in (part for split in SPLITS for part in self.parts(split, shards, _PART)):
                with part.open("rb") as rows:
                    shutil.copyfileobj(rows, stream)
        self.remove_parts()
