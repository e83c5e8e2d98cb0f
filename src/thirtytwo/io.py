"""Files: atomic writes, free names, and a lock for directories that are written to."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import unicodedata
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from secrets import token_hex
from typing import Any

from thirtytwo.errors import (
    InputError,
    MissingExtraError,
    OutputError,
    RunError,
    ThirtytwoError,
    require,
)
from thirtytwo.text import shorten

METADATA_KEY = "thirtytwo"
"""Key of the metadata in model.onnx and weights.safetensors; the value is JSON."""
CHECKSUM_KEY = "thirtytwo_sha256"
"""Metadata key of a SHA-256 in hexadecimal: of all other bytes of model.onnx, of the tensors in weights.safetensors."""

DISK_FULL = "Free disk space or choose another location, then run the command again."
"""Advice on an output for which the disk has no space."""
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WRITE_ERRNOS = _FULL_ERRNOS | {errno.EROFS, errno.EIO}
"""Errors without a file name that count as write errors; others, such as a decoder's, are re-raised unchanged."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path beside `path`, renamed to `path` if the block raises no error.

    Raises:
        OutputError: the file could not be written (disk full, no permission, no such folder).
        InputError: the block failed to read another file; names that file.
    """
    temporary, path = None, expand_home(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _create_beside(path)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        if _is_about(error, path, temporary):
            raise OutputError(f"{path} could not be written: {reason}.", _advice(error)) from error
        if error.filename is None:
            raise
        raise InputError(
            f"{os.fsdecode(error.filename)} could not be read: {reason}.", "Check the path and its permissions."
        ) from error
    except OutputError as error:  # of a block that writes the temporary file atomically itself
        raise OutputError(error.message.replace(str(temporary), str(path)), error.fix) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a new folder as a whole: yields a temporary folder beside `path`, renamed to `path` if no error is raised.

    The temporary folder is locked, so that a later call for the same `path` can tell what a killed process left behind,
    and removes it.

    Raises:
        OutputError: `path` exists, or it could not be written (disk full, no permission).
        InputError: the block failed to read another file; names that file.
    """
    path = expand_home(path)
    refuse_long_name(path)
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already.", "Choose another name, or move it away.")
    _remove_unfinished(path)
    temporary = path.with_name(_unfinished_name(path, token_hex(4)))
    try:
        temporary.mkdir(parents=True)
        with _locked_if_possible(temporary, path):
            yield temporary
        if os.path.lexists(path):
            raise OutputError(f"{path} was created by another program.", "Choose another name.")
        temporary.rename(path)
    except OSError as error:
        reason = error.strerror or str(error)
        about = None if error.filename is None or isinstance(error.filename, int) else Path(os.fsdecode(error.filename))
        written = about is None or about.is_relative_to(temporary) or about in (path, *path.parents)
        if written or error.errno in _WRITE_ERRNOS:
            raise OutputError(f"{path} could not be written: {reason}.", _advice(error)) from error
        raise InputError(f"{about} could not be read: {reason}.", "Check the path and its permissions.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked_if_possible(temporary: Path, path: Path) -> Iterator[None]:
    """Hold the lock of the temporary folder of `path`, if the library for it is installed.

    Raises:
        OutputError: the lock file could not be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_directory(temporary))
        except MissingExtraError:
            pass
        except RunError as error:
            raise OutputError(f"{path} could not be written: {error.message}", "Choose another location.") from None
        yield


def _unfinished_name(path: Path, token: str) -> str:
    """Name of the temporary folder of `atomic_folder`."""
    return short_name(f".{path.name}.{token}")


def _remove_unfinished(path: Path) -> None:
    """Remove the temporary folders of killed processes that were to become `path`.

    A folder is one of these if it has the name, and the lock file of a process that no longer holds the lock.
    """
    with suppress(OSError):
        for folder in list(path.parent.iterdir()):
            named = folder.name == _unfinished_name(path, folder.name[-8:]) and _TOKEN.fullmatch(folder.name[-8:])
            if not named or folder.is_symlink() or not folder.is_dir() or not _is_lock(folder / LOCK):
                continue
            with suppress(RunError, MissingExtraError):  # in use, or not writable
                with lock_directory(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)  # where a file that is open cannot be removed
                logger.info("%s was removed: an interrupted command left it.", folder)


def _create_beside(path: Path) -> Path:
    """Create an empty temporary file beside `path`, with permissions according to the umask."""
    room = NAME_BYTES - len(f"..{'0' * 8}{path.suffix}".encode(errors="surrogateescape"))
    name = short_name(path.name, room)
    while True:
        temporary = path.with_name(f".{name}.{token_hex(4)}{path.suffix}")
        with suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary


def _advice(error: OSError) -> str:
    """What to do about an output that could not be written."""
    if error.errno == errno.ENAMETOOLONG:
        return "Choose a shorter name."
    if error.errno in _FULL_ERRNOS:
        return DISK_FULL
    return "Choose another location."


def _is_about(error: OSError, path: Path, temporary: Path | None) -> bool:
    """Whether an error was raised by writing `path` rather than by reading another file."""
    if error.filename is None or isinstance(error.filename, int):
        return error.errno in _WRITE_ERRNOS
    written = {str(path), str(temporary), *map(str, path.parents)}
    return temporary is None or os.fsdecode(error.filename) in written


def expand_home(path: Path | str) -> Path:
    """The path with a leading `~` replaced by the home directory; unchanged where that is not known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises an error for unknown users)


