"""Folders of images: one folder per class, inside `train/`, `val/` and `test/` or directly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TypeAlias

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.build import build_dataset
from thirtytwo.data.manifest import OWN_FILES, read_manifest, restored
from thirtytwo.data.sources.cifar_archive import find_cifar, open_cifar
from thirtytwo.data.sources.csvfile import find_csv, open_csv
from thirtytwo.data.sources.npz import find_npz, open_npz
from thirtytwo.data.sources.parquet import find_parquet, open_parquet
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.sources.webdataset import find_webdataset, open_webdataset
from thirtytwo.data.split import Positions, Split, split_of
from thirtytwo.data.types import DataSet, Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError
from thirtytwo.images.discover import (
    HEIC,
    LOST_AND_FOUND,
    UNREADABLE,
    has_image_content,
    hidden_classes,
    is_folder,
    is_junk,
    list_images,
    natural_key,
    needs_attention,
    split_by_content,
)
from thirtytwo.images.formats import FORMATS, HEIF_INSTALL
from thirtytwo.inputs import archive_error
from thirtytwo.text import counted, escape_bytes

_EMPTY = "folder without images"
_CORRECT = "Correct its permissions"
_INSTALL_NOTE = "; to read them: pip install pillow-heif"
_LAYOUT = (
    "Expected <folder>/<class>/image.jpg, or <folder>/train/<class>/image.jpg and <folder>/test/<class>/image.jpg."
)


def open_folder(root: Path, request: Request) -> UndecodedDataSet:
    """List a data set in a folder of images.

    Split folders `train`, `val` and `test` (also `training`, `valid`, `validation`, `testing`) contain one folder per
    class; without split folders, the folders in `root` are the classes. Images in deeper folders belong to the class
    folder. `files` are relative to `root`.

    Raises:
        DataError: no images, only one class of folders with folders inside, two folders for one split, or a folder that
            cannot be read and is not to be left out.
    """
    refuse_options(request, str(root), ())
    skipped: list[str] = []
    warnings: list[str] = []
    folders = _split_folders(root, skipped, request.whole)
    advice = f"{_CORRECT}, or leave it out with --skip-unreadable." if request.unreadable is None else None
    found = {name: _labelled(root, folder, skipped, warnings, advice) for name, folder in folders.items()}
    classes = tuple(sorted({label for images in found.values() for label, _ in images}, key=natural_key))
    if len(classes) == 1 and not request.whole:
        _hint_one_deeper(root / classes[0])
    files = [path for images in found.values() for _, path in images]
    return UndecodedDataSet(
        name=escape_bytes(root.resolve().name),
        where=escape_bytes(str(root)),
        classes=classes,
        parts=_grouped(root, {name: _part(root, images, classes) for name, images in found.items()}, request),
        content=lambda: cache.content_key(root, files),
        skipped=(*warnings, *skipped),
        warnings=tuple(warnings),
        all_in_all=True,
    )


def class_images(root: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Training images of each class of a folder, by class in natural order, and notes on what was skipped.

    The layout is that of `open_folder`; of split folders, only `train` is used. A class folder without images has an
    empty list.

    Raises:
        DataError: no images, split folders without `train`, or a folder that cannot be read.
    """
    skipped: list[str] = []
    warnings: list[str] = []
    splits = _split_folders(root, skipped, whole=False)
    skipped += [
        f"skipped {_relative(root, path)}: not in the train folder" for name, path in splits.items() if name != "train"
    ]
    folder = splits["train"]
    labelled = _labelled(root, folder, skipped, warnings, f"{_CORRECT}.")
    found: dict[str, list[Path]] = {
        escape_bytes(entry.name): []
        for entry in _entries(folder)
        if is_folder(entry) and not _is_left_out(_relative(root, entry), [*skipped, *warnings])
    }
    for name, path in labelled:
        found.setdefault(name, []).append(path)
    return found, [*warnings, *skipped]


def _is_left_out(name: str, notes: list[str]) -> bool:
    """Whether a folder was skipped for another reason than that it has no images."""
    start = f"skipped {name}: "
    return any(note.startswith(start) and not note.endswith(_EMPTY) for note in notes)


