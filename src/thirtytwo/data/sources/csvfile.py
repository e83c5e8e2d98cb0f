"""CSV files that list images with their labels."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.split import SPLITS, Positions, Split, split_of
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart, name_of_file
from thirtytwo.errors import DataError, UnknownNameError, did_you_mean
from thirtytwo.images.discover import IMAGE_SUFFIXES, natural_key
from thirtytwo.inputs import is_address, with_slashes
from thirtytwo.io import free_name
from thirtytwo.run_paths import FIXES
from thirtytwo.text import counted, csv_text, listing

METADATA = "metadata.csv"
_OF_METADATA = "file_name"
"""Column of the images in `metadata.csv`, whatever others there are."""
SUFFIXES = (".csv", ".tsv")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": ("file", "image", "filename", "path", "file_name"),
    "label": ("label", "class", "target", "category"),
    "split": ("split",),
    "group": ("group",),
}
_SHOWN = 10
_HEAD = 4096
"""Bytes by which an encoding is recognized."""
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of a workbook of Excel or LibreOffice, and of other ZIP files."""


@dataclass(frozen=True)
class _Row:
    """A row of the file: its line from 1, the image as written, its path, and what the columns say of it.

    `others` are the cells of the columns that have no meaning for the data set.
    """

    line: int
    file: str
    path: Path
    label: str
    split: Split
    group: str
    others: tuple[str, ...] = ()


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
    return inside if _OF_METADATA in header and labels & header else None


def open_csv(file: Path, request: Request) -> UndecodedDataSet:
    """Open the data set that a CSV file lists; paths in it are relative to the file.

    Raises:
        UnknownNameError: no such option or column.
        DataError: no header, columns for the labels that differ, a row with more cells than the header, an empty
            cell, an unknown split, a missing image, or an image with two labels.
    """
    refuse_options(request, str(file), tuple(_COLUMNS))
    lines = read_rows(file)
    lines, headless = _with_header(file, lines, request)
    columns = _columns(file, lines, request)
    _refuse_more_cells(file, lines)
    others = _others(lines[0][1], columns.values())
    rows, notes = _distinct(file, _rows(file, lines[1:], columns, tuple(others.values())))
    notes += headless
    _check_files(file, rows)
    classes = tuple(sorted({row.label for row in rows}, key=natural_key))
    rows = sorted(rows, key=lambda row: (natural_key(row.label), natural_key(row.file)))
    parts = {name: own for name in SPLITS if (own := [row for row in rows if row.split == name])}
    grouped = any(row.group for row in rows)
    return UndecodedDataSet(
        name=name_of_file(file),
        where=str(file),
        classes=classes,
        parts={name: _part(own, classes, tuple(others), grouped=grouped) for name, own in parts.items()},
        content=lambda: cache.content_key(file.parent, [row.path for own in parts.values() for row in own]),
        skipped=tuple(notes),
        warnings=tuple(notes),
        all_in_all=False,
        one_class_fix="Add rows with other labels.",
    )