def is_file(path: Path) -> bool:
    """Whether a path is a file; other than by `Path.is_file`, a name that is too long for one is none.

    Raises:
        InputError: a folder above it cannot be read.
    """
    return stat.S_ISREG(_mode(path))


def is_directory(path: Path) -> bool:
    """Whether a path is a directory; as `is_file`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """Type and permissions of a file, or 0 where there is none."""
    try:
        return path.stat().st_mode
    except PermissionError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    except (OSError, ValueError):  # missing, or no possible name
        return 0


TEXT = "text"
"""The format of text for people, for which any suffix will do but those of other kinds of files."""
FORMATS = {
    ".avif": "AVIF",
    ".dib": "BMP",
    ".bmp": "BMP",
    ".csv": "CSV",
    ".xls": "Excel",
    ".xlsx": "Excel",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".hif": "HEIC",
    ".htm": "HTML",
    ".html": "HTML",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".mpo": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".json": "JSON",
    ".jsonl": "JSON Lines",
    ".npy": "NumPy",
    ".npz": "NumPy",
    ".ods": "OpenDocument",
    ".onnx": "ONNX",
    ".parquet": "Parquet",
    ".pdf": "PDF",
    ".apng": "PNG",
    ".png": "PNG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".ckpt": "PyTorch",
    ".pt": "PyTorch",
    ".pth": "PyTorch",
    ".safetensors": "safetensors",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".tsv": "TSV",
    ".webp": "WEBP",
    ".zip": "ZIP",
}
"""Formats by the suffixes of their files; of several suffixes of a format, the usual one is the last."""
_READABLE = ("CSV", "JSON", TEXT)
_TABLES = ("Excel", "OpenDocument", "TSV")


def check_writable(path: Path, *, force: bool, format: str = "", option: str = "") -> None:
    """Check that `path` can be written without overwriting an existing file, before work that takes long.

    Args:
        path: the file.
        force: whether it may be overwritten.
        format: the format that will be written, such as `PDF` or `TEXT`; empty: any.
        option: the option that names the file, for the advice where its name was not given.

    Raises:
        OutputError: `path` is a folder, or a file while `force` is not set; or files cannot be created in its folder,
            or in the one that it would be created in; or its suffix is that of another format.
    """
    path = expand_home(path)
    meant = FORMATS.get(path.suffix.lower(), format)
    if format and meant != format and not (format == TEXT and meant in _READABLE):
        usual = next((suffix for suffix in reversed(FORMATS) if FORMATS[suffix] == format), ".txt")
        usual = ".csv or .txt" if format == TEXT and meant in _TABLES else usual
        raise OutputError(
            f"{path} has the suffix of {meant}, but {format} would be written to it.",
            f"Name a file that ends in {usual}.",
        )
    try:
        existing = "folder" if is_directory(path) else "file" if is_file(path) else ""
    except InputError as error:
        raise OutputError(error.message.replace("cannot be read", "cannot be written"), error.fix) from None
    if existing == "folder":
        raise OutputError(f"{path} is a folder; a file is needed.", "Give a file name inside it.")
    if existing == "file" and not force:
        named = f"another name with {option}" if option else "another name"
        raise OutputError(f"{path} exists already.", f"Choose {named}, move it away, or overwrite it with --force.")
    folder = _existing_folder(path)
    if not is_directory(folder):
        raise OutputError(f"{path} cannot be written: {folder} is not a folder.", "Choose another folder.")
    try:  # permissions do not say it of a folder of the system, such as /proc, and a file system may be read-only
        _create_beside(folder / path.name).unlink()
    except PermissionError:
        raise OutputError(
            f"{path} cannot be written: no permission to write to {folder}.",
            "Choose another folder, or change its permissions.",
        ) from None
    except OSError as error:
        if error.errno == errno.EROFS:
            problem = f"{path} cannot be written: {folder} is on a read-only file system."
            raise OutputError(problem, "Choose another folder.") from None
        raise OutputError(f"{path} cannot be written: no file can be created in {folder}.", _advice(error)) from None


def _existing_folder(path: Path) -> Path:
    """The folder of a file, or the first one above it that exists."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))


def missing_folder(path: Path) -> Path | None:
    """The folder of an output where it does not exist, so that writing the output creates it; else None."""
    folder = expand_home(path).absolute().parent
    return None if os.path.lexists(folder) else folder


RUNS = Path("runs")
"""Folder of runs, comparisons and searches that are not named."""


def numbered(path: Path) -> Iterator[Path]:
    """`path`, then `path-2`, `path-3`, …, for directories."""
    yield path
    yield from (path.with_name(f"{path.name}-{number}") for number in count(2))


NAME_BYTES = 255
"""Largest size of a file name on common file systems, in bytes."""