def _split_folders(root: Path, skipped: list[str], whole: bool) -> dict[Split, Path]:
    """Folder of each split; `{"train": root}` where the folders are classes."""
    splits: dict[Split, Path] = {}
    entries = _entries(root)
    for entry in entries:
        name = split_of(entry.name) if is_folder(entry) else None
        if name in splits:
            raise DataError(f"{root} has two folders for {name}: {splits[name].name} and {entry.name}.", "Keep one.")
        if name is not None:
            splits[name] = entry
    if not splits:
        return {"train": root}
    if "train" not in splits and not whole:
        raise DataError(
            f"{root} has {' and '.join(sorted(folder.name for folder in splits.values()))}, but no train folder.",
            "Add train/ with one folder per class; rename class folders with the name of a split.",
        )
    others = [entry for entry in entries if entry not in splits.values()]
    skipped += [f"skipped {_relative(root, entry)}: not in a split folder" for entry in others]
    return splits


def _labelled(
    root: Path, folder: Path, skipped: list[str], warnings: list[str], advice: str | None
) -> list[tuple[str, Path]]:
    """Class name and path of each image of a split, by class in natural order.

    Appends to `skipped` what was skipped, and to `warnings` what its owner should know about. A folder that cannot be
    read is an error with this `advice`; None: it is left out.
    """
    entries = _entries(folder)
    loose, passed_over = split_by_content(entry for entry in entries if not is_folder(entry))
    passed_over += [(path, "image outside of the class folders") for path in loose]
    images: list[tuple[str, Path]] = []
    for entry in entries:
        if is_folder(entry):
            inside, junk = list_images(entry, named=False)
            is_named = any(path == entry for path, _ in junk)
            passed_over += junk if inside or is_named else [*junk, (entry, _EMPTY)]
            images += [(escape_bytes(entry.name), path) for path in inside]
    if advice is not None:
        _refuse_closed(root, passed_over, advice)
    notes, serious = _notes(root, passed_over)
    serious += [
        f"skipped {_relative(root, path)}: hidden folder with {count} images; rename it to use it as a class"
        for path, count in hidden_classes(folder)
    ]
    if not images:
        where, reasons = escape_bytes(str(folder)), f": {'; '.join(serious[:3])}" if serious else ""
        if found := sum(map(has_image_content, loose)):
            count = f"{found:,} image{'s' * (found > 1)}"
            raise DataError(f"{where} contains {count}, but none in a class folder{reasons}.", _LAYOUT)
        if any(reason == HEIC for _, reason in passed_over):
            reasons = reasons.replace(_INSTALL_NOTE, "")  # the advice says it
            raise DataError(f"{where} contains no images that can be read here{reasons}.", HEIF_INSTALL)
        archives = (archive_error(path, "a folder of images") for path, _ in passed_over if path.parent == folder)
        if archive := next(filter(None, archives), None):
            raise archive
        raise DataError(f"{where} contains no images{reasons}.", f"{_LAYOUT} Supported formats: {FORMATS}.")
    skipped += notes
    warnings += serious
    return images


def _refuse_closed(root: Path, passed_over: list[tuple[Path, str]], advice: str) -> None:
    """Check that no folder was passed over because it cannot be read: its class, or part of it, would be missing.

    Raises:
        DataError: one was, other than the one that file systems keep for repairs.
    """
    closed = [(path, reason) for path, reason in passed_over if reason.startswith(UNREADABLE)]
    closed = [(path, reason) for path, reason in closed if path.name != LOST_AND_FOUND]
    if closed:
        path, reason = closed[0]
        more = f", nor can {counted(len(closed) - 1, 'other folder')}" if len(closed) > 1 else ""
        raise DataError(f"The folder {_relative(root, path)} of {escape_bytes(str(root))} {reason}{more}.", advice)


def is_refused(note: str) -> bool:
    """Whether a note on what was left out is on a folder that training refuses, unless it is to leave it out too."""
    skipped, found, _ = note.partition(f": {UNREADABLE}: ")
    return bool(found) and PurePath(skipped.removeprefix("skipped ")).name != LOST_AND_FOUND


def _notes(root: Path, passed_over: list[tuple[Path, str]]) -> tuple[list[str], list[str]]:
    """Notes on skipped files and folders; those that their owner should know about come apart."""
    heic = [path for path, reason in passed_over if reason == HEIC]
    others = [(path, reason) for path, reason in passed_over if reason != HEIC]
    every = [(f"skipped {_relative(root, path)}: {reason}", needs_attention(reason)) for path, reason in others]
    notes, serious = ([text for text, needs in every if needs is wanted] for wanted in (False, True))
    if heic:
        first = _relative(root, heic[0])
        serious.append(f"skipped {counted(len(heic), 'HEIC image')}, such as {first}{_INSTALL_NOTE}")
    return notes, serious


