"""CIFAR-10 and CIFAR-100 in their official archives, binary and for Python, packed or unpacked.

Alex Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html. Pickles are read without executing them (`pickled`).
"""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from thirtytwo.data import cache
from thirtytwo.data.sources.pickled import MAX_BYTES, as_text, read_pickle
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.split import Positions, Split
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError, UnknownNameError, did_you_mean
from thirtytwo.images.discover import is_folder, natural_key
from thirtytwo.images.render import ppm
from thirtytwo.text import escape_bytes, listing

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE
_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$", re.IGNORECASE)
_MEMBERS, _STRANGE = 32, 8
"""An archive with more files, or more that are not CIFAR's, is another one; the official ones have 9, one of them a
readme.
"""
_FINE, _COARSE = "fine_label", "coarse_label"


@dataclass(frozen=True)
class Layout:
    """One of the four official layouts.

    Attributes:
        kind: of the files.
        names: patterns of the files of training and of test images.
        meta: the files with class names; of the binary version of CIFAR-100 first those of the fine labels.
        labels: names of the label columns in the order of their bytes.
        folder: name of the unpacked folder.
        archive: name of the archive.
    """

    kind: Literal["binary", "python"]
    names: Mapping[Split, str]
    meta: tuple[str, ...]
    labels: tuple[str, ...]
    folder: str
    archive: str


BINARY_10 = Layout(
    "binary",
    {"train": r"data_batch_\d+\.bin", "test": r"test_batch\.bin"},
    ("batches.meta.txt",),
    ("label",),
    "cifar-10-batches-bin",
    "cifar-10-binary.tar.gz",
)
BINARY_100 = Layout(
    "binary",
    {"train": r"train\.bin", "test": r"test\.bin"},
    ("fine_label_names.txt", "coarse_label_names.txt"),
    (_COARSE, _FINE),
    "cifar-100-binary",
    "cifar-100-binary.tar.gz",
)
PYTHON_10 = Layout(
    "python",
    {"train": r"data_batch_\d+", "test": r"test_batch"},
    ("batches.meta",),
    ("label",),
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
)
PYTHON_100 = Layout(
    "python",
    {"train": r"train", "test": r"test"},
    ("meta",),
    (_COARSE, _FINE),
    "cifar-100-python",
    "cifar-100-python.tar.gz",
)
LAYOUTS = (BINARY_10, BINARY_100, PYTHON_10, PYTHON_100)
_PICKLED = {"label": "labels", _FINE: "fine_labels", _COARSE: "coarse_labels"}
_META = {"label": "label_names", _FINE: "fine_label_names", _COARSE: "coarse_label_names"}


@dataclass(frozen=True)
class _Found:
    """An archive or folder, its layout, and the names of its files."""

    place: Path
    layout: Layout
    files: tuple[str, ...]

    def of(self, split: Split) -> list[str]:
        """Names of the files of a split, in order."""
        pattern = re.compile(self.layout.names[split])
        return sorted((name for name in self.files if pattern.fullmatch(name)), key=natural_key)


def find_cifar(root: Path, labels: Sequence[str] = ()) -> Path | None:
    """The official archive or folder that `root` is, or that lies in it; None where there is none.

    Args:
        root: a file or folder.
        labels: only those whose label columns are these.
    """
    candidates = [root]
    if is_folder(root):
        candidates += [root / name for layout in LAYOUTS for name in (layout.folder, layout.archive)]
    for place in candidates:
        found = _recognized(place)
        if found is not None and (not labels or sorted(found.layout.labels) == sorted(labels)):
            return place
    return None


def open_cifar(root: Path, request: Request, known: KnownDataSet | None = None) -> UndecodedDataSet:
    """Open CIFAR-10 or CIFAR-100 in an official archive; `?label=coarse_label` chooses the superclasses of CIFAR-100.

    Raises:
        UnknownNameError: no such label.
        DataError: damaged or incomplete files, or other classes than those of `known`.
    """
    place = find_cifar(root)
    found = _recognized(place) if place is not None else None
    assert found is not None
    where = str(found.place)
    refuse_options(request, where, ("label",))
    columns = tuple(reversed(found.layout.labels))  # the fine labels are the classes
    label = request.options.get("label", columns[0])
    if label not in columns:
        raise UnknownNameError(f"{where} has no label column {label!r}.", did_you_mean(label, columns))
    names = _class_names(found)
    if known is not None and known.classes.get(label) != names[label]:
        raise DataError(
            f"{where} is not {known.name}: its classes are {listing(names[label], 3)}.", "Copy the data again."
        )
    _check_batches(found, where)
    splits: list[Split] = [split for split in ("train", "test") if found.of(split)]
    if "train" not in splits and not (request.whole and splits):
        raise DataError(f"{where} has no training images.", f"Expected files such as {found.layout.names['train']}.")
    columns_of = {split: _labels(found, split, names) for split in splits}
    option = f"?label={label}" if "label" in request.options else ""
    return UndecodedDataSet(
        name=(known.name if known else escape_bytes(re.sub(_ARCHIVE, "", found.place.resolve().name))) + option,
        where=where,
        classes=names[label],
        parts={split: _part(found, split, columns_of[split], label) for split in splits},
        content=lambda: cache.content_key(found.place.parent, _paths(found)),
        superclasses=_superclasses(names, columns_of) if label == _FINE else None,
    )


