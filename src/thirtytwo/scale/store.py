"""Files in a local folder or an object store, by path or address: list, read, and write each file as a whole."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import unquote

from thirtytwo.errors import InputError, OutputError, require
from thirtytwo.images.discover import is_junk
from thirtytwo.inputs import is_address
from thirtytwo.io import expand_home
from thirtytwo.scale.cluster import EXTRA
from thirtytwo.text import first_line

T = TypeVar("T")

STORE_SECONDS = 30.0
"""Time for a store to respond to the first request."""
_CHECK = "Check the address and, for an object store, the credentials and the region."


@dataclass(frozen=True)
class Store:
    """A folder, or one file, in a file system of pyarrow.

    Attributes:
        filesystem: the file system, `pyarrow.fs.FileSystem`.
        root: its path in that file system, without a slash at its end.
        address: how users write it: a local path or an address.
        local: whether it is on this machine, or on one of its mounted drives.
    """

    filesystem: Any
    root: str
    address: str
    local: bool

    def path(self, name: str) -> str:
        """Path of the file `name` in the file system; the root itself for an empty name."""
        return f"{self.root}/{name}" if name else self.root

    def full_name(self, name: str) -> str:
        """How users write the file `name` of this folder."""
        base, mark, query = self.address.partition("?")
        return f"{base.rstrip('/')}/{name}{mark}{query}" if name else self.address

    def kind(self, name: str = "") -> str:
        """`file`, `folder` or empty for what does not exist."""
        info = self.filesystem.get_file_info(self.path(name))
        kinds = require("pyarrow.fs", EXTRA).FileType
        return {kinds.File: "file", kinds.Directory: "folder"}.get(info.type, "")

    def names(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """Names of the files in a folder, relative to the root; empty where there is no such folder."""
        fs = require("pyarrow.fs", EXTRA)
        start = self.path(folder)
        selector = fs.FileSelector(start, allow_not_found=True, recursive=recursive)
        prefix = len(self.root) + 1
        return sorted(
            info.path[prefix:] for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File
        )

    def visible_names(self) -> list[str]:
        """Names of all files below, without hidden ones and those that operating systems create."""
        return [name for name in self.names(recursive=True) if not any(map(is_junk, name.split("/")))]

    def open(self, name: str = "") -> Any:
        """A file, opened for random access; an OSError where it cannot be."""
        if self.local:  # names need not be text for Python
            return Path(self.path(name)).open("rb")
        return self.filesystem.open_input_file(self.path(name))

    def read(self, name: str = "") -> bytes:
        """The content of a file; an OSError where it cannot be read."""
        with self.open(name) as stream:
            return bytes(stream.read())

    def make_folder(self, name: str = "") -> None:
        """Create a folder with its parents.

        Raises:
            OutputError: it cannot be created.
        """
        try:
            self.filesystem.create_dir(self.path(name), recursive=True)
        except OSError as error:
            raise OutputError(
                f"{self.full_name(name)} cannot be created: {_reason(error)}.", "Choose another --out."
            ) from error

    def write(self, name: str, write: Callable[[Any], object]) -> None:
        """Write a file as a whole: `write` fills a temporary one, which is then renamed.

        Raises:
            OutputError: it cannot be written.
        """
        folder, _, last = name.rpartition("/")
        temporary = f"{folder}/.{last}.{token_hex(4)}".lstrip("/")
        try:
            self.make_folder(folder)
            with self.filesystem.open_output_stream(self.path(temporary)) as stream:
                write(stream)
            self.filesystem.move(self.path(temporary), self.path(name))
        except OSError as error:
            raise OutputError(
                f"{self.full_name(name)} could not be written: {_reason(error)}.",
                "Free space or choose another --out, then run the command again.",
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        if self.kind(name) == "file":
            self.filesystem.delete_file(self.path(name))

    def remove_unfinished(self, folder: str = "") -> None:
        """Remove the temporary files that a killed `write` left in a folder."""
        for name in self.names(folder):
            last = name.rpartition("/")[2]
            if last.startswith(".") and (".parquet." in last or last.startswith(".job.json.")):
                self.remove(name)


def is_store(text: str) -> bool:
    """Whether a text is an address such as `s3://bucket/folder`, instead of a local path."""
    return is_address(text) and "://" in text and not os.path.exists(text)  # noqa: PTH110, False where it cannot exist


def local_path(text: str) -> str | None:
    """The path that a text means where it is one, or an address of the scheme `file`; None for other addresses."""
    if text.lower().startswith("file://"):
        return unquote("/" + text[len("file://") :].lstrip("/"))
    return None if is_store(text) else str(expand_home(text))


def open_store(text: str) -> Store:
    """The files at a local path or an address of pyarrow or fsspec; nothing is read yet.

    Raises:
        InputError: no installed library reads such addresses, or the store cannot be reached.
    """
    path = local_path(text)
    if path is not None:
        local = require("pyarrow.fs", EXTRA).LocalFileSystem()
        return Store(local, os.path.abspath(path), path.rstrip("/") or "/", local=True)  # noqa: PTH100, keeps links
    address = text.rstrip("/")
    filesystem, root = _within_time(lambda: _remote(address), address)
    return Store(filesystem, root.rstrip("/"), address, local=False)


def check_store(store: Store) -> str:
    """The kind of what is at the root of a store: `file`, `folder` or empty, as `Store.kind`.

    Raises:
        InputError: the store cannot be read.
    """
    return _within_time(store.kind, store.address)


def _remote(address: str) -> tuple[Any, str]:
    fs = require("pyarrow.fs", EXTRA)
    arrow = require("pyarrow", EXTRA)
    try:
        filesystem, root = fs.FileSystem.from_uri(address)
        return filesystem, str(root)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):  # a scheme that only fsspec knows
        found, root = require("fsspec", EXTRA).core.url_to_fs(address)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), str(root)


def _within_time(work: Callable[[], T], address: str) -> T:
    """Do `work` in at most `STORE_SECONDS`; the libraries of object stores try for minutes.

    Raises:
        InputError: it fails, or takes longer.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # libraries of stores raise errors of their own
            failed.append(error)

    thread = threading.Thread(target=run, name="thirtytwo-store", daemon=True)
    thread.start()
    thread.join(STORE_SECONDS)
    if done:
        return done[0]
    reason = _reason(failed[0]) if failed else f"no answer within {STORE_SECONDS:g} seconds"
    raise InputError(f"The store {address} cannot be read: {reason}.", _CHECK)


def _reason(error: Exception) -> str:
    """Why a file cannot be read or written, without the advice that libraries add."""
    if isinstance(error, OSError) and error.strerror and "\n" not in error.strerror:
        return error.strerror.rstrip(".")
    return (first_line(error) or type(error).__name__).rstrip(".")


def read_ahead(store: Store, names: list[str], threads: int) -> Iterator[tuple[str, bytes | str]]:
    """Read files in threads ahead of use; yields each name with its content, or the reason why it cannot be read."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor
    from itertools import islice

    def read(name: str) -> bytes | str:
        try:
            return store.read(name)
        except FileNotFoundError:
            return "it does not exist"
        except Exception as error:  # libraries of stores raise errors of their own
            return _reason(error)

    left = iter(names)
    with ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-read") as pool:
        ahead = deque((name, pool.submit(read, name)) for name in islice(left, 2 * threads))
        while ahead:
            name, content = ahead.popleft()
            yield name, content.result()
            ahead.extend((following, pool.submit(read, following)) for following in islice(left, 1))
