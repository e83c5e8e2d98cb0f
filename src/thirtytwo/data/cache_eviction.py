"""Room for decoded images on disk: which entries there are, which are in use, and removing the least recently used.

An entry is a directory called by its key. Only files that thirtytwo wrote are ever removed: where anything else lies in
an entry, it stays, and so does the entry. Whoever has an entry open holds a shared lock on it, which the system lets go
of when the process ends, however it does. Windows refuses to remove what is mapped by itself.
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
LIMIT_GB, LIMIT_SHARE = 20.0, 0.1
VARIABLE = "THIRTYTWO_CACHE_GB"
FACTS, LOCK = "entry.json", "lock"
TEMPORARY = ".writing-"
STALE_SECONDS = 86_400.0

_KEY = re.compile(r"[0-9a-f]{32}")
_OWN = re.compile(rf"{re.escape(FACTS)}(\.\d+)?|{LOCK}|\w+\.npy")


class CacheInUse:
    """Keeps an entry from being removed by others for as long as this object lives."""

    def __init__(self, handle: int) -> None:
        finalize(self, os.close, handle)


@dataclass(frozen=True)
class Stored:
    """An entry of the cache as it lies on disk; `data` and `side` are None where it does not say."""

    path: Path
    data: str | None
    side: int | None
    images: int
    size: int
    used: float

    @property
    def name(self) -> str:
        """Enough of the key to tell it from the others."""
        return self.path.name[:8]


@dataclass(frozen=True)
class Cleared:
    """What was removed, what was left and why, and the bytes that are free now."""

    removed: tuple[Stored, ...]
    left: tuple[tuple[Stored, str], ...]
    freed: int


def limit_bytes(folder: Path) -> int:
    """Bytes that entries may take together: `THIRTYTWO_CACHE_GB`, else 20 GB or a tenth of the disk, whatever is less.

    Raises:
        DataError: the variable is no number, or negative.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text:
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if not 0 <= found < float("inf"):
            raise DataError(f"{VARIABLE} is {text!r}; expected a number of gigabytes.", "Set it to, say, 20.")
        return int(found * GB)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return int(min(LIMIT_GB * GB, LIMIT_SHARE * shutil.disk_usage(folder).total))


def stored(folder: Path) -> list[Stored]:
    """Every entry in the folder, the most recently used first."""
    entries = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            if _KEY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with suppress(OSError):  # removed meanwhile
                    entries.append(_read_entry(path))
    return sorted(entries, key=lambda entry: -entry.used)


def touch_entry(entry: Path) -> None:
    """Remember that the entry was used just now."""
    with suppress(OSError):
        os.utime(entry / FACTS)


def hold(entry: Path) -> CacheInUse | None:
    """Keep the entry from being removed; None where that is not possible.

    Raises:
        FileNotFoundError: it is just being removed.
    """
    if sys.platform == "win32":
        return None
    try:
        handle = os.open(entry / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        raise
    except OSError:  # a cache that can only be read is not removed from either
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
    """Remove these entries, except those in use and what is not ours."""
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
                left.append((entry, "holds files that are not of thirtytwo"))
            else:
                removed.append(entry)
    return Cleared(tuple(removed), tuple(left), freed)


def sweep(folder: Path) -> int:
    """Remove what killed processes left half-written; returns the bytes that are free now."""
    freed = 0
    for left in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS and not left.is_symlink():
                freed += remove_own(left)
    return freed


@contextmanager
def _exclusive(entry: Path) -> Iterator[None]:
    """Nobody else has the entry open meanwhile.

    Raises:
        BlockingIOError: somebody has.
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
    """Remove the files that thirtytwo wrote, and the directory if nothing else is in it; returns their bytes."""
    freed = 0
    for file in sorted(
        entry.iterdir(), key=lambda file: file.name != FACTS
    ):  # without its facts it is no entry any more
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
        used = (path / FACTS).stat().st_mtime
        about = json.loads((path / FACTS).read_text(encoding="utf-8"))["about"]
        data, side, images = str(about["data"]), int(about["side"]), int(about["images"])
    return Stored(path, data, side, images, size, used)
