"""Decoded pictures on disk, keyed by content, opened as memory maps.

An entry is a directory that appears whole or not at all. Its arrays carry checksums, taken when they are written;
opening compares sizes, headers and some blocks, and all of a file only where it was touched since. A damaged entry is
made anew. Entries together are bounded (see `cache_room`). When the disk refuses, the pictures stay in memory and a
warning says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from thirtytwo.data import cache_eviction as room
from thirtytwo.errors import DataError
from thirtytwo.images.content import Hashes, as_text, from_text
from thirtytwo.images.decode import Pixels

FORMAT = 2
_RECENT_SECONDS = 2.0
_KEY_FILE = re.compile(r"[0-9a-f]{32}(\.\d+)?")
_BLOCK, _BLOCKS = 1 << 16, 16
"""Bytes of a block, and how many of an array are compared at each opening."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Pictures of each split, uint8 `(N, H, W, 3)`, and what was learnt while decoding them.

    `hashes` name the content of each image (`images.content`).
    """

    images: Mapping[str, Pixels]
    hashes: Mapping[str, Hashes]
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


def clear_contents() -> int:
    """Forget what files hold, so that they are read again; returns the bytes that are free now."""
    freed = 0
    with contextlib.suppress(OSError):
        for file in contents_dir().iterdir():
            if _KEY_FILE.fullmatch(file.name) and file.is_file():
                size = file.stat().st_size
                file.unlink()
                freed += size
    return freed


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
            states.append([_relative(root, file), state.st_size, *times, state.st_ino])
        remembered = contents_dir() / digest([FORMAT, str(root.resolve()), states])
        key = _read_key(remembered)
        if key is None:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                hashes = list(pool.map(_hash, files))
            key = digest([[_relative(root, file), found] for file, found in zip(files, hashes, strict=True)])
            if time.time() - newest / 1e9 > _RECENT_SECONDS:
                _write_key(remembered, key)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror}.", "Check the file.") from None
    return key


def entries_dir() -> Path:
    """Where entries lie, each in a directory called by its key."""
    return cache_dir() / "pictures"


def contents_dir() -> Path:
    """Where it is remembered what files hold."""
    return cache_dir() / "contents"


def cached(key: str, make: Callable[[], Entry], data: str = "") -> Entry:
    """The entry called `key`, made and stored where it is missing or damaged; `data` is what listings call it.

    Raises:
        DataError: the bound that the environment sets is no number.
    """
    entry = entries_dir() / key
    found = _open(entry)
    if found is not None:
        return found
    limit = room.limit_bytes(entry.parent)
    made = make()
    try:
        _store(entry, made, data)
        room.make_room(entry.parent, limit, keep=entry)
    except OSError as error:
        logger.warning("Decoded pictures could not be kept in %s: %s.", entry.parent, error.strerror or error)
        return made
    return _open(entry) or made


def _open(entry: Path) -> Entry | None:
    """The entry as memory maps, or None where it is missing or not what was written."""
    try:
        facts = json.loads((entry / room.FACTS).read_text(encoding="utf-8"))
        in_use = room.hold(entry)
        images = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in facts["checksums"]}
        if all(_is_intact(entry / f"{name}.npy", images[name], facts, name) for name in images):
            _hold_while_mapped(images, in_use)
            _record_use(entry, facts)
            sizes = {(width, height): count for width, height, count in facts["sizes"]}
            hashes = {name: from_text(facts["hashes"][name]) for name in images}
            if all(len(hashes[name]) == len(images[name]) for name in images):
                return Entry(images, hashes, sizes, str(facts["fingerprint"]))
    except FileNotFoundError:
        if not entry.exists():
            return None
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        pass
    logger.warning("The kept pictures in %s are damaged and will be made anew.", entry)
    return None


def _is_intact(file: Path, images: Pixels, facts: dict[str, Any], name: str) -> bool:
    """Whether an array is what was written: cheaply where the file was not touched since, else all of it.

    Files that were copied have other times; `_record_use` remembers them once all was compared.
    """
    known = facts.get("files", {}).get(name)
    state = file.stat()
    if known is None or [state.st_size, state.st_mtime_ns] != known["state"]:
        if _checksum(images) != facts["checksums"][name]:
            return False
        facts.setdefault("files", {})[name] = _state(file, images)
        return True
    return bool(_sampled(images) == known["sampled"])


def _state(file: Path, images: Pixels) -> dict[str, Any]:
    found = file.stat()
    return {"state": [found.st_size, found.st_mtime_ns], "sampled": _sampled(images)}


def _sampled(images: Pixels) -> int:
    """Checksum of some blocks, the first and the last among them."""
    flat = images.reshape(-1)
    starts = np.linspace(0, max(0, flat.size - _BLOCK), _BLOCKS).astype(int)
    found = 0
    for start in sorted(set(starts.tolist())):
        found = zlib.crc32(np.ascontiguousarray(flat[start : start + _BLOCK]).data, found)
    return found


def _hold_while_mapped(images: Mapping[str, Pixels], in_use: room.CacheInUse | None) -> None:
    """Hold the entry until the last of its arrays is gone."""
    for mapped in images.values():
        if in_use is not None:
            finalize(mapped.base, lambda held: None, in_use)


def _record_use(entry: Path, facts: dict[str, Any]) -> None:
    """Remember that the entry was used now, and what was found out about its files."""
    with contextlib.suppress(OSError):
        if json.loads((entry / room.FACTS).read_text(encoding="utf-8")) != facts:
            temporary = entry / f"{room.FACTS}.{os.getpid()}"
            temporary.write_text(json.dumps(facts), encoding="utf-8")
            temporary.replace(entry / room.FACTS)
    room.touch_entry(entry)


def _store(entry: Path, made: Entry, data: str) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    room.sweep(entry.parent)
    temporary = Path(tempfile.mkdtemp(prefix=room.TEMPORARY, dir=entry.parent))
    try:
        for name, images in made.images.items():
            np.save(temporary / f"{name}.npy", images, allow_pickle=False)
        facts = {
            "checksums": {name: _checksum(images) for name, images in made.images.items()},
            "files": {name: _state(temporary / f"{name}.npy", images) for name, images in made.images.items()},
            "about": {
                "data": data,
                "side": next((images.shape[1] for images in made.images.values()), 0),
                "images": sum(len(images) for images in made.images.values()),
            },
            "sizes": [[width, height, count] for (width, height), count in made.sizes.items()],
            "fingerprint": made.fingerprint,
            "hashes": {name: as_text(hashes) for name, hashes in made.hashes.items()},
        }
        (temporary / room.FACTS).write_text(json.dumps(facts), encoding="utf-8")
        if _open_if_stored(entry) is None:
            if entry.exists():
                room.remove_own(entry)
            temporary.replace(entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_if_stored(entry: Path) -> Entry | None:
    """What another process may have stored in the meantime."""
    return _open(entry) if (entry / room.FACTS).is_file() else None


def _checksum(images: Pixels) -> int:
    return zlib.crc32(np.ascontiguousarray(images).data)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _relative(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _read_key(file: Path) -> str | None:
    try:
        key = file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return key if len(key) == 32 and set(key) <= set("0123456789abcdef") else None


def _write_key(file: Path, key: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_text(key, encoding="ascii")
        temporary.replace(file)
    except OSError as error:
        logger.warning("%s could not be written: %s.", file, error.strerror or error)
