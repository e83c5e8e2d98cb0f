"""Model files that sessions uploaded or taught: each content once, whole, within bounds, gone with its last session."""

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

MOST_FILES, MOST_BYTES = 32, 2 << 30


class Held:
    """A file that is there while somebody holds this object, unless others needed its room."""

    def __init__(self, path: Path, digest: str, size: int) -> None:
        self.path, self.digest, self.size = path, digest, size
        self.used = monotonic()
        finalize(self, path.unlink, missing_ok=True)


class Store:
    """A directory of files by content, shared by all sessions of the process.

    Args:
        most_files: beyond these, the file that was not used for longest is removed, whoever holds it.
        most_bytes: likewise; a single larger file is kept alone.
    """

    def __init__(self, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="thirtytwo-app-"))
        finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._most_files, self._most_bytes = most_files, most_bytes
        self._held: WeakValueDictionary[str, Held] = WeakValueDictionary()
        self._numbers = count()
        self._lock = Lock()

    def add(self, data: bytes) -> Held:
        """The file of this content, written whole if nobody holds it yet.

        Raises:
            OutputError: it could not be written.
        """
        digest = blake2b(data, digest_size=12).hexdigest()
        with self._lock:
            found = self._held.get(digest)
            if found is None:
                # A number of its own: the last holder of an equal file may be about to remove that one.
                found = Held(self.folder / f"{digest}-{next(self._numbers)}.onnx", digest, len(data))
                write_bytes(found.path, data)
                self._held[digest] = found
                self._make_room(found)
            found.used = monotonic()
        return found

    def touch(self, path: Path) -> None:
        """Note that a file was used just now, if it is one of these."""
        with self._lock:
            for one in list(self._held.values()):
                if one.path == path:
                    one.used = monotonic()

    def _make_room(self, new: Held) -> None:
        others = sorted((one for one in self._held.values() if one is not new), key=lambda one: one.used)
        size = new.size + sum(one.size for one in others)
        while others and (len(others) >= self._most_files or size > self._most_bytes):
            oldest = others.pop(0)
            size -= oldest.size
            del self._held[oldest.digest]
            oldest.path.unlink(missing_ok=True)
