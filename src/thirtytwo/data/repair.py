"""Write a copy of a data set to which a plan of fixes is applied: class folders, within split folders if it has splits.

Images are copied or linked one by one, as they are; those of a table or of data in memory become files. Where folders
cannot say everything, as with groups, a class named `a/b`, or the classes `Cat` and `cat`, `metadata.csv` says it.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thirtytwo.data.apply_fixes import apply_fixes
from thirtytwo.data.fixes import FixPlan
from thirtytwo.data.load import files_folder, open_undecoded, parse
from thirtytwo.data.manifest import MANIFEST, Manifest
from thirtytwo.data.sources.csvfile import METADATA
from thirtytwo.data.split import split_of
from thirtytwo.data.undecoded import Source, UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError
from thirtytwo.images.discover import SUFFIXES, is_junk
from thirtytwo.images.formats import HEAD_BYTES, format_of
from thirtytwo.inputs import refuse_folder_in_data
from thirtytwo.io import atomic_folder, expand_home, folded, free_name, short_name, slug, write_json
from thirtytwo.run_paths import FIXES
from thirtytwo.text import CsvWriter, listing

_GROUP = "group "
"""Before the names of groups, as sources give them."""
_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
"""Suffixes that are not the name of the format."""


@dataclass(frozen=True)
class Written:
    """Number of images written, and of those that were `dropped`, `relabeled` and `moved`; `notes` on what is lost."""

    images: int
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


def write_fixed(
    spec: str,
    plan: FixPlan,
    out: Path,
    *,
    data_root: Path | None = None,
    link: bool = False,
    new_classes: bool = False,
) -> Written:
    """Write a copy of a data set, with the fixes of a plan and the plan itself as `fixes.csv`.

    The folder appears when it is complete; after an error there is none.

    Args:
        spec: the data set, as for `load_dataset`.
        plan: the plan.
        out: folder to create.
        data_root: folder in which known names are searched first.
        link: link files instead of copying them: hard links, or symbolic ones where these are not possible.
        new_classes: whether images may get a class that the data set does not have.

    Raises:
        DataError: the plan does not fit, or there are no files to link.
        OutputError: `out` exists, lies in the data, or cannot be written.
        InputError: an image cannot be read.

    A table can name any file of this computer, so files outside the data that are not images are refused.
    """
    out, found = expand_home(out), parse(spec, data_root=data_root)
    if found.kind == "folder":
        refuse_folder_in_data(out, expand_home(found.name))
    stored = open_undecoded(spec, data_root=data_root)
    if link and any(part.files is None for part in stored.parts.values()):
        raise DataError(f"{spec} has no files of single images to link.", "Leave out --link.")
    fixed = apply_fixes(stored, plan, new_classes=new_classes)
    spaced = [label for label in fixed.data.classes if label != label.strip()]
    if spaced and _needs_table(fixed.data):
        raise DataError(
            f"The copy needs the table {METADATA}, in which the spaces around the names of the classes "
            f"{listing(spaced)} would be lost.",
            "Rename these classes.",
        )
    columns = tuple(dict.fromkeys(name for part in fixed.data.parts.values() for name in part.columns))
    with atomic_folder(out) as folder:
        rows: list[tuple[str, ...]] = []
        place = _link if link else _copy
        for row, target, source in _placed(fixed.data, stored.classes, columns):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(source, files_folder(spec))
            place(source, folder / target)
            rows.append(row)
        if _needs_table(fixed.data):
            _write_rows(folder / METADATA, _header(fixed.data, columns), rows)
        notes = _write_superclasses(folder, fixed.data)
        (folder / FIXES).write_bytes(plan.content)
    return Written(len(rows), fixed.counts, notes)


def _header(data: UndecodedDataSet, columns: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of `metadata.csv`; other columns of the data that have one of these get a number."""
    own = ("file_name", "label", "split", *(("group",) if _is_grouped(data) else ()))
    taken = set(own)
    others = []
    for name in columns:
        others.append(free_name(name, taken))
        taken.add(folded(others[-1]))
    return (*own, *others)


def _write_superclasses(folder: Path, data: UndecodedDataSet) -> tuple[str, ...]:
    """Write the superclasses and the order of the classes, which folders cannot say; a note where it is impossible."""
    if not data.superclasses:
        return ()
    present = {int(label) for part in data.parts.values() for label in part.labels}
    classes = tuple(name for index, name in enumerate(data.classes) if index in present)
    if missing := [name for name in classes if name not in data.superclasses]:
        return (f"superclasses are not kept: {listing(missing)} has none",)
    manifest = Manifest("", classes, {name: data.superclasses[name] for name in classes})
    write_json(folder / MANIFEST, manifest.as_json(source=data.where))
    return ()


