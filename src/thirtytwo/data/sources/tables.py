"""Tables of images in the hub's layout: choice of columns, class names, and reading of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.data.split import Positions, Split
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.data.undecoded import Source, UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError, UnknownNameError, did_you_mean, require
from thirtytwo.images.discover import natural_key
from thirtytwo.text import listing

Labels: TypeAlias = npt.NDArray[np.int64]

OPTIONS = ("label", "image", "config")
_LABEL_NAMES = ("label", "labels", "class", "target", "category")
_IMAGE_NAMES = ("image", "img")


class Table(Protocol):
    """One split: an Arrow schema with the hub's features in its metadata, and rows in a fixed order."""

    @property
    def schema(self) -> Any: ...

    def column(self, name: str) -> Any:
        """A whole column as an Arrow array."""

    def batches(self, name: str) -> Iterator[Any]:
        """A column as a sequence of Arrow arrays."""

    def file_names(self, name: str) -> list[str]:
        """The file names in a column of images, which is not read as a whole; empty for images without one."""


@dataclass(frozen=True)
class KnownDataSet:
    """Fixed properties of a well-known data set.

    Attributes:
        name: name of the data set.
        hub_id: its name on the hub, `owner/name`.
        classes: class names in the order of their indices, for each label column; the default column first.
        superclasses: for a label column, the superclass of each class.
    """

    name: str
    hub_id: str
    classes: Mapping[str, tuple[str, ...]]
    superclasses: Mapping[str, Mapping[str, str]]

    @property
    def label(self) -> str:
        """The default label column."""
        return next(iter(self.classes))


def open_tables(
    where: str,
    name: str,
    tables: Mapping[Split, Table],
    request: Request,
    content: Callable[[], str | None],
    known: KnownDataSet | None = None,
    skipped: tuple[str, ...] = (),
) -> UndecodedDataSet:
    """Open a data set with one table per split.

    Raises:
        DataError: no train split, an ambiguous or missing column, or invalid labels.
    """
    refuse_options(request, where, OPTIONS)
    if "train" not in tables and not (request.whole and tables):
        raise DataError(f"{where} has no train split; found {', '.join(tables) or 'none'}.", "Add one.")
    schema = next(iter(tables.values())).schema if "train" not in tables else tables["train"].schema
    columns = _choose_columns(where, schema, request, known)
    _check_columns(where, tables, columns)
    values = {split: table.column(columns.label) for split, table in tables.items()}
    classes, labels = _indices(where, columns.label, values, columns.classes)
    unlabelled = _check_labelled(where, columns.label, labels)
    superclasses = known.superclasses.get(columns.label) if known else None
    implied = frozenset(known.classes if known and superclasses else ())  # columns that follow from the class
    options = "".join(f"?{key}={value}" for key, value in sorted(request.options.items()))
    return UndecodedDataSet(
        name=name + options.replace("?", "&").replace("&", "?", 1),
        where=where,
        classes=classes,
        parts={
            split: _part(f"{split} row", table, columns, labels[split], implied)
            for split, table in tables.items()
            if split not in unlabelled
        },
        content=lambda: None if (found := content()) is None else f"{found} {columns.image}",
        superclasses=superclasses,
        skipped=(*skipped, *(f"skipped split {split!r}: no row has a label" for split in unlabelled)),
    )


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of images, labels and groups (empty: no groups), and the class names by index."""

    image: str
    label: str
    group: str
    classes: tuple[str, ...] | None

    @property
    def used(self) -> frozenset[str]:
        """The columns that say what the data set is."""
        return frozenset({self.image, self.label, self.group} - {""})


def _choose_columns(where: str, schema: Any, request: Request, known: KnownDataSet | None) -> _Columns:
    features = _features(schema)
    image = _image_column(where, schema, features, request.options.get("image"))
    label = _label_column(where, schema, features, request.options.get("label") or (known.label if known else None))
    group = request.group_by
    if group and group not in schema.names:
        raise UnknownNameError(
            f"{where} has no column {group!r} (--group-by, data.group_by).", did_you_mean(group, schema.names)
        )
    return _Columns(image, label, group, _class_names(where, label, features, known))


def _check_columns(where: str, tables: Mapping[Split, Table], columns: _Columns) -> None:
    """Check that every split has the columns."""
    for split, table in tables.items():
        if lacking := columns.used - set(table.schema.names):
            raise DataError(f"{where}: {split} has no column {listing(sorted(lacking))}, which train has.", "Add it.")


def _check_labelled(where: str, label: str, labels: Mapping[Split, Labels]) -> list[Split]:
    """Check that every row has a label; returns the splits other than train in which none has one."""
    unlabelled: list[Split] = [
        split for split in labels if split != "train" and len(labels[split]) and (labels[split] < 0).all()
    ]
    for split, found in labels.items():
        if split not in unlabelled and (found < 0).any():
            raise DataError(
                f"{where}: {int((found < 0).sum())} of {len(found)} rows of {split} have no label in {label!r}.",
                "Remove these rows or add labels.",
            )
    return unlabelled


def _features(schema: Any) -> dict[str, Any]:
    """The hub's features, `{column: {"_type": …}}`; empty where the file has none."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def image_column(where: str, schema: Any, wanted: str | None = None) -> str:
    """The column of images of a table with this Arrow schema: `wanted`, or the only or most likely one.

    Raises:
        UnknownNameError: there is no such column of images.
        DataError: there is none, or there are several.
    """
    return _image_column(where, schema, _features(schema), wanted)


