"""Decoded pictures on disk, keyed by content, opened as memory maps.

An entry is a directory that appears whole or not at all. Its arrays carry checksums; an entry that does not match them
is made anew. When the disk refuses, the pictures stay in memory and a warning says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thirtytwo.errors import DataError
from thirtytwo.images.decode import Pixels

FORMAT = 1
_TEMPORARY = ".writing-"
_SETTLED_SECONDS = 2.0
_STALE_SECONDS = 86_400.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Pictures of each split, uint8 `(N, H, W, 3)`, and what was learnt while decoding them."""

    images: Mapping[str, Pixels]
    sizes: Mapping[tuple[int, int], int]
    fingerprint: str


def cache_dir() -> Path:
    """`THIRTYTWO_CACHE`, else the platform's folder for caches."""
    if chosen := os.environ.get("THIRTYTWO_CACHE"):
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "thirtytwo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "thirtytwo" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "thirtytwo"


def digest(value: object) -> str:
    """Short name of a JSON value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def content_key(root: Path, files: Sequence[Path]) -> str:
    """Name of what `files` hold and what they are called below `root`.

    Every byte is read once; the answer is remembered for as long as path, size, times and file number of all files stay
    the same. Files changed within the last seconds are not trusted to tell a further change by their times.
    """
    states = []
    newest = 0.0
    try:
        for file in files:
            state = file.stat()
            times = (state.st_mtime_ns, state.st_ctime_ns)
            newest = max(newest, *times)
            states.append([_below(root, file), state.st_size, *times, state.st_ino])
        remembered = cache_dir() / "contents" / digest([FORMAT, str(root.resolve()), states])
        key = _remembered(remembered)
        if key is None:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                hashes = list(pool.map(_hash, files))
            key = digest([[_below(root, file), found] for file, found in zip(files, hashes, strict=True)])
            if time.time() - newest / 1e9 > _SETTLED_SECONDS:
                _remember(remembered, key)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror}.", "Check the file.") from None
    return key


def cached(key: str, make: Callable[[], Entry]) -> Entry:
    """The entry called `key`, made and stored where it is missing or damaged."""
    entry = cache_dir() / "pictures" / key
    found = _open(entry)
    if found is not None:
        return found
    made = make()
    try:
        _store(entry, made)
    except OSError as error:
        logger.warning("Decoded pictures could not be kept in %s: %s.", entry.parent, error.strerror or error)
        return made
    return _open(entry) or made


def _open(entry: Path) -> Entry | None:
    """The entry as memory maps, or None where it is missing or not what was written."""
    try:
        facts = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        images = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in facts["checksums"]}
        if all(_checksum(images[name]) == checksum for name, checksum in facts["checksums"].items()):
            sizes = {(width, height): count for width, height, count in facts["sizes"]}
            return Entry(images, sizes, str(facts["fingerprint"]))
    except FileNotFoundError:
        if not entry.exists():
            return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        pass
    logger.warning("The kept pictures in %s are damaged and will be made anew.", entry)
    return None


def _store(entry: Path, made: Entry) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    _sweep(entry.parent)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=entry.parent))
    try:
        for name, images in made.images.items():
            np.save(temporary / f"{name}.npy", images, allow_pickle=False)
        facts = {
            "checksums": {name: _checksum(images) for name, images in made.images.items()},
            "sizes": [[width, height, count] for (width, height), count in made.sizes.items()],
            "fingerprint": made.fingerprint,
        }
        (temporary / "entry.json").write_text(json.dumps(facts), encoding="utf-8")
        if _open_quietly(entry) is None:
            shutil.rmtree(entry, ignore_errors=True)
            temporary.replace(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_quietly(entry: Path) -> Entry | None:
    """What another process may have stored in the meantime."""
    return _open(entry) if (entry / "entry.json").is_file() else None


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half-written."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _checksum(images: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(images).data)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _below(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _remembered(file: Path) -> str | None:
    try:
        key = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return key if len(key) == 32 and set(key) <= set("0123456789abcdef") else None


def _remember(file: Path, key: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(key, encoding="ascii")
        temporary.replace(file)
    except OSError as error:
        logger.warning("%s could not be written: %s.", file, error.strerror or error)
