"""Classes from folders: which class each file of an uploaded folder or ZIP file belongs to, and what is left out."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Generic, TypeVar

from thirtytwo.data.split import split_of
from thirtytwo.errors import InputError
from thirtytwo.fewshot import MOST, MOST_CLASSES
from thirtytwo.images.discover import HEIC_SUFFIXES, IMAGE_SUFFIXES, is_junk, natural_key
from thirtytwo.text import counted

SUFFIXES = IMAGE_SUFFIXES | HEIC_SUFFIXES
_DAMAGED = "Make the ZIP file again, without a password."

_UNPACKING = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),  # unknown methods, passwords, negative sizes
)

File = TypeVar("File")


@dataclass(frozen=True)
class ClassFolders(Generic[File]):
    """Files by class in natural order, with their names, and notes on what was left out, as sentences."""

    classes: dict[str, list[tuple[str, File]]]
    notes: tuple[str, ...]


def group_by_class(files: Iterable[tuple[str, File]], name: str = "") -> ClassFolders[File]:
    """Group files by the class that their relative path names.

    The folders in the uploaded folder are the classes; files in deeper folders belong to them. If they are `train` and
    other splits, the folders in `train` are the classes. A folder or a ZIP file that has only images is one class. Of a
    class with more images than a model can be taught with, some are chosen evenly.

    Args:
        files: relative paths, with slashes or backslashes, and something that stands for their content.
        name: what they were in, such as a ZIP file: the name of the class where all images are directly in it.

    Raises:
        InputError: there are no images in folders, or too many classes.
    """
    found, others = _image_paths(files)
    if name and all(len(path) == 1 for path, _ in found):
        found = [((name, *path), file) for path, file in found]
    parts = _without_root([path for path, _ in found])
    split = "train" in {split_of(path[0]) for path in parts if len(path) > 2}
    skipped: Counter[str] = Counter({"not an image": others} if others else {})
    classes: dict[str, list[tuple[str, File]]] = {}
    for path, (_, file) in zip(parts, found, strict=True):
        inside = path[1:] if split else path
        if split and split_of(path[0]) != "train":
            skipped["not in the folder train"] += 1
        elif len(inside) < 2:
            skipped["not in a folder"] += 1
        else:
            classes.setdefault(" ".join(inside[0].split()), []).append((inside[-1], file))
    if not classes:
        raise InputError(
            "There are no images in folders.", "Choose a folder with one subfolder of images for each class."
        )
    if len(classes) > MOST_CLASSES:
        raise InputError(
            f"There are {len(classes):,} folders; a model is taught at most {MOST_CLASSES} classes.",
            "Choose a folder with fewer subfolders, or train on all of them on the page Train.",
        )
    notes = [f"{counted(count, 'file')} left out: {why}." for why, count in skipped.items()]
    notes += [
        f"{MOST} of the {len(inside):,} images of {name!r} were added, which is the maximum."
        for name, inside in classes.items()
        if len(inside) > MOST
    ]
    ordered = {name: _evenly(classes[name]) for name in sorted(classes, key=natural_key)}
    return ClassFolders(ordered, tuple(notes))


def open_zip(source: Path | IO[bytes], name: str) -> zipfile.ZipFile:
    """Open a ZIP file.

    Raises:
        InputError: it is not a ZIP file, or has a password.
    """
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError):
        raise InputError(f"{name} is not a ZIP file, or damaged.", _DAMAGED) from None
    if any(entry.flag_bits & 1 for entry in archive.infolist()):
        archive.close()
        raise InputError(f"{name} has a password.", _DAMAGED)
    return archive


def zip_entries(archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Relative path and entry of each file in a ZIP file."""
    return ((entry.filename, entry) for entry in archive.infolist() if not entry.is_dir())


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes | None:
    """Content of an entry of a ZIP file; None if it is larger than `most` bytes or damaged.

    The declared size is not trusted: at most `most` bytes are unpacked.
    """
    try:
        with archive.open(entry) as stream:
            data = stream.read(most + 1)
    except _UNPACKING:
        return None
    return data if len(data) <= most else None


def _image_paths(files: Iterable[tuple[str, File]]) -> tuple[list[tuple[tuple[str, ...], File]], int]:
    """Parts of the path of each image, without those of the system, and the number of other files."""
    found, others = [], 0
    for name, file in files:
        path = tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", ".", ".."})
        if not path or any(is_junk(part) for part in path):
            continue
        if PurePosixPath(path[-1]).suffix.lower() in SUFFIXES:
            found.append((path, file))
        else:
            others += 1
    return found, others


def _without_root(paths: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The paths without folders that contain everything, except one that has images directly in it."""
    while paths and all(len(path) > 2 and path[0] == paths[0][0] for path in paths):
        paths = [path[1:] for path in paths]
    if paths and len({path[0] for path in paths}) == 1 and {len(path) for path in paths} != {2}:
        paths = [path[1:] if len(path) > 1 else path for path in paths]  # loose images beside the class folders
    return list(paths)


def _evenly(files: list[tuple[str, File]]) -> list[tuple[str, File]]:
    ordered = sorted(files, key=lambda file: natural_key(file[0]))
    if len(ordered) <= MOST:
        return ordered
    return [ordered[place * len(ordered) // MOST] for place in range(MOST)]
