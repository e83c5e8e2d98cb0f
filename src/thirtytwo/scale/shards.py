"""Divide the images of a source into shards: lists of files, or ranges of rows of parquet files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thirtytwo.data.sources.parquet import find_parquet
from thirtytwo.data.sources.tables import image_column
from thirtytwo.errors import DataError, InputError, ThirtytwoError, require
from thirtytwo.images.discover import IMAGE_SUFFIXES, SUFFIXES, find_images, natural_key
from thirtytwo.images.formats import FORMATS, heif_is_readable
from thirtytwo.io import is_directory
from thirtytwo.scale.address import EXTRA
from thirtytwo.scale.store import Store, check_store, is_store, local_path, open_store, uri_of

Kind = Literal["files", "parquet"]
SHARD = 512
"""Images in a shard: what is lost with a worker, in seconds of a core, and the smallest unit of the work."""
MOST_SHARDS = 4096
"""Shards of a larger source have more images instead."""
MOST_PARTS = 16
"""Most shards of one row group of a parquet file, of which each has to read over the rows before its own."""
PARQUET = ".parquet"


@dataclass(frozen=True)
class Shard:
    """Some images of a source.

    Attributes:
        number: its position among the shards, from 0.
        images: number of images.
        files: names of the image files; for parquet, the one file that has the rows.
        start: first row in that file.
    """

    number: int
    images: int
    files: tuple[str, ...]
    start: int = 0

    @property
    def part(self) -> str:
        """Name of the file with its results."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Plan:
    """The images to classify, in order.

    Attributes:
        kind: what the source is.
        root: address of its folder, in an object store or of parquet files, which may have a password; empty for local
            image files.
        column: column of the images in parquet files; empty for image files.
        shards: the images.
        skipped: files that are no images, with the reason for each.
    """

    kind: Kind
    root: str
    column: str
    shards: tuple[Shard, ...]
    skipped: tuple[tuple[Path, str], ...] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(shard.images for shard in self.shards)


def make_plan(source: Sequence[str], size: int | None = None) -> Plan:
    """Find the images of a source and divide them into shards; image files are not read.

    Args:
        source: an address or a folder, or paths and globs of images as `thirtytwo predict` takes them.
        size: number of images in a shard; by default `SHARD`, and more where there would be too many shards.

    Raises:
        DataError: there is no image, or a parquet file is not valid.
        InputError: the store cannot be read.
    """
    if len(source) > 1 and any(map(is_store, source)):
        raise DataError("An address of a store can only be given alone.", "Give one address, or local paths.")
    if len(source) == 1:
        place, column = _place(source[0])
        path = local_path(place)
        if path is None:
            return _plan_store(open_store(place), column, size)
        if (plan := _plan_local_parquet(path, column, size)) is not None:
            return plan
        if not os.path.lexists(path) and not glob.has_magic(path):
            raise DataError(f"{place} does not exist.", "Check the path.")
        source = [path if is_store(place) else place]
    files, skipped = find_images(source)
    return Plan("files", "", "", tuple(_of_files([os.fspath(file) for file in files], size)), tuple(skipped))


def _place(text: str) -> tuple[str, str]:
    """A source without `?image=NAME`, and that column's name; the options of other addresses are left as they are."""
    place, mark, name = text.rpartition("?image=")
    return (place, name) if mark and not os.path.lexists(text) else (text, "")


def _plan_store(store: Store, column: str, size: int | None) -> Plan:
    kind = check_store(store)
    if not kind:
        raise InputError(f"There is nothing at {store.address}.", "Check the address.")
    names = [""] if kind == "file" else store.visible_names()
    tables = [name for name in names if (name or store.root).endswith(PARQUET)]
    suffixes = SUFFIXES if heif_is_readable() else IMAGE_SUFFIXES
    images = [name for name in names if os.path.splitext(name or store.root)[1].lower() in suffixes]  # noqa: PTH122
    if tables and images:
        raise DataError(
            f"{store.address} has both images ({len(images)}) and parquet files ({len(tables)}).",
            "Give the folder of one kind.",
        )
    if tables:
        return _plan_parquet(store, sorted(tables, key=natural_key), column, size)
    if not images:
        raise DataError(f"No image in {store.address}.", f"Expected {FORMATS} files, or parquet files with images.")
    shards = _of_files(sorted(images, key=natural_key), size)
    return Plan("files", store.uri, "", tuple(shards))