def _image_column(where: str, schema: Any, features: dict[str, Any], wanted: str | None) -> str:
    arrow = require("pyarrow", "train")
    images = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in schema.names]
    if not images:
        images = [field.name for field in schema if _holds_bytes(arrow, field.type)]
    return _choose_column(where, "image", "image", images, wanted, _IMAGE_NAMES, schema.names)


def _holds_bytes(arrow: Any, kind: Any) -> bool:
    if arrow.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(arrow, field.type) for field in kind)
    return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))


def _label_column(where: str, schema: Any, features: dict[str, Any], wanted: str | None) -> str:
    arrow = require("pyarrow", "train")
    labels = [name for name, value in features.items() if value.get("_type") == "ClassLabel" and name in schema.names]
    possible = [field.name for field in schema if _can_label(arrow, field.type)]
    if wanted is not None and wanted in possible:
        return wanted
    return _choose_column(
        where,
        "label",
        "label",
        labels or [name for name in possible if name in _LABEL_NAMES],
        wanted,
        _LABEL_NAMES,
        possible,
    )


def _can_label(arrow: Any, kind: Any) -> bool:
    is_ = arrow.types
    if is_.is_dictionary(kind):
        kind = kind.value_type
    return bool(is_.is_integer(kind) or is_.is_boolean(kind) or is_.is_string(kind) or is_.is_large_string(kind))


def _choose_column(
    where: str, what: str, option: str, found: list[str], wanted: str | None, usual: tuple[str, ...], every: list[str]
) -> str:
    """The column selected by the user, or the only or most likely one."""
    if wanted is not None:
        if wanted in found:
            return wanted
        raise UnknownNameError(f"{where} has no {what} column {wanted!r}.", did_you_mean(wanted, found or every))
    if len(found) == 1:
        return found[0]
    for name in usual:
        if name in found:
            return name
    if found:
        raise DataError(f"{where} has several {what} columns: {listing(found)}.", f"Choose one: ?{option}={found[0]}")
    raise DataError(
        f"{where} has no {what} column; its columns are {listing(every) or 'none'}.", f"Name one with ?{option}=…"
    )


def _class_names(
    where: str, label: str, features: dict[str, Any], known: KnownDataSet | None
) -> tuple[str, ...] | None:
    """Class names by index: those of the known data set, else those in the features."""
    names = _listed(features.get(label, {})) or None
    expected = known.classes.get(label) if known else None
    if known is not None and expected is not None and names is not None and names != expected:
        raise DataError(
            f"{where} is not {known.name}: its classes are {listing(names, 3)}; expected {listing(expected, 3)}.",
            "Copy the data again, or load it as a folder: ./folder.",
        )
    return expected or names