_SLUG_BYTES = 200
"""Largest size of a slug, which leaves room for what is added to it."""


def short_name(name: str, most: int = NAME_BYTES) -> str:
    """The file name, or where it is longer than `most` bytes, its start, a hash of it, and its suffix."""
    encoded = os.fsencode(name)
    if len(encoded) <= most:
        return name
    suffix = os.fsencode(Path(name).suffix)
    end = b"-" + hashlib.blake2b(encoded, digest_size=4).hexdigest().encode() + (suffix if len(suffix) <= 16 else b"")
    start = encoded[: max(0, most - len(end))]
    return start.decode("utf-8", "ignore") + end.decode("utf-8", "ignore")


def refuse_long_name(path: Path) -> None:
    """Check that a name is not longer than file systems allow, before work that takes long.

    Raises:
        OutputError: it is.
    """
    size = len(os.fsencode(path.name))
    if size > NAME_BYTES:
        raise OutputError(
            f"The name {shorten(path.name, 40)} has {size:,} bytes; file systems allow at most {NAME_BYTES}.",
            "Choose a shorter name.",
        )


def create_directory(path: Path, error: type[ThirtytwoError], fix: str) -> bool:
    """Create a directory with its parents; returns whether it did not exist before.

    Raises:
        ThirtytwoError: `error`, with the advice `fix`: it cannot be created.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as cause:
        raise error(f"{path} cannot be created: {cause.strerror}.", fix) from None
    return True


def free_path(path: Path) -> Path:
    """The first of `numbered(path)` that does not exist."""
    return next(candidate for candidate in numbered(path) if not candidate.exists())


def folded(name: str) -> str:
    """A form that is the same for names which file systems may take for one: by case, or by how accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def free_name(name: str, taken: Container[str]) -> str:
    """The file name, or the first of `photo-2.png`, `photo-3.png`, … that is not among the names `taken`.

    These are `folded`, or at least casefolded.
    """
    path = Path(name)
    names = chain([name], (f"{path.stem}-{number}{path.suffix}" for number in count(2)))
    return next(one for one in map(short_name, names) if folded(one) not in taken and one.casefold() not in taken)


def slug(text: str) -> str:
    """The last part of a name or path, as a file name that is valid and not hidden."""
    place, sign, options = text.partition("?")
    last = place.rstrip("/").rsplit("/", 1)[-1] or "data"
    if last in (".", ".."):  # a hidden or misleading name
        last = Path(place).resolve().name or "data"
    named = "".join(char if char.isalnum() or char in "-_." else "-" for char in last + sign + options)
    return short_name(named.lstrip(".") or "data", _SLUG_BYTES)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically; bytes of file names that are not UTF-8 become escapes, as JSON requires."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, atomically; a ValueError for NaN and infinity, which are not valid JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text of a JSON file; a ValueError for NaN and infinity."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


LOCK = ".lock"
"""Hidden lock file in a directory that is being written to, removed afterwards; a leftover file locks nothing."""
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

logger = logging.getLogger(__name__)


@contextmanager
def lock_directory(directory: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on an existing directory while the block runs.

    Another holder is waited for, for `wait` seconds. Where the file system does not support locks, a warning is logged
    and the directory is not locked.

    Raises:
        RunError: another process, or another thread of this one, holds the lock; or the directory is not writable.
    """
    filelock = require("filelock", "train")
    path = directory / LOCK
    lock = filelock.FileLock(path, timeout=wait, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunError(
            f"{directory} is in use by {_holder(path)}.",
            "Wait until it has finished, or stop it; then run the command again.",
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise RunError(
                f"{directory} is not writable: {error.strerror}.", "Change its permissions, or use a copy of it."
            ) from None
        logger.warning(
            "%s: the file system does not support locks; do not write to this directory from another process", path
        )
        yield
        return
    try:
        remove_leftovers(directory)
        with suppress(OSError):  # the holder is only named in error messages
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # before the lock is released, so that no other process's file is removed
            path.unlink()
        lock.release()


_TOKEN = re.compile(r"[0-9a-f]{8}")
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}(?P<suffix>\.[^.]+)?")
"""Names of the temporary files of `atomic_write`."""


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files that a killed process left in a directory and below; the caller holds its lock.

    Directories below that have a lock file are left alone: another process may be writing to them.
    """
    for parent, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not os.path.lexists(Path(parent, folder, LOCK))]
        for name in names:
            found = _TEMPORARY.fullmatch(name)
            if found and Path(found["name"]).suffix == (found["suffix"] or ""):
                with suppress(OSError):
                    Path(parent, name).unlink()


def is_unused(directory: Path, ignored: Container[str] = ()) -> bool:
    """Whether a directory holds nothing but files named in `ignored`, and what killed processes leave behind."""
    names = (entry.name for entry in directory.iterdir())
    return all(name == LOCK or name in ignored or _TEMPORARY.fullmatch(name) for name in names)


def _is_lock(path: Path) -> bool:
    """Whether a file is one that `lock_directory` wrote."""
    try:
        return {"pid", "host"} == set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def _holder(path: Path) -> str:
    """Description of the process that holds a lock, from the content of the lock file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
