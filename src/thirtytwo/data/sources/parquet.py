"""Folders of parquet files in the hub's layout, read directly from disk."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from thirtytwo.data import cache
from thirtytwo.data.sources.tables import KnownDataSet, has_names, names_in, open_tables
from thirtytwo.data.split import Split, split_of
from thirtytwo.data.types import Request
from thirtytwo.data.undecoded import UndecodedDataSet
from thirtytwo.errors import DataError, UnknownNameError, did_you_mean, require
from thirtytwo.images.discover import is_junk, natural_key, output_kind
from thirtytwo.text import escape_bytes, listing

_BATCH = 256
_MAGIC = b"PAR1"


class ParquetTable:
    """Several parquet files as one table."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        with self._opened(files[0]) as opened:
            self.schema = opened.schema_arrow

    def column(self, name: str) -> Any:
        arrow = require("pyarrow", "train")
        chunks: list[Any] = []
        try:
            for file in self.files:
                with self._opened(file) as opened:
                    chunks += opened.read([name])[name].chunks
            return arrow.chunked_array(chunks, type=self.schema.field(name).type)
        except (OSError, KeyError, ValueError, TypeError):
            raise DataError(
                f"{self.files[0].parent}: the column {name!r} cannot be read: a file is damaged, or has the column in "
                "another type than the first one.",
                "Copy the files again.",
            ) from None

    def batches(self, name: str) -> Iterator[Any]:
        for file in self.files:
            try:
                with self._opened(file) as opened:
                    for batch in opened.iter_batches(_BATCH, columns=[name]):
                        yield batch.column(0)
            except (OSError, ValueError):
                raise _damaged(file) from None

    def file_names(self, name: str) -> list[str]:
        if not has_names(self.schema.field(name).type):
            return []
        found: list[str] = []
        for file in self.files:
            try:
                with self._opened(file) as opened:
                    found += names_in(opened.read([f"{name}.path"]).column(0).to_pylist())
            except (OSError, LookupError, ValueError, TypeError):
                raise _damaged(file) from None
        return found

    @contextmanager
    def _opened(self, file: Path) -> Iterator[Any]:
        """The opened file, read as a stream: pyarrow takes no path that is not UTF-8, and a:b/c for an address."""
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(file.open("rb"))
                opened = require("pyarrow.parquet", "train").ParquetFile(stream)
            except OSError as error:
                if error.errno is not None:
                    raise DataError(
                        f"{file} cannot be read: {os.strerror(error.errno)}.", "Check its permissions."
                    ) from None
                raise _damaged(file) from None
            except ValueError:
                raise _damaged(file) from None
            yield opened


def find_parquet(root: Path) -> list[Path]:
    """Find parquet files recursively, in natural order, except those in run directories."""
    found = (
        file
        for file in root.rglob("*.parquet")
        if os.path.isfile(file)  # noqa: PTH113, False without permission
        and not any(map(is_junk, file.relative_to(root).parts))
        and not any(output_kind(folder) for folder in file.parents if folder != root and folder.is_relative_to(root))
    )
    return sorted(found, key=lambda file: natural_key(file.as_posix()))


def open_parquet(root: Path, request: Request, known: KnownDataSet | None = None) -> UndecodedDataSet:
    """Open a data set in a folder of files such as `data/train-00000-of-00003.parquet` or `train/0.parquet`.

    Files whose names contain no split are one set, from which a test set is split off.

    Raises:
        DataError: no such files, damaged files, several configurations, or as `tables.open_tables`.
    """
    files = find_parquet(root)
    if not files:
        raise DataError(
            f"{root} contains no parquet files.", "Expected files such as data/train-00000-of-00001.parquet."
        )
    configs: dict[str, dict[Split | None, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        config, split = _place(file.relative_to(root))
        configs[config][split].append(file)
    chosen = _config(root, configs, request.options.get("config"))
    named = {split: found for split, found in chosen.items() if split is not None}
    nameless = chosen.get(None, [])
    skipped = tuple(
        f"skipped {file.relative_to(root).as_posix()}: its name contains no split" for file in nameless if named
    )
    used = named or {"train": nameless}
    return open_tables(
        where=str(root),
        name=known.name if known else escape_bytes(root.resolve().name),
        tables={split: ParquetTable(found) for split, found in used.items()},
        request=request,
        content=lambda: cache.content_key(root, [file for found in used.values() for file in found]),
        known=known,
        skipped=skipped,
    )


def _place(file: Path) -> tuple[str, Split | None]:
    """Configuration (the folders, except one that names the split) and split of a file."""
    folders = list(file.parts[:-1])
    split = split_of(file.stem)
    if split is None and folders:
        split = split_of(folders[-1])
        folders = folders[:-1] if split else folders
    return "/".join(folders), split


def _config(
    root: Path, configs: dict[str, dict[Split | None, list[Path]]], wanted: str | None
) -> dict[Split | None, list[Path]]:
    if wanted is not None:
        if wanted not in configs:
            raise UnknownNameError(f"{root} has no configuration {wanted!r}.", did_you_mean(wanted, configs))
        return configs[wanted]
    if len(configs) > 1:
        raise DataError(
            f"{root} has parquet files in several folders: {listing(sorted(configs))}.",
            f"Choose one: ?config={max(configs)}",
        )
    return next(iter(configs.values()))


def _damaged(file: Path) -> DataError:
    """The error for a file that is not parquet, or not all of it."""
    try:
        with file.open("rb") as stream:
            start = stream.read(len(_MAGIC))
            size = stream.seek(0, os.SEEK_END)
    except OSError:
        start, size = b"", 0
    if not size:
        return DataError(f"{file} is empty (0 bytes).", "Copy it again.")
    if start != _MAGIC:
        return DataError(f"{file} is not a parquet file, whatever its name says.", "Copy it again, or remove it.")
    return DataError(
        f"{file} is damaged or incomplete: it starts as a parquet file, but its rest cannot be read.", "Copy it again."
    )