def _listed(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names that a feature lists; empty: none."""
    listed: Any = feature.get("names")
    if isinstance(listed, dict):
        listed = [listed[key] for key in sorted(listed, key=int)]
    return tuple(map(str, listed)) if listed else ()


def _indices(
    where: str, label: str, values: Mapping[Split, Any], named: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[Split, Labels]]:
    """Class names, and labels as int64 indices into them, -1 for rows without a label."""
    arrow = require("pyarrow", "train")
    columns = {}
    for split, column in values.items():
        column = column.combine_chunks() if isinstance(column, arrow.ChunkedArray) else column
        columns[split] = column.dictionary_decode() if arrow.types.is_dictionary(column.type) else column
    if all(arrow.types.is_integer(column.type) for column in columns.values()):
        return _from_numbers(where, label, columns, named)
    return _from_texts(where, label, columns, named)


def _from_numbers(
    where: str, label: str, columns: Mapping[Split, Any], named: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[Split, Labels]]:
    found: dict[Split, Labels] = {}
    for split, column in columns.items():
        numbers = column.to_numpy(zero_copy_only=False)
        found[split] = np.maximum(np.nan_to_num(numbers, nan=-1).astype(np.int64), -1)
    present = np.unique(np.concatenate(list(found.values())))
    present = present[present >= 0]
    if named is None:
        indices = {split: np.where(part < 0, -1, np.searchsorted(present, part)) for split, part in found.items()}
        return tuple(map(str, present.tolist())), indices
    if len(present) and present[-1] >= len(named):
        raise DataError(
            f"{where}: {label!r} contains {present[-1]}; expected 0 to {len(named) - 1} for {len(named)} classes.",
            "Correct the labels or the class names.",
        )
    return named, found


def _from_texts(
    where: str, label: str, columns: Mapping[Split, Any], named: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[Split, Labels]]:
    texts = {
        split: [None if cell is None else str(cell) for cell in column.to_pylist()] for split, column in columns.items()
    }
    every = {text for column in texts.values() for text in column if text is not None}
    if named is not None and not every <= set(named):
        raise DataError(
            f"{where}: {label!r} contains {listing(sorted(every - set(named)))}; expected one of {listing(named)}.",
            "Correct the labels or the class names.",
        )
    classes = named or tuple(sorted(every, key=natural_key))
    index: dict[str | None, int] = {text: number for number, text in enumerate(classes)} | {None: -1}
    return classes, {split: np.array([index[text] for text in column], np.int64) for split, column in texts.items()}


def _part(
    prefix: str, table: Table, columns: _Columns, labels: Labels, implied: frozenset[str] = frozenset()
) -> UndecodedPart:
    """A split; columns that are `implied` by the label are not among its other columns."""
    meant = columns.used | implied
    others = tuple(field.name for field in table.schema if field.name not in meant and _is_text(field.type))
    features = _features(table.schema)

    @cache
    def texts(name: str) -> list[str]:
        return list(_texts(table.column(name), features.get(name, {})))

    @cache
    def file_names() -> list[str]:
        return table.file_names(columns.image)

    def stream(rows: Positions) -> Iterator[Source]:
        """Rows are increasing, so one pass over the batches reaches them all."""
        start = done = 0
        for batch in table.batches(columns.image):
            if done == len(rows):
                return
            stop = start + len(batch)
            upto = int(np.searchsorted(rows, stop))
            if upto > done:
                for cell in batch.take(rows[done:upto] - start).to_pylist():
                    yield image_source(cell)
            start, done = stop, upto

    return UndecodedPart(
        labels=labels,
        rows=np.arange(len(labels), dtype=np.int64),
        stream=stream,
        name_of=lambda row: f"{prefix} {row}",
        groups=tuple(_group_names(table.column(columns.group))) if columns.group else None,
        columns=others,
        cells=lambda row: tuple(texts(name)[row] for name in others),
        file_name=lambda row: file_names()[row] if file_names() else "",
    )


def _is_text(kind: Any) -> bool:
    """Whether the values of a column can be written as text."""
    return "binary" not in str(kind)


def _texts(column: Any, feature: Mapping[str, Any]) -> Iterator[str]:
    """The cells of a column as text, class indices as names; empty for empty cells."""
    names = _listed(feature)
    for cell in column.to_pylist():
        if cell is None:
            yield ""
        elif isinstance(cell, int) and 0 <= cell < len(names):
            yield names[cell]
        else:
            yield json.dumps(cell, default=str, ensure_ascii=False) if isinstance(cell, list | dict) else str(cell)


def names_in(cells: Iterable[Any]) -> list[str]:
    """The file names in the cells of a column of images."""
    return [str((isinstance(cell, dict) and cell.get("path")) or "") for cell in cells]


def has_names(kind: Any) -> bool:
    """Whether the type of a column of images has file names beside the images."""
    return bool(require("pyarrow", "train").types.is_struct(kind)) and any(field.name == "path" for field in kind)


def _group_names(column: Any) -> Iterator[str]:
    """The group of each row; empty for a row without one."""
    for cell in column.to_pylist():
        yield "" if cell is None else f"group {cell}"


def image_source(cell: Any) -> Source:
    """The bytes of a cell, or the path in it; an empty cell becomes empty bytes, which decoding reports as an error."""
    if isinstance(cell, dict):
        if not cell.get("bytes") and cell.get("path"):
            return Path(cell["path"])
        cell = cell.get("bytes")
    return bytes(cell) if cell else b""