def _part(root: Path, images: list[tuple[str, Path]], classes: tuple[str, ...]) -> UndecodedPart:
    index = {label: number for number, label in enumerate(classes)}
    files = tuple(_relative(root, path) for _, path in images)

    def stream(rows: Positions) -> Iterator[Path]:
        return (images[row][1] for row in rows)

    return UndecodedPart(
        labels=np.array([index[label] for label, _ in images], dtype=np.int64),
        rows=np.arange(len(images), dtype=np.int64),
        stream=stream,
        name_of=files.__getitem__,
        files=files,
        random_access=True,
    )


def _grouped(root: Path, parts: dict[Split, UndecodedPart], request: Request) -> dict[Split, UndecodedPart]:
    """Add the group of each image: the match of the pattern `group_by` in its path, or the first capture group.

    An image without a match, or with an empty one, is in no group.

    Raises:
        DataError: not a regular expression, or it matches no path.
    """
    if not request.group_by:
        return parts
    try:
        pattern = re.compile(request.group_by)
    except re.error as error:
        raise DataError(
            f"The pattern {request.group_by!r} of --group-by (data.group_by) is not valid: {error}.",
            r"Expected a regular expression such as '/(patient\d+)_'.",
        ) from None

    def group(file: str) -> str | None:
        found = pattern.search(file)
        return None if found is None else (found[1] if pattern.groups else found[0]) or None

    named = {name: [group(file) for file in part.files or ()] for name, part in parts.items()}
    if not any(one is not None for groups in named.values() for one in groups):
        example = next(file for part in parts.values() for file in part.files or ())
        raise DataError(
            f"The pattern {request.group_by!r} of --group-by (data.group_by) matches none of the files in {root}.",
            f"It is searched in paths such as {example!r}; put the part that names the group in parentheses.",
        )
    return {
        name: replace(
            part,
            groups=tuple("" if one is None else f"group {one}" for one in named[name]),
        )
        for name, part in parts.items()
    }


def _hint_one_deeper(folder: Path) -> None:
    """Detect an archive that was unpacked into an additional folder.

    Raises:
        DataError: `folder`, the only class, contains several folders and is probably the data set itself.
    """
    if is_folder(folder) and len([entry for entry in _entries(folder) if is_folder(entry)]) > 1:
        raise DataError(
            f"{folder.parent} has images of only one class, {folder.name!r}, which contains folders.",
            f"Did you mean {str(folder)!r}?",
        )


def _entries(folder: Path) -> list[Path]:
    """Direct content of a folder in natural order, without hidden and system folders, and files of `data export`.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        inside = [
            entry
            for entry in folder.iterdir()
            if entry.name not in OWN_FILES and not (is_junk(entry.name) and is_folder(entry))
        ]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from None
    return sorted(inside, key=lambda entry: natural_key(entry.name))


def _relative(root: Path, path: Path) -> str:
    return escape_bytes(path.relative_to(root).as_posix())


def is_data_file(path: Path) -> bool:
    """Whether a path is a file that is a data set: a table, arrays, or an official archive of CIFAR."""
    return not is_folder(path) and any(map(bool, (find_csv(path), find_npz(path), find_cifar(path))))


def open_local(root: Path, request: Request, known: KnownDataSet | None = None) -> UndecodedDataSet:
    """Open a local data set, which is a file or a folder; what `data export` noted of it is restored.

    A folder is read as a table, an archive or arrays only where it has no image files, except for the CSV file that it
    was exported with.
    """
    folder = root if is_folder(root) else root.parent
    manifest = read_manifest(folder)
    if manifest is not None and manifest.data and (root / manifest.data).is_file():
        root = root / manifest.data
    found = _open_layout(root, request, known)
    whole = manifest is not None and root in (folder, folder / manifest.data)
    return restored(found, manifest) if manifest is not None and whole else found


def _open_layout(root: Path, request: Request, known: KnownDataSet | None) -> UndecodedDataSet:
    if table := find_csv(root, request.options.get("label", "")):
        return open_csv(table, request)
    for find, open_found in _LAYOUTS:
        if find(root) and not (is_folder(root) and list_images(root)[0]):
            return open_found(root, request, known)
    return open_folder(root, request)


_Opener: TypeAlias = Callable[[Path, Request, KnownDataSet | None], UndecodedDataSet]
_LAYOUTS: tuple[tuple[Callable[[Path], object], _Opener], ...] = (
    (find_parquet, open_parquet),
    (find_cifar, open_cifar),
    (find_npz, open_npz),
    (find_webdataset, open_webdataset),
)
"""Layouts other than a table or a folder of images: whether a path has it, and what opens it."""


def read_local(root: Path, request: Request, known: KnownDataSet | None = None) -> DataSet:
    """Load a local data set; see `open_local`, and `build_dataset` for the errors."""
    return build_dataset(open_local(root, request, known), request)
