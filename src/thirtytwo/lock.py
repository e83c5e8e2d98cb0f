"""Directory locks: one process at a time writes to a directory; the system releases the lock when the process ends."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thirtytwo.errors import RunError, require

LOCK = ".lock"
"""Hidden lock file in a directory that is being written to, removed afterwards; a leftover file locks nothing."""
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

logger = logging.getLogger(__name__)


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Hold an exclusive lock on an existing directory while the block runs.

    Where the file system does not support locks, a warning is logged and the directory is not locked.

    Raises:
        RunError: another process, or another thread of this one, holds the lock; or the directory is not writable.
    """
    filelock = require("filelock", "train")
    path = directory / LOCK
    lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)
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
        with suppress(OSError):  # the holder is only named in error messages
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # before the lock is released, so that no other process's file is removed
            path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    """Description of the process that holds a lock, from the content of the lock file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
