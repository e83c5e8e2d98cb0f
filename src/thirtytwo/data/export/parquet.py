"""Parquet files in the layout of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item
from thirtytwo.data.split import Split
from thirtytwo.errors import require

_GROUP_ROWS, _GROUP_BYTES = 1000, 2**24
"""Bounds of a row group, which is in memory as a whole."""


@EXPORTS.register("parquet")
class Parquet(DataFormat):
    """`data/train-00000-of-00002.parquet` with an `image` (struct of `bytes` and `path`) and a `label` (ClassLabel)."""

    title = "parquet files as on the Hugging Face hub"
    groups = "groups are in the column group; --group-by group keeps them together"
    shard_images = 50_000

    def check(self) -> None:
        require("pyarrow.parquet", "train")

    def write(self, split: Split, number: int, items: Iterator[Item]) -> list[Path]:
        file = self.place("data", f"{split}-{number:05d}.parquet")
        arrow, schema = require("pyarrow", "train"), self._schema()
        writer_of = require("pyarrow.parquet", "train").ParquetWriter
        with file.open("wb") as stream, writer_of(stream, schema) as writer:  # a path may look like an address
            for rows in _row_groups(items):
                writer.write_table(arrow.Table.from_pylist([self._row(*row) for row in rows], schema=schema))
        return [file]

    def finish(self, shards: Mapping[Split, int]) -> None:
        for split, count in shards.items():
            for number in range(count):
                old = self.place("data", f"{split}-{number:05d}.parquet")
                old.rename(old.with_name(f"{split}-{number:05d}-of-{count:05d}.parquet"))

    def _schema(self) -> Any:
        arrow = require("pyarrow", "train")
        columns = [
            ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
            ("label", arrow.int64()),
        ]
        features: dict[str, Any] = {"image": {"_type": "Image"}, "label": _class_label(self.plan.classes)}
        if self.plan.superclasses:
            columns.append(("coarse_label", arrow.int64()))
            features["coarse_label"] = _class_label(self.plan.groups)
        if self.plan.grouped:
            columns.append(("group", arrow.string()))
            features["group"] = {"dtype": "string", "_type": "Value"}
        described = json.dumps({"info": {"features": features}}, ensure_ascii=False)
        return arrow.schema(columns, metadata={"huggingface": described})

    def _row(self, item: Item, encoded: bytes) -> dict[str, object]:
        row: dict[str, object] = {"image": {"bytes": encoded, "path": item.file_name}, "label": item.label}
        if self.plan.superclasses:
            row["coarse_label"] = self.plan.group_of[item.label]
        if self.plan.grouped:
            row["group"] = item.group or None
        return row


def _class_label(names: tuple[str, ...]) -> dict[str, object]:
    return {"names": list(names), "_type": "ClassLabel"}


def _row_groups(items: Iterator[Item]) -> Iterator[list[tuple[Item, bytes]]]:
    """The images with their encoded content, as many at a time as a row group holds."""
    rows: list[tuple[Item, bytes]] = []
    size = 0
    for item in items:
        encoded = item.encoded
        rows.append((item, encoded))
        size += len(encoded)
        if len(rows) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
