"""One process at a time writes to a directory: a lock that the system lets go of however its holder ends."""

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
"""The hidden file in a directory that is being written to; gone afterwards, and without meaning where it stayed."""
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

logger = logging.getLogger(__name__)


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Be the only one who writes to an existing directory.

    Where the file system has no locks, that is logged and nothing is guarded.

    Raises:
        RunError: another process, or another thread of this one, writes to it; or it cannot be written to.
    """
    filelock = require("filelock", "train")
    path = directory / LOCK
    lock = filelock.FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunError(
            f"{directory} is being written to by {_holder(path)}.",
            "Wait until that has ended, or stop it; then run this again.",
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise RunError(
                f"{directory} cannot be written to: {error.strerror}.", "Change its permissions, or use a copy of it."
            ) from None
        logger.warning(
            "%s is not lock_directory, since its file system has no locks; let no other process write to it", path
        )
        yield
        return
    try:
        with suppress(OSError):  # who holds it is a courtesy
            path.write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # before the lock is let go of, so that nobody else's file is taken away
            path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    """Who holds a lock, as far as its file tells."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
