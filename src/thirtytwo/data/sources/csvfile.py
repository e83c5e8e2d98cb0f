"""CSV files that list images with their labels."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.build import UndecodedDataSet, UndecodedPart
from thirtytwo.data.split import SPLITS, Positions, Split, split_of
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.errors import DataError, UnknownNameError, did_you_mean
from thirtytwo.images.discover import natural_key
from thirtytwo.text import csv_text, escape_bytes, listing

METADATA = "metadata.csv"
SUFFIXES = (".csv", ".tsv")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("file", "image", "filename", "path", "file_name"),
    "label": ("label", "class", "target", "category"),
    "split": ("split",),
    "group": ("group",),
}
_SHOWN = 10


@dataclass(frozen=True)
class _Row:
    """A row of the file: its line from 1, the image as written, its path, and what the columns say of it."""

    line: int
    file: str
    path: Path
    label: str
    split: Split
    group: str


def find_csv(root: Path, label: str = "") -> Path | None:
    """The CSV file that `root` is or, as `metadata.csv` with files and labels, contains; None where there is none.

    Args:
        root: a file or a folder.
        label: name of the column of labels; empty: one of the usual names.
    """
    if root.suffix.lower() in SUFFIXES and os.path.isfile(root):  # noqa: PTH113, False without permission
        return root
    inside = root / METADATA
    if not os.path.isfile(inside):  # noqa: PTH113
        return None
    header = {name.casefold() for name in read_rows(inside)[0][1]}
    labels = {label.casefold()} if label else set(_COLUMNS["label"])
    return inside if "file_name" in header and labels & header else None


def open_csv(file: Path, request: Request) -> UndecodedDataSet:
    """Open the data set that a CSV file lists; paths in it are relative to the file.

    Raises:
        UnknownNameError: no such option or column.
        DataError: no header, an empty cell, an unknown split, a missing image, or an image with two labels.
    """
    refuse_options(request, str(file), tuple(_COLUMNS))
    lines = read_rows(file)
    columns = _columns(file, lines[0][1], request)
    rows, notes = _distinct(file, _rows(file, lines[1:], columns))
    _check_files(file, rows)
    classes = tuple(sorted({row.label for row in rows}, key=natural_key))
    rows = sorted(rows, key=lambda row: (natural_key(row.label), natural_key(row.file)))
    parts = {name: own for name in SPLITS if (own := [row for row in rows if row.split == name])}
    grouped = any(row.group for row in rows)
    return UndecodedDataSet(
        name=escape_bytes(file.resolve().parent.name if file.name == METADATA else file.stem),
        where=str(file),
        classes=classes,
        parts={name: _part(own, classes, grouped=grouped) for name, own in parts.items()},
        content=lambda: cache.digest([_stamp(row.path) for name in parts for row in parts[name]]),
        skipped=tuple(notes),
        warnings=tuple(notes),
        all_in_all=False,
    )


def _stamp(path: Path) -> list[str | int]:
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


def read_rows(file: Path, *, strip: bool = True, least: int = 2) -> list[tuple[int, list[str]]]:
    """Line number and cells of each row, the header first; separator and encoding are detected.

    Args:
        file: the CSV file.
        strip: whether spaces around cells are removed.
        least: number of rows, with the header, that a file has at least.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    if os.path.exists(file) and not os.path.isfile(file):  # noqa: PTH110, PTH113, opening a pipe would wait for a writer
        raise DataError(f"{file} is not a regular file.", "Name a CSV file.")
    try:
        content = file.read_bytes()
    except OSError as error:
        fix = "Check its permissions." if isinstance(error, PermissionError) else "Name a CSV file."
        raise DataError(f"{file} cannot be read: {error.strerror}.", fix) from None
    text = _decode(content)
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells] if strip else cells) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}.", "Save the table as CSV again.") from None
    if len(rows) < least:
        raise DataError(f"{file} has no rows.", "Expected a header such as 'file,label' and one row per image.")
    return rows