def read_rows(file: Path, *, strip: bool = True, least: int = 2) -> list[tuple[int, list[str]]]:
    """Line number and cells of each row, the header first, without blank lines; separator and encoding are detected.

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
        if file.is_dir():
            raise DataError(f"{file} is a folder; expected a CSV file.", "Name a file.") from None
        fix = "Check its permissions." if isinstance(error, PermissionError) else "Name a CSV file."
        raise DataError(f"{file} cannot be read: {error.strerror}.", fix) from None
    text = _decode(content)
    _refuse_binary(file, content, text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [
            (reader.line_num, [cell.strip() for cell in cells] if strip else cells)
            for cells in reader
            if len(cells) > 1 or any(map(str.strip, cells))
        ]
    except csv.Error as error:
        long = f"a quotation mark is not closed, or a cell has more than {csv.field_size_limit():,} characters"
        reason = long if "limit" in str(error) else "its quotation marks or line breaks are not those of a CSV file"
        raise DataError(f"{file}, line {reader.line_num}: {reason}.", "Save the table as CSV again.") from None
    if len(rows) < least:
        raise DataError(f"{file} has no rows.", "Expected a header such as 'file,label' and one row per image.")
    return rows


def _decode(content: bytes) -> str:
    """The text of a file in UTF-8, in UTF-16 with or without a byte order mark, or else in Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    pairs = [content[start:_HEAD:2] for start in (0, 1)]
    zeros = [half.count(0) for half in pairs]
    if 4 * max(zeros) > len(pairs[0]):  # the other bytes of ASCII characters
        return content.decode("utf-16-le" if zeros[1] > zeros[0] else "utf-16-be", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _refuse_binary(file: Path, content: bytes, text: str) -> None:
    """Check that a file is text.

    Raises:
        DataError: it is a workbook, or something else that is not text.
    """
    if content.startswith(_WORKBOOKS):
        raise DataError(f"{file} is a workbook or an archive, not a CSV file.", "Save the table as CSV (UTF-8).")
    if "\0" in text:
        raise DataError(f"{file} is not a text file.", "Save the table as CSV (UTF-8).")


def _with_header(
    file: Path, lines: list[tuple[int, list[str]]], request: Request
) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """The lines with a header, and a note where the file has none, but columns whose meaning is clear.

    Raises:
        DataError: the first line is no header, but has an image, and the meaning of the columns is not clear.
    """
    first = lines[0][1]
    folded = {name.casefold() for name in first}
    if all(request.options.get(role) or folded & set(_COLUMNS[role]) for role in ("image", "label")):
        return lines, []
    roles = _roles(file, [cells for _, cells in lines])
    rest = [place for place in range(len(first)) if place not in roles]
    if "file" not in roles.values() or not rest:
        return lines, []
    names = roles | {place: f"column {place + 1}" for place in rest} | {rest[0]: "label"}
    header = [names[place] for place in range(len(first))]
    if len(rest) == 1:
        return [(0, header), *lines], [f"no header in {file.name}: its columns are read as {', '.join(header)}"]
    image = next(place for place, name in roles.items() if name == "file")
    raise DataError(
        f"{file} has no header: its first line has the image {first[image]!r}.",
        f"Add a first line that names its {len(first)} columns, separated as the others, such as: {','.join(header)}",
    )


def _roles(file: Path, lines: Sequence[Sequence[str]]) -> dict[int, str]:
    """Columns of a table without a header that can only be those of the images and the splits, by position."""
    images = [place for place, cell in enumerate(lines[0]) if cell and _names_image(file.parent / cell)]
    splits = [
        place
        for place in range(len(lines[0]))
        if all(place < len(cells) and split_of(cells[place]) is not None for cells in lines)
    ]
    found = {images[0]: "file"} if len(images) == 1 else {}
    return found | ({splits[0]: "split"} if len(splits) == 1 else {})


def _names_image(path: Path) -> bool:
    return os.path.isfile(path) or path.suffix.lower() in IMAGE_SUFFIXES  # noqa: PTH113


def _columns(file: Path, lines: Sequence[tuple[int, list[str]]], request: Request) -> dict[str, int]:
    """Position of each column that the file has, by role.

    Raises:
        UnknownNameError: a column named in the options is not there.
        DataError: no column of images or labels, or several that differ.
    """
    header = lines[0][1]
    folded = [name.casefold() for name in header]
    found: dict[str, int] = {}
    for role, usual in _COLUMNS.items():
        wanted = request.options.get(role) or (request.group_by if role == "group" else "")
        if wanted:
            if wanted not in header:
                raise UnknownNameError(
                    f"{file} has no column {wanted!r}; found {listing(header)}.", did_you_mean(wanted, header)
                )
            places = [place for place, name in enumerate(header) if name == wanted]
        else:
            own = _own_name(file, role)
            names = [name for name in ((own,) if own in folded else usual) if name in folded]
            several = names if role == "label" else names[:1]  # other columns often hold other paths of the image
            places = [place for name in several for place, one in enumerate(folded) if one == name]
        if places:
            _check_one(file, lines, role, places)
            found[role] = places[0]
    if missing := [role for role in ("image", "label") if role not in found]:
        expected = "; ".join(f"{role}: {', '.join(_COLUMNS[role])}" for role in missing)
        raise DataError(
            f"{file} has no column for {' and '.join(missing)}; its first line is {listing(header)}.",
            f"Add a header ({expected}), or name columns: {shlex.quote(f'{file}?image=NAME&label=NAME')}",
        )
    return found


def _own_name(file: Path, role: str) -> str:
    """The column of a role whatever others there are: in `metadata.csv`, and in that of `data fix`; else empty."""
    if file.name != METADATA:
        return ""
    fixed = os.path.isfile(file.parent / FIXES)  # noqa: PTH113
    return {"image": _OF_METADATA, "label": "label" if fixed else ""}.get(role, "")


def _check_one(file: Path, lines: Sequence[tuple[int, list[str]]], role: str, places: Sequence[int]) -> None:
    """Check that one column has a role, or that all which may have it have the same cells.

    Raises:
        DataError: a name occurs twice, or the columns differ.
    """
    names = [lines[0][1][place] for place in places]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{file} has {names.count(twice[0])} columns {twice[0]!r}.", "Rename or remove all but one.")
    for line, cells in lines[1:]:
        found = [cells[place] if place < len(cells) else "" for place in places]
        if len(set(found)) > 1:
            raise DataError(
                f"{file} has several columns for the {role} ({listing(names)}) that differ, first in line {line}: "
                f"{listing(found)}.",
                f"Name the one to use: {shlex.quote(f'{file}?{role}={names[0]}')}",
            )


def _refuse_more_cells(file: Path, lines: Sequence[tuple[int, list[str]]]) -> None:
    """Check that no row has more cells than the header, except for empty ones at its end.

    Raises:
        DataError: some have, such as for a comma in a name without quotation marks.
    """
    width = len(lines[0][1])
    if longer := [(line, cells) for line, cells in lines[1:] if any(cells[width:])]:
        line, cells = longer[0]
        raise DataError(
            f"{file} has more cells than its header, which has {width}, in {counted(len(longer), 'row')}, in these "
            f"lines: {listing((str(line) for line, _ in longer), _SHOWN, quoted=False)}; line {line} has {len(cells)}, "
            f"the last of them {cells[-1]!r}.",
            'Put a cell that contains the separator in quotation marks, such as "Gruen, hell".',
        )


def _others(header: Sequence[str], used: Collection[int]) -> dict[str, int]:
    """Positions of the columns that have no meaning for the data set, by names that differ in more than case."""
    found: dict[str, int] = {}
    taken: set[str] = set()
    for place, name in enumerate(header):
        if place not in used and name:
            unique = free_name(name, taken)
            taken.add(unique.casefold())
            found[unique] = place
    return found


def _rows(
    file: Path, lines: Sequence[tuple[int, list[str]]], columns: Mapping[str, int], others: Sequence[int]
) -> list[_Row]:
    """The rows as images; `others` are the positions of columns that have no meaning.

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
            path = file.parent / with_slashes(cell["image"], file.parent)
            more = tuple(cells[place] if place < len(cells) else "" for place in others)
            rows.append(_Row(line, cell["image"], path, cell["label"], split, cell.get("group", ""), more))
    if empty:
        raise DataError(
            f"{file} has no image or no label in {len(empty):,} of {len(lines):,} rows, in these lines: "
            f"{listing(empty, _SHOWN, quoted=False)}.",
            "Fill in or remove these lines.",
        )
    if unknown:
        words = ", ".join(f"{word!r} (line {line})" for word, line in list(unknown.items())[:_SHOWN])
        raise DataError(f"{file} has unknown splits: {words}.", "Expected train, val or test.")
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
        online = any(is_address(row.file) for row in rows)
        are = "is" if len(missing) == 1 else "are"
        raise DataError(
            f"{file}: {len(missing):,} of {counted(len(rows), 'image')} {are} missing: "
            f"{listing(missing, _SHOWN, quoted=False)}.",
            "Addresses are not downloaded: download the images, and write their paths in the table."
            if online
            else f"Paths are relative to {str(file.parent.resolve())!r}.",
        )


def _part(rows: Sequence[_Row], classes: Sequence[str], others: tuple[str, ...], *, grouped: bool) -> UndecodedPart:
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
        columns=others,
        cells=lambda row: rows[row].others,
    )
