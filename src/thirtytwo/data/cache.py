"""Cache of decoded images on disk, keyed by content and opened as memory maps.

An entry is a directory that is written atomically. Its arrays have checksums: opening compares sizes, headers and some
blocks, and the whole file only where it was modified since. A damaged entry is replaced. The total size of the entries
is limited (see `cache_eviction`). Where the cache cannot be written, the images stay in memory and a warning is logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import platformdirs

from thirtytwo.data import cache_eviction
from thirtytwo.images.content import Hashes, as_text, from_text
from thirtytwo.images.pixels import Pixels
from thirtytwo.machine import cpu_count

ENTRIES = "pictures"  # codespell:ignore pictures
"""Folder of the entries in the cache folder, under its name in existing caches."""
FORMAT = 2
_RECENT_SECONDS = 2.0
_KEY_FILE = re.compile(r"[0-9a-f]{32}(\.\d+)?")
_BLOCK, _BLOCKS = 1 << 16, 16
"""Bytes per block, and number of blocks of an array that are compared when it is opened."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Decoded images of a data set.

    Attributes:
        images: by split, uint8 `(N, H, W, 3)`.
        hashes: content hashes by split, uint64 `(N,)` (`images.content`).
        sizes: number of images by original width and height.
        fingerprint: hash of the decoded data set.
    """

    images: Mapping[str, Pixels]
    hashes: Mapping[str, Hashes]
    sizes: Mapping[tuple[int, int], int]
    fingerprint: str


def cache_dir() -> Path:
    """The cache directory: `THIRTYTWO_CACHE`, else the platform's user cache directory.

    Users without a home, as in many containers, get a directory below that for temporary files.
    """
    with contextlib.suppress(RuntimeError, KeyError):  # there is no home
        if chosen := os.environ.get("THIRTYTWO_CACHE"):
            return Path(chosen).expanduser()
        return platformdirs.user_cache_path("thirtytwo", appauthor=False)
    return Path(tempfile.gettempdir()) / f"thirtytwo-cache-{os.getuid()}"


def digest(value: object) -> str:
    """Hash of a JSON value as 32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def clear_contents() -> int:
    """Delete what is remembered of contents, so that files are hashed again; returns the number of bytes freed."""
    freed = 0
    with contextlib.suppress(OSError):
        for file in contents_dir().iterdir():
            if _KEY_FILE.fullmatch(file.name) and file.is_file():
                size = file.stat().st_size
                file.unlink()
                freed += size
    return freed


def content_key(root: Path, files: Sequence[Path]) -> str:
    """Hash of the content of `files` and of their paths below `root`.

    All files are read once; the key is remembered as long as path, size, times and inode of all files stay the same,
    unless a file was modified within the last seconds, when another change might not alter its times. Files that cannot
    be read count with their path: decoding reports all of them.
    """
    states: list[list[str | int]] = []
    newest = 0.0
    for file in files:
        try:
            state = file.stat()
        except OSError:
            states.append([_relative(root, file)])
            continue
        times = (state.st_mtime_ns, state.st_ctime_ns)
        newest = max(newest, *times)
        states.append([_relative(root, file), state.st_size, *times, state.st_ino])
    remembered = contents_dir() / digest([FORMAT, str(root.resolve()), states])
    key = _read_key(remembered)
    if key is None:
        with ThreadPoolExecutor(cpu_count(4)) as pool:
            hashes = list(pool.map(_hash, files))
        key = digest([[_relative(root, file), found] for file, found in zip(files, hashes, strict=True)])
        if time.time() - newest / 1e9 > _RECENT_SECONDS and None not in hashes:
            _write_content(remembered, key)
    return key


def read_rows(key: str) -> list[tuple[str, int]]:
    """The rows of splits that `write_rows` remembered under `key`; empty where there are none."""
    try:
        rows = json.loads((contents_dir() / key).read_text(encoding="utf-8"))
        return [(str(split), int(row)) for split, row in rows]
    except (OSError, ValueError, TypeError):
        return []


def write_rows(key: str, rows: Iterable[tuple[str, int]]) -> None:
    """Remember rows of splits under `key`, beside the content keys and until these are deleted."""
    _write_content(contents_dir() / key, json.dumps(list(rows)))


def entries_dir() -> Path:
    """Directory of the entries; each is a subdirectory named by its key."""
    return cache_dir() / ENTRIES


def contents_dir() -> Path:
    """Directory of the remembered content keys, and of the rows that cannot be read."""
    return cache_dir() / "contents"


def cached(key: str, make: Callable[[], Entry], data: str = "") -> Entry:
    """Load the entry `key`, or create and store it where it is missing or damaged.

    Args:
        key: key of the entry.
        make: creates the entry.
        data: name of the data set in listings of the cache.

    Raises:
        DataError: the size limit in the environment is not a number.
    """
    entry = entries_dir() / key
    found = _open(entry)
    if found is not None:
        return found
    limit = cache_eviction.limit_bytes(entry.parent)
    made = make()
    try:
        _store(entry, made, data)
        cache_eviction.make_room(entry.parent, limit, keep=entry)
    except OSError as error:
        logger.warning("Decoded images could not be cached in %s: %s.", entry.parent, error.strerror or error)
        return made
    return _open(entry) or made