def _check_batches(found: _Found, where: str) -> None:
    """Check that no training batch before the last is missing, as after an incomplete download.

    Raises:
        DataError: one is missing.
    """
    numbers = [int(match[1]) for name in found.of("train") if (match := re.fullmatch(r"data_batch_(\d+).*", name))]
    if missing := [number for number in range(1, max(numbers, default=0)) if number not in numbers]:
        names = listing([f"data_batch_{number}" for number in missing])
        raise DataError(f"{where} lacks {names}, of which there are later ones.", "Copy or download the data again.")


def _recognized(place: Path) -> _Found | None:
    """The layout of a folder or archive; None for anything else.

    Raises:
        DataError: a file with the name of an official archive, but without its content.
    """
    names = _names(place)
    for layout in LAYOUTS:
        own = tuple(name for name in names if any(re.fullmatch(pattern, name) for pattern in _patterns(layout)))
        if set(layout.meta) <= set(own) and len(own) > len(layout.meta):
            return _Found(place, layout, own)
    if place.name in {layout.archive for layout in LAYOUTS} and os.path.isfile(place):  # noqa: PTH113
        raise DataError(f"{place} is damaged or incomplete.", "Download it again.")
    return None


def _names(place: Path) -> tuple[str, ...]:
    """Names of the files in a folder or archive; none for anything else."""
    try:
        if is_folder(place):
            return tuple(entry.name for entry in os.scandir(place) if entry.is_file())
        if _ARCHIVE.search(place.name) and place.is_file():
            state = place.stat()
            return _packed_names(place, state.st_size, state.st_mtime_ns)
    except OSError:
        pass
    return ()


@lru_cache(maxsize=16)
def _packed_names(place: Path, size: int, modified: int) -> tuple[str, ...]:
    """Names of the files in an archive, up to where it is known not to be CIFAR's; size and time are for the cache."""
    known = re.compile("|".join(f"({pattern})" for layout in LAYOUTS for pattern in _patterns(layout)))
    found: list[str] = []
    strange = 0
    with suppress(OSError, tarfile.TarError, EOFError, zlib.error), tarfile.open(place) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            strange += member.isreg() and not known.fullmatch(name)
            if strange > _STRANGE or member.size > MAX_BYTES or len(found) > _MEMBERS:
                return ()
            if member.isreg():
                found.append(name)
    return tuple(found)


def _patterns(layout: Layout) -> list[str]:
    return [*layout.names.values(), *map(re.escape, layout.meta)]


def _paths(found: _Found) -> list[Path]:
    return [found.place / name for name in found.files] if is_folder(found.place) else [found.place]


