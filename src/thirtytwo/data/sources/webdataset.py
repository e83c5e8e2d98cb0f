"""Tar files in the layout of WebDataset: `KEY.jpg` with `KEY.cls` and, optionally, `KEY.json`.

Files are read directly from the tar files; nothing is unpacked.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.manifest import CLASSES
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.split import SPLITS, Positions, Split, split_of
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError
from thirtytwo.images.discover import SUFFIXES, natural_key
from thirtytwo.text import escape_bytes, listing

_LABEL = ".cls"
_DETAILS = ".json"
_MOST = 2**20
"""Largest size of a label or of details, in bytes."""


@dataclass
class _Sample:
    """An image in a tar file: where it is, its file name, and its label as written."""

    key: str
    file: Path
    start: int = -1
    size: int = 0
    name: str = ""
    label: str | None = None
    group: str = ""


def find_webdataset(root: Path) -> list[Path]:
    """The tar files in a folder in natural order, if `classes.txt` or the name of a split says that they are data."""
    try:
        found = [entry for entry in root.iterdir() if entry.suffix == ".tar" and not entry.name.startswith(".")]
    except OSError:
        return []
    if not any(split_of(file.stem) for file in found) and not os.path.isfile(root / CLASSES):  # noqa: PTH113
        return []
    return sorted(found, key=lambda file: natural_key(file.name))


def open_webdataset(root: Path, request: Request, known: KnownDataSet | None = None) -> UndecodedDataSet:
    """Open a folder of tar files such as `train-000000.tar`; files whose names contain no split are training images.

    Labels are indices into the lines of `classes.txt`, or names.

    Raises:
        DataError: a damaged file, or a sample without an image or label.
    """
    refuse_options(request, str(root), ())
    files = find_webdataset(root)
    samples: dict[Split, list[_Sample]] = {}
    for file in files:
        samples.setdefault(split_of(file.stem) or "train", []).extend(_samples(file))
    if "train" not in samples and not (request.whole and samples):
        raise DataError(f"{root} has no train split; found {', '.join(samples)}.", "Add train-000000.tar.")
    labels = {str(sample.label) for own in samples.values() for sample in own}
    classes, index = _class_index(root, labels)
    return UndecodedDataSet(
        name=escape_bytes(root.resolve().name),
        where=str(root),
        classes=classes,
        parts={split: _part(samples[split], index) for split in SPLITS if split in samples},
        content=lambda: cache.content_key(root, files),
    )


def _samples(file: Path) -> list[_Sample]:
    """The samples of a tar file, in their order.

    Raises:
        DataError: it is damaged, or a sample has no image or label.
    """
    found: dict[str, _Sample] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if member.isreg() and not member.name.rsplit("/", 1)[-1].startswith("."):
                    _add(found, file, archive, member)
    except (tarfile.TarError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file} cannot be read: {error.strerror}.", "Check its permissions.") from None
        what = "is damaged, or its end is missing" if found else "is not a tar file, or is damaged"
        raise DataError(f"{file} {what}.", "Copy it again.") from None
    wrong = [one.key for one in found.values() if one.start < 0 or one.label is None]
    if wrong:
        raise DataError(
            f"{file} has {len(wrong):,} samples without an image or without a label: {listing(wrong, 3)}.",
            "Expected KEY.jpg or KEY.png with KEY.cls.",
        )
    return list(found.values())


def _add(found: dict[str, _Sample], file: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    folder, _, name = member.name.rpartition("/")
    stem, dot, suffix = name.partition(".")
    key, suffix = f"{folder}/{stem}" if folder else stem, (dot + suffix).lower()
    sample = found.setdefault(key, _Sample(key, file))
    if suffix in SUFFIXES:
        sample.start, sample.size, sample.name = member.offset_data, member.size, name
    elif suffix == _LABEL:
        sample.label = _text(archive, member).strip()
    elif suffix == _DETAILS:
        try:
            sample.group = str(json.loads(_text(archive, member)).get("group", ""))
        except (ValueError, AttributeError):  # details are free
            return


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = archive.extractfile(member)
    return "" if stream is None else stream.read(_MOST).decode("utf-8", "replace")


def _class_index(root: Path, labels: set[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, and the index of each label: the lines of `classes.txt`, else the labels in natural order."""
    try:
        names = tuple((root / CLASSES).read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError):
        names = tuple(sorted(labels, key=natural_key))
        return names, {name: number for number, name in enumerate(names)}
    numbers = {str(number): number for number in range(len(names))}
    index = numbers if labels <= set(numbers) else {name: number for number, name in enumerate(names)}
    if unknown := labels - set(index):
        raise DataError(
            f"{root} has the labels {listing(sorted(unknown), 3)}; expected 0 to {len(names) - 1} or the lines of "
            f"{CLASSES}.",
            "Correct the list of classes.",
        )
    return names, index


def _part(samples: Sequence[_Sample], index: Mapping[str, int]) -> UndecodedPart:
    def stream(rows: Positions) -> Iterator[bytes]:
        opened: tuple[Path, IO[bytes]] | None = None
        try:
            for sample in (samples[row] for row in rows):
                if opened is None or opened[0] != sample.file:
                    if opened is not None:
                        opened[1].close()
                    opened = (sample.file, sample.file.open("rb"))
                opened[1].seek(sample.start)
                yield opened[1].read(sample.size)
        finally:
            if opened is not None:
                opened[1].close()

    groups = tuple(f"group {one.group}" if one.group else "" for one in samples)
    return UndecodedPart(
        labels=np.array([index[str(sample.label)] for sample in samples], dtype=np.int64),
        rows=np.arange(len(samples), dtype=np.int64),
        stream=stream,
        name_of=lambda row: f"{samples[row].file.name}: {samples[row].key}",
        random_access=True,
        groups=groups if any(sample.group for sample in samples) else None,
        file_name=lambda row: samples[row].name,
    )
