"""Tar files in the layout of WebDataset."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.manifest import CLASSES
from thirtytwo.data.split import Split


@EXPORTS.register("webdataset")
class WebDataset(DataFormat):
    """`train-000000.tar` with `KEY.png`, `KEY.cls` (the index of a line of `classes.txt`) and `KEY.json`."""

    title = "tar files as WebDataset reads them"
    groups = ""
    shard_images = 10_000

    def check(self) -> None:
        self.plan.check_lines("WebDataset")

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        file = self.place(f"{split}-{number:06d}.tar")
        with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
            for item in items:
                key = f"{split}{item.row:08d}"
                _add(archive, f"{key}{item.suffix.lower()}", item.encoded)
                _add(archive, f"{key}.cls", str(item.label).encode())
                _add(archive, f"{key}.json", json.dumps(self._details(item), ensure_ascii=False).encode())
        return [file]

    def finish(self, shards: Mapping[Split, int]) -> None:
        text = "".join(f"{name}\n" for name in self.plan.classes)
        self.place(CLASSES).write_text(text, encoding="utf-8", newline="\n")

    def _details(self, item: Item) -> dict[str, object]:
        found: dict[str, object] = {
            "label": item.label,
            "class": self.plan.classes[item.label],
            "split": item.split,
            "file": item.name,
        }
        return found | ({"group": item.group} if item.group else {})


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