def _placed(
    data: UndecodedDataSet, old_classes: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], PurePosixPath, Source]]:
    """Each image: its row of `metadata.csv`, its path in the new folder, and what it is read from."""
    splits, folders, grouped = _has_splits(data), _class_folders(data), _is_grouped(data)
    taken: dict[str, set[str]] = defaultdict(set)
    for split, part in data.parts.items():
        for number, source in enumerate(part.stream(part.rows)):
            label = data.classes[int(part.labels[number])]
            inner = _name(part, number, source, old_classes)
            folder = str(PurePosixPath(split if splits else "", folders[label], inner.parent))
            inside = taken[folded(folder)]
            name = free_name(inner.name, inside)
            inside.add(folded(name))
            target = PurePosixPath(folder, name)
            group = "" if part.groups is None else part.groups[number].removeprefix(_GROUP)
            cells = dict(zip(part.columns, part.cells(int(part.rows[number])), strict=True))
            others = (cells.get(column, "") for column in columns)
            yield (str(target), label, split, *((group,) if grouped else ()), *others), target, source


def _name(part: UndecodedPart, number: int, source: Source, classes: Sequence[str]) -> PurePosixPath:
    """Path of the new file of an image in the folder of its class.

    It is that of its file in the old folder of a class; elsewhere the name of its file, or that in its table, or its
    row with the suffix of its format.
    """
    if not isinstance(source, Path):
        kind, row = format_of(source[:HEAD_BYTES]) or "PNG", int(part.rows[number])
        suffix = _SUFFIXES.get(kind, f".{kind.lower()}")
        return PurePosixPath(_with_suffix(part.file_name(row), suffix) or f"{row:06}{suffix}")
    steps = PurePosixPath(part.files[number] if part.files else source.name).parts
    inner = steps[1:] if len(steps) > 2 and split_of(steps[0]) else steps
    if ".." in steps or len(inner) < 2 or inner[0] not in classes:
        return PurePosixPath(steps[-1])
    return PurePosixPath(*inner[1:])


def _with_suffix(name: str, suffix: str) -> str:
    """The file name in a path of any system, with a suffix of images; empty where it cannot be the name of a file."""
    last = PurePosixPath(name.replace("\\", "/")).name
    if not last or is_junk(last) or "\0" in last:
        return ""
    return last if PurePosixPath(last).suffix.lower() in SUFFIXES else last + suffix


def _class_folders(data: UndecodedDataSet) -> dict[str, str]:
    """Folder of each class: its name where that can be the name of a folder of a class, and of no other one's.

    Names such as `Cat` and `cat` are those of one folder where file systems ignore case.
    """
    taken: set[str] = set()
    folders = {}
    for label in data.classes:
        own = _names_folder(label, _has_splits(data)) and folded(label) not in taken
        folders[label] = label if own else free_name(f"class-{slug(label)}", taken)
        taken.add(folded(folders[label]))
    return folders


def _has_splits(data: UndecodedDataSet) -> bool:
    """Whether class folders are inside split folders."""
    return data.parts.keys() != {"train"}


def _names_folder(label: str, splits: bool) -> bool:
    """Whether a folder of this name would be read as this class; beside others, one named `train` is a split."""
    return not (
        "/" in label
        or "\\" in label
        or is_junk(label)
        or (split_of(label) is not None and not splits)
        or short_name(label) != label
    )


def _needs_table(data: UndecodedDataSet) -> bool:
    """Whether folders alone do not say what the data says."""
    named = all(label == folder for label, folder in _class_folders(data).items())
    return not named or _is_grouped(data) or any(part.columns for part in data.parts.values())


def _is_grouped(data: UndecodedDataSet) -> bool:
    """Whether images have groups."""
    return any(any(part.groups or ()) for part in data.parts.values())


def _refuse_foreign(source: Source, folder: Path | None) -> None:
    """Check that a file is an image, or lies in the folder of the data, where an unreadable image may be as well.

    Raises:
        DataError: it is neither.
    """
    if not isinstance(source, Path) or (folder is not None and source.resolve().is_relative_to(folder.resolve())):
        return
    with source.open("rb") as stream:
        if format_of(stream.read(HEAD_BYTES)) is None:
            raise DataError(
                f"{source}, which the data names, is no image and lies outside its folder: it is not copied.",
                "Remove it from the data's table, or drop it in the plan.",
            )


def _copy(source: Source, target: Path) -> None:
    if isinstance(source, Path):
        shutil.copy2(source, target)
    else:
        target.write_bytes(source)


def _link(source: Source, target: Path) -> None:
    """Link the file that `source` is, following links; the original stays where it is."""
    assert isinstance(source, Path)
    original = source.resolve()
    try:
        os.link(original, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(original)


def _write_rows(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = CsvWriter(stream)
        for row in (header, *rows):
            writer.writerow(row)