def _open(entry: Path) -> Entry | None:
    """Open an entry as memory maps; None where it is missing or damaged."""
    try:
        record = json.loads((entry / cache_eviction.RECORD).read_text(encoding="utf-8"))
        in_use = cache_eviction.hold(entry)
        images = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in record["checksums"]}
        if all(_is_intact(entry / f"{name}.npy", images[name], record, name) for name in images):
            _hold_while_mapped(images, in_use)
            _record_use(entry, record)
            sizes = {(width, height): count for width, height, count in record["sizes"]}
            hashes = {name: from_text(record["hashes"][name]) for name in images}
            if all(len(hashes[name]) == len(images[name]) for name in images):
                return Entry(images, hashes, sizes, str(record["fingerprint"]))
    except FileNotFoundError:
        if not entry.exists():
            return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        pass
    logger.warning("The cached images in %s are damaged and will be decoded again.", entry)
    return None


def _is_intact(file: Path, images: Pixels, record: dict[str, Any], name: str) -> bool:
    """Whether an array equals what was written: checks some blocks, or the whole array where the file was modified.

    Copied files have other times; `_record_use` records them after a full comparison.
    """
    known = record.get("files", {}).get(name)
    state = file.stat()
    if known is None or [state.st_size, state.st_mtime_ns] != known["state"]:
        if _checksum(images) != record["checksums"][name]:
            return False
        record.setdefault("files", {})[name] = _state(file, images)
        return True
    return bool(_sampled(images) == known["sampled"])


def _state(file: Path, images: Pixels) -> dict[str, Any]:
    found = file.stat()
    return {"state": [found.st_size, found.st_mtime_ns], "sampled": _sampled(images)}


def _sampled(images: Pixels) -> int:
    """Checksum of some blocks, including the first and the last."""
    flat = images.reshape(-1)
    starts = np.linspace(0, max(0, flat.size - _BLOCK), _BLOCKS).astype(int)
    found = 0
    for start in sorted(set(starts.tolist())):
        found = zlib.crc32(np.ascontiguousarray(flat[start : start + _BLOCK]).data, found)
    return found


def _hold_while_mapped(images: Mapping[str, Pixels], in_use: cache_eviction.CacheInUse | None) -> None:
    """Keep the entry locked until the last of its arrays is garbage-collected."""
    for mapped in images.values():
        if in_use is not None:
            finalize(mapped.base, lambda held: None, in_use)


def _record_use(entry: Path, record: dict[str, Any]) -> None:
    """Record that the entry was used now, and new file states."""
    with contextlib.suppress(OSError):
        if json.loads((entry / cache_eviction.RECORD).read_text(encoding="utf-8")) != record:
            temporary = entry / f"{cache_eviction.RECORD}.{os.getpid()}"
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(entry / cache_eviction.RECORD)
    cache_eviction.touch_entry(entry)


def _store(entry: Path, made: Entry, data: str) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    cache_eviction.sweep(entry.parent)
    temporary = Path(tempfile.mkdtemp(prefix=cache_eviction.TEMPORARY, dir=entry.parent))
    try:
        for name, images in made.images.items():
            np.save(temporary / f"{name}.npy", images, allow_pickle=False)
        record = {
            "checksums": {name: _checksum(images) for name, images in made.images.items()},
            "files": {name: _state(temporary / f"{name}.npy", images) for name, images in made.images.items()},
            "about": {
                "data": data,
                "side": next((images.shape[1] for images in made.images.values() if images.ndim == 4), 0),
                "images": sum(len(images) for images in made.images.values()),
            },
            "sizes": [[width, height, count] for (width, height), count in made.sizes.items()],
            "fingerprint": made.fingerprint,
            "hashes": {name: as_text(hashes) for name, hashes in made.hashes.items()},
        }
        (temporary / cache_eviction.RECORD).write_text(json.dumps(record), encoding="utf-8")
        if _open_if_stored(entry) is None:
            if entry.exists():
                cache_eviction.remove_own(entry)
            temporary.replace(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_if_stored(entry: Path) -> Entry | None:
    """Open an entry that another process may have stored in the meantime."""
    return _open(entry) if (entry / cache_eviction.RECORD).is_file() else None


def _checksum(images: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(images).data)


def _hash(file: Path) -> str | None:
    """Hash of the content of a file; None where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return None


def _relative(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _read_key(file: Path) -> str | None:
    try:
        key = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return key if len(key) == 32 and set(key) <= set("0123456789abcdef") else None


def _write_content(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(text, encoding="ascii")
        temporary.replace(file)
    except OSError as error:
        logger.warning("%s could not be written: %s.", file, error.strerror or error)