def _plan_local_parquet(place: str, column: str, size: int | None) -> Plan | None:
    """The plan for a local parquet file or a folder of them; None for anything else."""
    path = Path(place)
    if place.endswith(PARQUET) and path.is_file():
        return _plan_parquet(open_store(place), [""], column, size)
    if not is_directory(path) or not (files := find_parquet(path)):
        return None
    try:
        images, _ = find_images([path])
    except DataError:  # none, as expected
        images = []
    if images:
        raise DataError(
            f"{place} has both images ({len(images)}) and parquet files ({len(files)}).", "Give the folder of one kind."
        )
    return _plan_parquet(open_store(place), [file.relative_to(path).as_posix() for file in files], column, size)


def _plan_parquet(store: Store, names: Sequence[str], column: str, size: int | None) -> Plan:
    parquet = require("pyarrow.parquet", EXTRA)
    groups: list[tuple[str, list[int]]] = []
    for name in names:
        try:
            with store.open(name) as stream:
                opened = parquet.ParquetFile(stream)
                found = image_column(store.full_name(name), opened.schema_arrow, column or None)
                column = column or found  # of the first file: the others must have it, too
                meta = opened.metadata
                groups.append((name, [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]))
        except ThirtytwoError:
            raise
        except store.failures(ValueError) as error:  # of damaged files, pyarrow raises either
            raise DataError(
                f"{store.full_name(name)} cannot be read as a parquet file: {store.reason(error)}.", "Copy it again."
            ) from None
    total = sum(sum(rows) for _, rows in groups)
    if not total:
        raise DataError(f"No image in {store.address}: its parquet files have no rows.", "Check the address.")
    ranges = [
        (name, start, stop)
        for name, rows in groups
        for start, stop in _ranges(rows, _size(total, size))
        if stop > start
    ]
    shards = tuple(Shard(number, stop - start, (name,), start) for number, (name, start, stop) in enumerate(ranges))
    return Plan("parquet", store.uri, column, shards)


def _ranges(groups: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of about `size` rows, from start to stop: whole row groups, or equal parts of a large one."""
    start = at = 0
    for rows in groups:
        parts = min(MOST_PARTS, rows // size)
        if parts > 1:
            yield start, at
            yield from ((at + rows * part // parts, at + rows * (part + 1) // parts) for part in range(parts))
            start = at + rows
        at += rows
        if at - start >= size:
            yield start, at
            start = at
    yield start, at


def _of_files(names: Sequence[str], size: int | None) -> Iterator[Shard]:
    most = _size(len(names), size)
    for number, first in enumerate(range(0, len(names), most)):
        some = tuple(names[first : first + most])
        yield Shard(number, len(some), some)


def _size(total: int, size: int | None) -> int:
    return size or max(SHARD, -(-total // MOST_SHARDS))


def root_of(source: Sequence[str]) -> str:
    """`Plan.root` of a source that has one."""
    return uri_of(_place(source[0])[0])


def to_table(shards: Sequence[Shard]) -> Any:
    """The shards as an Arrow table, one row for each; file names are bytes, because not all of them are text."""
    arrow = require("pyarrow", EXTRA)
    return arrow.table(
        {
            "number": arrow.array([shard.number for shard in shards], arrow.int64()),
            "images": arrow.array([shard.images for shard in shards], arrow.int64()),
            "files": arrow.array(
                [list(map(os.fsencode, shard.files)) for shard in shards], arrow.list_(arrow.binary())
            ),
            "start": arrow.array([shard.start for shard in shards], arrow.int64()),
        }
    )


def from_table(table: Any) -> list[Shard]:
    """The shards in a table that `to_table` made."""
    return [
        Shard(row["number"], row["images"], tuple(map(os.fsdecode, row["files"])), row["start"])
        for row in table.select(["number", "images", "files", "start"]).to_pylist()
    ]
