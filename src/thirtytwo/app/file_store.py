"""Uploaded files on disk, which exist while a session references them."""

from __future__ import annotations

import shutil
import tempfile
from hashlib import blake2b
from itertools import count
from pathlib import Path
from threading import Lock
from time import monotonic
from weakref import WeakValueDictionary, finalize

from thirtytwo.io import write_bytes

MAX_FILES, MAX_BYTES = 32, 2 << 30


class UploadHandle:
    """A stored file that exists while this object is referenced, unless it is evicted to make room."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.path, self.digest, self.size = path, digest, size
        self.used = monotonic()
        finalize(self, path.unlink, missing_ok=True)


class UploadStore:
    """A directory of content-addressed files, shared by all sessions of the process.

    Args:
        max_files: maximum number of files; the least recently used ones are evicted first, even if still referenced.
        max_bytes: maximum total size; a single larger file is kept alone.
    """

    def __init__(self, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="thirtytwo-app-"))
        finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._max_files, self._max_bytes = max_files, max_bytes
        self._handles: WeakValueDictionary[str, UploadHandle] = WeakValueDictionary()
        self._numbers = count()
        self._lock = Lock()

    def add(self, data: bytes, suffix: str = ".onnx") -> UploadHandle:
        """Store a file atomically, or return the existing one with the same content.

        Raises:
            OutputError: the file cannot be written.
        """
        digest = blake2b(data, digest_size=12).hexdigest()
        with self._lock:
            found = self._handles.get(digest)
            if found is None or not found.path.exists():  # as after the cleaning of temporary folders
                # A unique number: an equal file may be about to be deleted with its last handle.
                found = UploadHandle(self.folder / f"{digest}-{next(self._numbers)}{suffix}", digest, len(data))
                write_bytes(found.path, data)
                self._handles[digest] = found
                self._evict(found)
            found.used = monotonic()
        return found

    def touch(self, path: Path) -> None:
        """Mark a file as just used, if it is in the store."""
        with self._lock:
            for one in list(self._handles.values()):
                if one.path == path:
                    one.used = monotonic()

    def _evict(self, new: UploadHandle) -> None:
        others = sorted((one for one in self._handles.values() if one is not new), key=lambda one: one.used)
        size = new.size + sum(one.size for one in others)
        while others and (len(others) >= self._max_files or size > self._max_bytes):
            oldest = others.pop(0)
            size -= oldest.size
            del self._handles[oldest.digest]
            oldest.path.unlink(missing_ok=True)
