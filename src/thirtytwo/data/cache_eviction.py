"""Eviction from the cache of decoded images: list entries, lock those in use, and remove the least recently used.

An entry is a directory named by its key. Only files that thirtytwo wrote are removed: an entry that contains other
files stays, with these files. An open entry is protected by a shared lock, which the system releases when the process
ends. On Windows, the system itself refuses to remove mapped files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import finalize

from thirtytwo.errors import DataError

if sys.platform != "win32":
    import fcntl

GB = 10**9
LIMIT_GB, LIMIT_SHARE, MAX_GB = 20.0, 0.1, 10**9
VARIABLE = "THIRTYTWO_CACHE_GB"
RECORD, LOCK = "entry.json", "lock"
TEMPORARY = ".writing-"
STALE_SECONDS = 86_400.0

_KEY = re.compile(r"[0-9a-f]{32}")
_OWN = re.compile(rf"{re.escape(RECORD)}(\.\d+)?|{LOCK}|\w+\.npy")


class CacheInUse:
    """Shared lock on an entry that prevents its removal during the lifetime of this object."""

    def __init__(self, handle: int) -> None:
        finalize(self, os.close, handle)


@dataclass(frozen=True)
class Stored:
    """An entry of the cache on disk.

    Attributes:
        path: directory of the entry.
        data: name of the data set; None if not recorded.
        side: side of the images in pixels; None if not recorded.
        images: number of images.
        size: bytes on disk.
        used: time of the last use, in seconds since the epoch.
    """

    path: Path
    data: str | None
    side: int | None
    images: int
    size: int
    used: float

    @property
    def name(self) -> str:
        """Abbreviated key."""
        return self.path.name[:8]


@dataclass(frozen=True)
class Cleared:
    """Entries that were removed, entries that were kept with the reason, and the number of bytes freed."""

    removed: tuple[Stored, ...]
    left: tuple[tuple[Stored, str], ...]
    freed: int


def limit_bytes(folder: Path) -> int:
    """Maximum total size of the entries in bytes: `THIRTYTWO_CACHE_GB`, else the smaller of 20 GB and 10 % of the disk.

    Raises:
        DataError: the variable is not a number, or negative.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if not 0 <= found <= MAX_GB:
            raise DataError(
                f"{VARIABLE} is {text!r}; expected a number of gigabytes, 0 or more.", f"For example: {VARIABLE}=20"
            )
        return int(found * GB)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return int(min(LIMIT_GB * GB, LIMIT_SHARE * shutil.disk_usage(folder).total))


def stored(folder: Path) -> list[Stored]:
    """All entries in the folder, the most recently used first."""
    entries = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # removed meanwhile
                    entries.append(_read_entry(path))
    return sorted(entries, key=lambda entry: -entry.used)


def touch_entry(entry: Path) -> None:
    """Set the time of the entry's last use to now."""
    with suppress(OSError):
        os.utime(entry / RECORD)


def hold(entry: Path) -> CacheInUse | None:
    """Lock the entry against removal; None where locks are not available.

    Raises:
        FileNotFoundError: the entry is being removed.
    """
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(entry / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise
    except OSError:  # from a read-only cache, nothing is removed
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise FileNotFoundError(entry) from None
    except OSError:
        os.close(handle)
        return None
    return CacheInUse(handle)


def make_room(folder: Path, limit: int, keep: Path | None = None) -> Cleared:
    """Remove entries, the least recently used first, until the rest takes at most `limit` bytes; never `keep`."""
    entries = stored(folder)
    total, wanted = sum(entry.size for entry in entries), []
    for entry in reversed(entries):
        if total > limit and entry.path != keep:
            wanted.append(entry)
            total -= entry.size
    return remove(wanted)


def remove(entries: Sequence[Stored]) -> Cleared:
    """Remove these entries, except those in use and those with files that thirtytwo did not write."""
    removed, left, freed = [], [], 0
    for entry in entries:
        try:
            with _exclusive(entry.path):
                freed += remove_own(entry.path)
        except BlockingIOError:
            left.append((entry, "in use"))
        except OSError as error:
            left.append((entry, error.strerror or str(error)))
        else:
            if entry.path.exists():
                left.append((entry, "contains files not written by thirtytwo"))
            else:
                removed.append(entry)
    return Cleared(tuple(removed), tuple(left), freed)


def sweep(folder: Path) -> int:
    """Remove incomplete entries left by killed processes; returns the number of bytes freed."""
    freed = 0
    for left in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS and not left.is_symlink():
                freed += remove_own(left)
    return freed


@contextmanager
def _exclusive(entry: Path) -> Iterator[None]:
    """Hold an exclusive lock on the entry.

    Raises:
        BlockingIOError: the entry is in use.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(entry / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def remove_own(entry: Path) -> int:
    """Remove the files that thirtytwo wrote, and the directory if it is then empty; returns the bytes freed."""
    freed = 0
    # The metadata file first: without it, the directory is not an entry.
    for file in sorted(entry.iterdir(), key=lambda file: file.name != RECORD):
        if _OWN.fullmatch(file.name) and (file.is_file() or file.is_symlink()):
            size = 0 if file.is_symlink() else file.stat().st_size
            file.unlink()
            freed += size
    with suppress(OSError):
        entry.rmdir()
    return freed


def _read_entry(path: Path) -> Stored:
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    data, side, images, used = None, None, 0, path.stat().st_mtime
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        used = (path / RECORD).stat().st_mtime
        about = json.loads((path / RECORD).read_text(encoding="utf-8"))["about"]
        data, side, images = str(about["data"]), int(about["side"]), int(about["images"])
    return Stored(path, data, side, images, size, used)
