"""Export a data set: checked first, written in shards beside the output, verified, then renamed to it as a whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from secrets import token_hex

import numpy as np

from thirtytwo.data.cache import digest
from thirtytwo.data.export.base import EXPORTS, DataFormat, Plan
from thirtytwo.data.export.items import ShardItems, as_text, item_digest, items_of, total
from thirtytwo.data.export.journal import JOURNAL, Journal, Shard, sha256
from thirtytwo.data.load import absolute, open_undecoded, parse
from thirtytwo.data.manifest import CHECKSUMS, MANIFEST, Manifest
from thirtytwo.data.sources.folder import open_local
from thirtytwo.data.split import SPLITS, Positions, Split
from thirtytwo.data.types import IMBALANCE, Request
from thirtytwo.data.undecoded import Source, UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError, ExportError, ImageError, OutputError
from thirtytwo.images.decode import load_image
from thirtytwo.images.render import from_ppm
from thirtytwo.inputs import refuse_folder_in_data
from thirtytwo.io import LOCK, expand_home, lock_directory, refuse_long_name, write_json
from thirtytwo.machine import cpu_count
from thirtytwo.run_paths import FIXES
from thirtytwo.text import counted, listing

_AHEAD = 8
"""Images that are read ahead for each thread."""
_FILE_SUFFIXES = (".csv", ".npz", ".parquet", ".tar", ".gz", ".tgz", ".zip", ".json")

Progress = Callable[[int, int], None]
"""Takes the number of images that are done, and of all."""


@dataclass(frozen=True)
class Exported:
    """A complete export.

    Attributes:
        path: its folder.
        images: number of images of each split.
        files: number of files.
        resumed: number of images that an earlier, interrupted export had written.
        verified: whether it was read again and compared.
        skipped: notes on what was left out, or is to be read in a certain way.
    """

    path: Path
    images: Mapping[Split, int]
    files: int
    resumed: int
    verified: bool
    skipped: tuple[str, ...]


def export_dataset(
    spec: str,
    format: str,
    out: Path | str,
    *,
    data_root: Path | None = None,
    png: bool = False,
    skip_unreadable: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    checking: Progress | None = None,
) -> Exported:
    """Write a data set to a new folder in another layout.

    Encoded images stay byte for byte as they are where the format stores files; arrays become PNG. Every image is
    decoded once before anything is written, so that no file goes on that cannot be read. While it is written, the
    export is in `OUT.partial`.

    Args:
        spec: the data set, as for `load_dataset`.
        format: name of a format in `EXPORTS`.
        out: folder to create.
        data_root: folder in which known names are searched first.
        png: store every image as PNG (RGB, 8 bits), whatever its own format.
        skip_unreadable: leave out images that cannot be read instead of raising an error.
        resume: continue an interrupted export, if there is one.
        force: replace an earlier export at `out`, if no file was added to it, and an unfinished one unless `resume` is
            set.
        progress: called from time to time while images are written.
        checking: the same, while images are decoded before.

    Raises:
        UnknownNameError, OfflineError: no such format or data set.
        DataError: the data does not fit the format, or images cannot be read.
        OutputError: `out` exists, lies in the data, or cannot be written.
        RunError: an unfinished export that is in use, or of other data.
        ExportError: what was written differs from the data.
    """
    kind, out = EXPORTS.get(format), expand_home(out)
    if out.name in ("", ".."):  # such as "."
        out = out.resolve()
    parse(spec, data_root=data_root)
    _check_out(out, spec, force=force)
    work = _work_of(out)
    _check_unfinished(work, resume=resume, force=force)
    data = _opened(spec, data_root, skip_unreadable=skip_unreadable)
    survey = _survey(data, skip_unreadable=skip_unreadable, checking=checking)
    plan = _plan(data, survey)
    writer = kind(work, plan)
    key = digest([format, png, plan.classes, plan.superclasses, survey.content])
    _prepare(work, resume=resume)
    with lock_directory(work), _disk_errors(work):
        journal = Journal(work)
        if (work / JOURNAL).exists():
            journal.resume(key)
        else:
            journal.start(key)
        resumed = sum(shard.images for shard in journal.shards)
        _write(data, survey, writer, journal, as_png=png, progress=progress)
        files = _complete(writer, journal, format)
        if kind.readable:
            _verify(writer, journal)
    _replace(out, work)
    notes = (*survey.skipped, kind.groups) if plan.grouped and kind.groups else survey.skipped
    return Exported(out, plan.totals, files, resumed, kind.readable, notes)


_OF_FILE_MANAGERS = ("Thumbs.db", "desktop.ini")


def _work_of(out: Path) -> Path:
    """The folder of an unfinished export."""
    return out.with_name(f"{out.name}.partial")


def _opened(spec: str, data_root: Path | None, *, skip_unreadable: bool) -> UndecodedDataSet:
    if IMBALANCE in parse(spec).options:
        raise DataError(
            f"{spec} is a subset by {IMBALANCE}, which is chosen by decoded images.", f"Leave out ?{IMBALANCE}=…."
        )
    return open_undecoded(spec, data_root=data_root, skip_unreadable=skip_unreadable)


def _check_out(out: Path, spec: str, *, force: bool) -> None:
    if out.suffix.lower() in _FILE_SUFFIXES and not out.is_dir():
        raise OutputError(
            f"--out is a folder to create; {out.name!r} looks like a file.", f"Give {str(out.with_suffix(''))!r}."
        )
    refuse_long_name(_work_of(out))
    place = absolute(spec)
    source, target = Path(place.partition("?")[0]) if place else None, out.resolve()
    if source is not None:
        refuse_folder_in_data(out, source)
    if source is not None and target.exists() and source.is_relative_to(target):
        raise OutputError(f"{out} exists and contains the data {source}.", "Choose another place.")
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file() or (out / FIXES).exists():  # a fixed copy has both
        raise OutputError(f"{out} exists already and is no export.", "Choose another name, or move it away.")
    if not force:
        raise OutputError(f"{out} exists already.", "Choose another name, or replace it with --force.")
    if added := _added(out):
        raise OutputError(
            f"{out} has {counted(len(added), 'file')} that the export did not write: {listing(added)}.",
            "Move what you need elsewhere, or choose another name.",
        )


def _added(out: Path) -> list[str]:
    """Files in an export that its checksums do not name, apart from hidden ones and those of file managers."""
    checksums = out / CHECKSUMS
    lines = checksums.read_bytes().decode(errors="surrogateescape").split("\n") if checksums.is_file() else []
    written = {CHECKSUMS, *(line.partition("  ")[2] for line in lines)}
    files = (path for path in out.rglob("*") if not path.is_dir() and not path.name.startswith("."))
    names = (path.relative_to(out).as_posix() for path in files if path.name not in _OF_FILE_MANAGERS)
    return sorted(name for name in names if _escaped(name) not in written)


def _check_unfinished(work: Path, *, resume: bool, force: bool) -> None:
    if not work.exists():
        return
    if not (work / JOURNAL).is_file() and any(entry.name != LOCK for entry in work.iterdir()):
        raise OutputError(f"{work} exists already and is no unfinished export.", "Move it away.")
    if not (resume or force):
        raise OutputError(f"{work} is an unfinished export.", "Continue it with --resume, or start over with --force.")


def _prepare(work: Path, *, resume: bool) -> None:
    """Create the folder to write to, without an earlier unfinished export unless that is resumed."""
    try:
        if not resume and work.exists():
            with lock_directory(work):  # it may be in use
                (work / JOURNAL).unlink(missing_ok=True)
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{work} cannot be created: {error.strerror}.", "Choose another place.") from None


@dataclass(frozen=True, eq=False)
class _Survey:
    """What is known of all images before they are written.

    Attributes:
        positions: those of the images to export, by split.
        sizes: number of images by upright width and height.
        content: hash of labels, names, and the encoded images, of files their size and time.
        skipped: notes on images that were left out.
    """

    positions: Mapping[Split, Positions]
    sizes: Counter[tuple[int, int]]
    content: str
    skipped: tuple[str, ...]


def _survey(data: UndecodedDataSet, *, skip_unreadable: bool, checking: Progress | None = None) -> _Survey:
    """Decode every image.

    Raises:
        DataError: images cannot be read, or there are none.
    """
    found = hashlib.blake2b(digest_size=16)
    sizes: Counter[tuple[int, int]] = Counter()
    positions: dict[Split, Positions] = {}
    causes: list[ImageError] = []
    done, every = 0, sum(len(part.rows) for part in data.parts.values())
    for split in (split for split in SPLITS if split in data.parts):
        part = data.parts[split]
        kept = []
        for position, (name, source, size) in enumerate(_decoded_sizes(part)):
            done += 1
            if checking is not None:
                checking(done, every)
            if isinstance(size, ImageError):
                causes.append(size)
                continue
            sizes[size] += 1
            kept.append(position)
            found.update(repr((split, name, int(part.labels[position]), _identity(source))).encode(errors="replace"))
        if kept:
            positions[split] = np.array(kept, dtype=np.int64)
    reasons = listing((cause.message.rstrip(".") for cause in causes), quoted=False, separator="; ")
    if causes and not skip_unreadable:
        raise DataError(
            f"{data.where}: {len(causes):,} of {every:,} images cannot be read: {reasons}.",
            "Copy them again, or leave them out with --skip-unreadable.",
        )
    if not positions:
        raise DataError(f"{data.where} has no images that can be read.", "Check the data.")
    notes = (f"skipped {counted(len(causes), 'image')} that cannot be read: {reasons}",) if causes else ()
    return _Survey(positions, sizes, found.hexdigest(), notes)


def _decoded_sizes(part: UndecodedPart) -> Iterator[tuple[str, Source, tuple[int, int] | ImageError]]:
    """Name, source and upright width and height of each image, or the error of decoding it.

    Headers do not say whether the pixels are there. A JPEG is decoded at a small scale, which reads all of it.
    """

    def decoded(item: tuple[str, Source]) -> tuple[int, int] | ImageError:
        name, source = item
        pixels = from_ppm(source) if isinstance(source, bytes) else None
        if pixels is not None:
            return pixels.shape[1], pixels.shape[0]
        try:
            image = load_image(source, 1, name=name)
        except ImageError as cause:
            return cause
        return image.width, image.height

    workers = cpu_count(8)
    named = zip((part.name_of(row) for row in part.rows.tolist()), part.stream(part.rows), strict=True)
    with ThreadPoolExecutor(workers) as pool:
        while items := list(islice(named, _AHEAD * workers)):
            yield from ((*item, size) for item, size in zip(items, pool.map(decoded, items), strict=True))


def _identity(source: Source) -> object:
    if isinstance(source, bytes):
        return hashlib.blake2b(source, digest_size=16).hexdigest()
    state = source.stat()
    return state.st_size, state.st_mtime_ns


def _plan(data: UndecodedDataSet, survey: _Survey) -> Plan:
    groups = data.superclasses
    return Plan(
        where=data.where,
        classes=data.classes,
        superclasses=dict(groups) if groups and set(data.classes) <= set(groups) else None,
        totals={split: len(own) for split, own in survey.positions.items()},
        sizes=survey.sizes,
        grouped=any(any(part.groups or ()) for part in data.parts.values()),
    )


def _write(
    data: UndecodedDataSet,
    survey: _Survey,
    writer: DataFormat,
    journal: Journal,
    *,
    as_png: bool,
    progress: Progress | None,
) -> None:
    """Write the shards that the journal lacks."""
    every, done = sum(writer.plan.totals.values()), sum(shard.images for shard in journal.shards)
    for split, positions in survey.positions.items():
        complete = journal.of(split)
        rest = positions[sum(shard.images for shard in complete) :]
        items = items_of(data.parts[split], split, rest, as_png=as_png, as_pixels=writer.as_pixels)
        number, left = len(complete), len(rest)
        while left:
            shard = ShardItems(items, writer, split)
            files = writer.write(split, number, iter(shard))
            if not shard.images:
                raise ExportError(f"{data.where}: {split} ended {left:,} images early.", "Run the command again.")
            paths = {file.relative_to(writer.folder).as_posix(): sha256(file) for file in files}
            journal.add(Shard(split, shard.images, as_text(shard.content), paths))
            number, left, done = number + 1, left - shard.images, done + shard.images
            if progress is not None:
                progress(done, every)


def _complete(writer: DataFormat, journal: Journal, format: str) -> int:
    """Join the shards, and add the manifest and the checksums; returns the number of files."""
    plan = writer.plan
    writer.finish({split: len(journal.of(split)) for split in plan.totals})
    manifest = Manifest(writer.data, plan.classes, plan.superclasses)
    splits = {split: {"images": plan.totals[split], "content": _content(journal, split)} for split in plan.totals}
    write_json(writer.folder / MANIFEST, manifest.as_json(format=format, source=plan.where, splits=splits))
    known = {name: found for shard in journal.shards for name, found in shard.files.items()}
    names = sorted(
        path.relative_to(writer.folder).as_posix()
        for path in writer.folder.rglob("*")
        if path.is_file() and path.parent / path.name not in {writer.folder / JOURNAL, writer.folder / LOCK}
    )
    lines = "".join(checksum_line(known.get(name) or sha256(writer.folder / name), name) for name in names)
    (writer.folder / CHECKSUMS).write_bytes(lines.encode(errors="surrogateescape"))
    return len(names) + 1


def _content(journal: Journal, split: Split) -> str:
    return total(shard.content for shard in journal.of(split))


def checksum_line(found: str, name: str) -> str:
    """A line as `sha256sum` writes and checks it."""
    escaped = _escaped(name)
    return f"{'' if escaped == name else chr(92)}{found}  {escaped}\n"


def _escaped(name: str) -> str:
    """A file name as `sha256sum` writes it."""
    return name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _verify(writer: DataFormat, journal: Journal) -> None:
    """Read the output as a data set, and compare classes, counts and the content of every image.

    Raises:
        ExportError: it differs.
    """
    plan = writer.plan
    found = open_local(writer.folder, Request(whole=True))
    if (found.classes, dict(found.superclasses or {})) != (plan.classes, dict(plan.superclasses or {})):
        raise _differs(f"classes {listing(found.classes, 5)} instead of {listing(plan.classes, 5)}")
    counts = {split: len(part.rows) for split, part in found.parts.items()}
    if counts != dict(plan.totals):
        raise _differs(f"images {counts} instead of {dict(plan.totals)}")
    for split, part in found.parts.items():
        every = np.arange(len(part.rows), dtype=np.int64)
        items = items_of(part, split, every, as_png=False, as_pixels=True)
        content = total(as_text(item_digest(item, as_pixels=writer.as_pixels)) for item in items)
        if content != _content(journal, split):
            raise _differs(f"other images or labels in {split}")


def _differs(what: str) -> ExportError:
    return ExportError(
        f"The export differs from the data: read again, it has {what}.",
        "Run the command again with --force; if that does not help, please report it.",
    )


def _replace(out: Path, work: Path) -> None:
    """Rename the complete export to `out`; an earlier one there is removed."""
    old = out.with_name(f".{out.name}.{token_hex(4)}") if (out / MANIFEST).is_file() else None
    try:
        if old is not None:
            out.rename(old)
        work.rename(out)
        (out / JOURNAL).unlink()
        if old is not None:
            shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"{work} could not be renamed to {out}: {error.strerror}.", "Rename it yourself.") from None


@contextmanager
def _disk_errors(work: Path) -> Iterator[None]:
    """Turn errors of writing into one that says how to continue."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename or work} could not be written: {error.strerror or error}.",
            "Free disk space or correct the permissions, then run the command again with --resume.",
        ) from error