def _contents(found: _Found, names: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of these names in this order; an archive is read once, with the files in memory.

    Raises:
        DataError: a file cannot be read, or is too large.
    """
    try:
        if is_folder(found.place):
            for name in names:
                with (found.place / name).open("rb") as stream:
                    _check_size(found, name, os.fstat(stream.fileno()).st_size)
                    yield name, stream
            return
        packed = dict(_unpacked(found, set(names)))
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{found.place} cannot be read: {error.strerror}.", "Check its permissions.") from None
        raise DataError(f"{found.place} is damaged or incomplete.", "Download it again.") from None
    for name in names:
        yield name, io.BytesIO(packed.pop(name))


def _unpacked(found: _Found, names: set[str]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(found.place) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            if name in names and member.isreg():
                _check_size(found, name, member.size)
                stream = archive.extractfile(member)
                names.discard(name)
                yield name, stream.read() if stream is not None else b""
            if not names:
                return


def _check_size(found: _Found, name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(
            f"{name} in {found.place} has {size:,} bytes; expected at most {MAX_BYTES:,}.", "Download it again."
        )


def _class_names(found: _Found) -> dict[str, tuple[str, ...]]:
    """Class names of each label column."""
    layout, columns = found.layout, tuple(reversed(found.layout.labels))
    if layout.kind == "binary":
        texts = [stream.read().decode("utf-8", "replace") for _, stream in _contents(found, layout.meta)]
        return {
            column: tuple(line for line in text.splitlines() if line)
            for column, text in zip(columns, texts, strict=True)
        }
    named: dict[str, tuple[str, ...]] = {}
    for name, stream in _contents(found, layout.meta):
        lists = read_pickle(stream, f"{name} in {found.place}")
        for column in columns:
            values = lists.get(_META[column])
            if not isinstance(values, list) or not values:
                raise DataError(f"{name} in {found.place} has no {_META[column]!r}.", "Download the archive again.")
            named[column] = tuple(map(as_text, values))
    return named


@dataclass(frozen=True, eq=False)
class _Batch:
    """The content of a file: label columns, int64 `(N,)`, and pixels, uint8 `(N, 3072)`, a plane for each channel."""

    labels: Mapping[str, Positions]
    pixels: npt.NDArray[np.uint8]


def _batches(found: _Found, names: Sequence[str]) -> Iterator[_Batch]:
    for name, stream in _contents(found, names):
        where = f"{name} in {found.place}"
        read = _binary_batch if found.layout.kind == "binary" else _python_batch
        yield read(stream, where, found.layout.labels)


def _binary_batch(stream: IO[bytes], where: str, columns: Sequence[str]) -> _Batch:
    content, record = stream.read(), len(columns) + PIXEL_BYTES
    if not content or len(content) % record:
        raise DataError(
            f"{where} has {len(content):,} bytes, which is not a multiple of {record:,}, the size of an image.",
            "Unpack or download the archive again.",
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    labels = {column: records[:, place].astype(np.int64) for place, column in enumerate(columns)}
    return _Batch(labels, records[:, len(columns) :])


def _python_batch(stream: IO[bytes], where: str, columns: Sequence[str]) -> _Batch:
    batch = read_pickle(stream, where)
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.shape[1:] != (PIXEL_BYTES,):
        raise DataError(f"{where} has no images: its 'data' is not an array (N, {PIXEL_BYTES}).", "Download it again.")
    labels = {column: _integers(batch.get(_PICKLED[column]), len(pixels), where) for column in columns}
    return _Batch(labels, pixels)


def _integers(values: Any, count: int, where: str) -> Positions:
    if not isinstance(values, list) or len(values) != count or not all(type(value) is int for value in values):
        raise DataError(f"{where} has no list of {count:,} labels.", "Download the archive again.")
    return np.array(values, dtype=np.int64)


def _labels(found: _Found, split: Split, names: Mapping[str, Sequence[str]]) -> list[Mapping[str, Positions]]:
    """The label columns of each file of a split.

    Raises:
        DataError: a label without a class name.
    """
    columns = [batch.labels for batch in _batches(found, found.of(split))]
    for column, known in names.items():
        for values in (own[column] for own in columns):
            if len(values) and not 0 <= values.min() <= values.max() < len(known):
                raise DataError(
                    f"{found.place}: {split} has the {column} {values.max()}; expected 0 to {len(known) - 1}.",
                    "Unpack or download the archive again.",
                )
    return columns


def _superclasses(
    names: Mapping[str, Sequence[str]], columns: Mapping[Split, list[Mapping[str, Positions]]]
) -> dict[str, str] | None:
    """The superclass of each class, as the records say; None where a class has two or no images."""
    pairs: set[tuple[int, int]] = set()
    for own in (own for parts in columns.values() for own in parts):
        pairs |= set(zip(own[_FINE].tolist(), own[_COARSE].tolist(), strict=True))
    found = dict(pairs)
    if len(found) != len(pairs) or len(found) != len(names[_FINE]):
        return None
    return {names[_FINE][fine]: names[_COARSE][found[fine]] for fine in sorted(found)}


def _part(found: _Found, split: Split, columns: list[Mapping[str, Positions]], label: str) -> UndecodedPart:
    labels = [own[label] for own in columns]
    ends = np.cumsum([len(own) for own in labels])

    def stream(rows: Positions) -> Iterator[bytes]:
        files = found.of(split)
        wanted = [
            rows[(rows >= end - len(own)) & (rows < end)] - (end - len(own))
            for own, end in zip(labels, ends, strict=True)
        ]
        used = [place for place, own in enumerate(wanted) if len(own)]
        for place, batch in zip(used, _batches(found, [files[place] for place in used]), strict=True):
            for row in wanted[place]:
                yield ppm(batch.pixels[row].reshape(3, SIDE, SIDE).transpose(1, 2, 0))

    return UndecodedPart(
        labels=np.concatenate(labels),
        rows=np.arange(sum(map(len, labels)), dtype=np.int64),
        stream=stream,
        name_of=lambda row: f"{split} row {row}",
    )
