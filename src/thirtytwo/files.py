"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thirtytwo.errors import OutputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it is renamed to `path` when the block ends without an error.

    Raises:
        OutputError: the file system refused (disk full, no permission, no such folder).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} could not be written: {reason}.", "Free some space or choose another place, then run it again."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_free(path: Path, *, force: bool) -> None:
    """Refuse to write over a file of the user's, unless told to.

    Raises:
        OutputError: `path` is a folder, or a file while `force` is not set.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder, and --out needs a file.", "Give a file name inside it.")
    if path.is_file() and not force:
        raise OutputError(f"{path} exists already.", "Delete it, choose another name, or overwrite it with --force.")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes whole."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole; NaN and infinity are refused, since other readers refuse them."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