def _decode(content: bytes) -> str:
    """The text of a file in UTF-8, in UTF-16 with a byte order mark, or else in Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _columns(file: Path, header: Sequence[str], request: Request) -> dict[str, int]:
    """Position of each column that the file has, by role.

    Raises:
        UnknownNameError: a column named in the options is not there.
        DataError: no column of images or labels.
    """
    folded = [name.casefold() for name in header]
    found: dict[str, int] = {}
    for role, names in _COLUMNS.items():
        wanted = request.options.get(role) or (request.group_by if role == "group" else "")
        if wanted:
            if wanted not in header:
                raise UnknownNameError(
                    f"{file} has no column {wanted!r}; found {listing(header)}.", did_you_mean(wanted, header)
                )
            found[role] = header.index(wanted)
        elif known := [folded.index(name) for name in names if name in folded]:
            found[role] = known[0]
    if missing := [role for role in ("image", "label") if role not in found]:
        expected = "; ".join(f"{role}: {', '.join(_COLUMNS[role])}" for role in missing)
        raise DataError(
            f"{file} has no column for {' and '.join(missing)}; its first line is {listing(header)}.",
            f"Add a header ({expected}), or name columns: {shlex.quote(f'{file}?image=NAME&label=NAME')}",
        )
    return found


def _rows(file: Path, lines: Sequence[tuple[int, list[str]]], columns: Mapping[str, int]) -> list[_Row]:
    """The rows as images.

    Raises:
        DataError: empty cells or unknown splits, with their lines.
    """
    rows: list[_Row] = []
    empty: list[str] = []
    unknown: dict[str, int] = {}
    for line, cells in lines:
        cell = {role: csv_text(cells[place]) if place < len(cells) else "" for role, place in columns.items()}
        written = cells[columns["image"]] if cell["image"] else ""
        if written != cell["image"] and os.path.lexists(file.parent / written):  # its name has the apostrophe
            cell["image"] = written
        split = split_of(cell["split"]) if "split" in cell else "train"
        if not cell["image"] or not cell["label"]:
            empty.append(str(line))
        elif split is None:
            unknown.setdefault(cell["split"], line)
        else:
            path = file.parent / cell["image"]
            rows.append(_Row(line, cell["image"], path, cell["label"], split, cell.get("group", "")))
    if empty:
        raise DataError(
            f"{file} has no image or no label in {len(empty):,} of {len(lines):,} rows, in these lines: "
            f"{listing(empty, _SHOWN, quoted=False)}.",
            "Fill in or remove these lines.",
        )
    if unknown:
        words = ", ".join(f"{word!r} (line {line})" for word, line in list(unknown.items())[:_SHOWN])
        raise DataError(f"{file} has unknown splits: {words}.", "Expected train, val, validation or test.")
    return rows


def _distinct(file: Path, rows: Sequence[_Row]) -> tuple[list[_Row], list[str]]:
    """The rows without repetitions, and a note on these.

    Raises:
        DataError: an image with two labels or in two splits.
    """
    first: dict[str, _Row] = {}
    repeated: list[str] = []
    for row in rows:
        before = first.setdefault(os.path.normpath(row.path), row)
        if (before.label, before.split) != (row.label, row.split):
            what = "labels" if before.label != row.label else "splits"
            one, other = (before.label, row.label) if what == "labels" else (before.split, row.split)
            raise DataError(
                f"{file} has two {what} of {row.file!r}: "
                f"{one!r} in line {before.line} and {other!r} in line {row.line}.",
                "Remove one of the lines.",
            )
        if before is not row:
            repeated.append(str(row.line))
    lines = listing(repeated, _SHOWN, quoted=False)
    notes = [f"skipped repeated rows, in these lines: {lines}"] if repeated else []
    return list(first.values()), notes


def _check_files(file: Path, rows: Sequence[_Row]) -> None:
    missing = [f"{row.file} (line {row.line})" for row in rows if not os.path.isfile(row.path)]  # noqa: PTH113
    if missing:
        raise DataError(
            f"{file}: {len(missing):,} of {len(rows):,} images are missing: {listing(missing, _SHOWN, quoted=False)}.",
            f"Paths are relative to {str(file.parent.resolve())!r}.",
        )


def _part(rows: Sequence[_Row], classes: Sequence[str], *, grouped: bool) -> UndecodedPart:
    index = {label: number for number, label in enumerate(classes)}
    files = tuple(row.file for row in rows)

    def stream(chosen: Positions) -> Iterator[Path]:
        return (rows[row].path for row in chosen)

    return UndecodedPart(
        labels=np.array([index[row.label] for row in rows], dtype=np.int64),
        rows=np.arange(len(rows), dtype=np.int64),
        stream=stream,
        name_of=files.__getitem__,
        files=files,
        random_access=True,
        groups=tuple(f"group {row.group}" if row.group else "" for row in rows) if grouped else None,
    )
