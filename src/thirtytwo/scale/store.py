"""Files in a local folder or an object store, by path or address: list, read, and write each file as a whole."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import unquote

from thirtytwo.errors import InputError, OutputError, require
from thirtytwo.images.discover import is_junk
from thirtytwo.inputs import is_address
from thirtytwo.io import expand_home
from thirtytwo.scale.address import EXTRA
from thirtytwo.text import first_line

T = TypeVar("T")

STORE_SECONDS = 30.0
"""Time for a store to respond to the first request."""
LEFT_SECONDS = 3600.0
"""Age from which a temporary file in an object store, where no lock says who writes, is that of a killed command."""
MISSING = "it does not exist"
"""Why a file cannot be read that is not there; other reasons may pass."""
_CHECK = "Check the address and, for an object store, the credentials and the region."
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#@]*?):(?:[^/?#]*|(?!\d+/)[^?#]*)@")
"""Name and password; the second form of the latter has slashes, which are not valid, but are in many secrets."""
_SECRET_OPTION = re.compile(r"secret|password|token|credential|key|sig", re.IGNORECASE)
_CONTAINER_SCHEMES = ("abfs://", "abfss://", "wasb://", "wasbs://")
"""Addresses in which the name before the `@` is no user but a folder."""


@dataclass(frozen=True)
class Store:
    """A folder, or one file, in a file system of pyarrow.

    Attributes:
        filesystem: the file system, `pyarrow.fs.FileSystem`.
        root: its path in that file system, without a slash at its end.
        uri: how users write it: a local path or an address, which may have a password.
        local: whether it is on this machine, or on one of its mounted drives.
    """

    filesystem: Any
    root: str
    uri: str
    local: bool

    @property
    def address(self) -> str:
        """How it is named in messages and results: `uri` without a password."""
        return self.uri if self.local else without_credentials(self.uri)

    def failures(self, *more: type[Exception]) -> tuple[type[Exception], ...]:
        """What reading and writing raise, and `more`: libraries of object stores raise errors of their own."""
        return (OSError, *more) if self.local else (Exception,)

    def path(self, name: str) -> str:
        """Path of the file `name` in the file system; the root itself for an empty name."""
        return f"{self.root}/{name}" if name else self.root

    def full_name(self, name: str) -> str:
        """How users write the file `name` of this folder."""
        base, mark, query = self.address.partition("?")
        return f"{base.rstrip('/')}/{name}{mark}{query}" if name else self.address

    def kind(self, name: str = "") -> str:
        """`file`, `folder` or empty for what does not exist.

        Raises:
            InputError: the store does not say it.
        """
        with self._reading(name):
            return self._kind(name)

    def _kind(self, name: str) -> str:
        info = self.filesystem.get_file_info(self.path(name))
        kinds = require("pyarrow.fs", EXTRA).FileType
        return {kinds.File: "file", kinds.Directory: "folder"}.get(info.type, "")

    def names(self, folder: str = "", *, recursive: bool = False) -> list[str]:
        """Names of the files in a folder, relative to the root; empty where there is no such folder.

        Raises:
            InputError: they cannot be listed.
        """
        return sorted(name for name, _ in self._files(folder, recursive=recursive))

    def folders(self) -> list[str]:
        """Names of the folders in the root, without hidden ones and those that operating systems create.

        Raises:
            InputError: they cannot be listed.
        """
        kinds = require("pyarrow.fs", EXTRA).FileType
        names = (self._name(info) for info in self._list("") if info.type == kinds.Directory)
        return sorted(name for name in names if not is_junk(name))

    def _files(self, folder: str, *, recursive: bool = False) -> list[tuple[str, float | None]]:
        """Names of the files in a folder, and when each was written, in seconds; None where the store does not say."""
        kinds = require("pyarrow.fs", EXTRA).FileType
        return [
            (self._name(info), None if info.mtime_ns is None else info.mtime_ns / 1e9)
            for info in self._list(folder, recursive=recursive)
            if info.type == kinds.File
        ]

    def _list(self, folder: str, *, recursive: bool = False) -> list[Any]:
        fs = require("pyarrow.fs", EXTRA)
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        with self._reading(folder):
            return list(self.filesystem.get_file_info(selector))

    def _name(self, info: Any) -> str:
        """The name of a listed file or folder, relative to the root."""
        return str(info.path[len(self.root) + 1 :]).rstrip("/")

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except self.failures() as error:
            raise InputError(f"{self.full_name(name)} cannot be read: {self.reason(error)}.", _CHECK) from error

    def reason(self, error: Exception) -> str:
        """Why a file cannot be read or written, without the advice that libraries add."""
        return _reason(error).replace(self.uri, self.address)

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
        except self.failures() as error:
            raise OutputError(
                f"{self.full_name(name)} cannot be created: {self.reason(error)}.", "Choose another --out."
            ) from error

    def write(self, name: str, write: Callable[[Any], object]) -> None:
        """Write a file as a whole: `write` fills a temporary one, which is then renamed.

        Raises:
            OutputError: it cannot be written.
        """
        folder, _, last = name.rpartition("/")
        temporary = f"{folder}/.{last}.{token_hex(4)}".lstrip("/")
        self.make_folder(folder)
        try:
            with self.filesystem.open_output_stream(self.path(temporary)) as stream:
                write(stream)
            self.filesystem.move(self.path(temporary), self.path(name))
        except self.failures() as error:
            with suppress(*self.failures()):  # what it takes of a full disk
                self.filesystem.delete_file(self.path(temporary))
            raise OutputError(
                f"{self.full_name(name)} could not be written: {self.reason(error)}.",
                "Free space or choose another --out, then run the command again.",
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file, if there is one.

        Raises:
            OutputError: it cannot be removed.
        """
        if self.kind(name) != "file":
            return
        try:
            self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:  # meanwhile by another command
            return
        except self.failures() as error:
            raise OutputError(
                f"{self.full_name(name)} cannot be removed: {self.reason(error)}.", "Choose another --out."
            ) from error

    def remove_unfinished(self, folder: str = "") -> None:
        """Remove the temporary files that a killed `write` left in a folder; the caller holds the lock of a local one.

        In an object store there is no lock, so that only old ones are removed.
        """
        before = time.time() - LEFT_SECONDS
        for name, written in self._files(folder):
            if is_unfinished(name) and (self.local or (written is not None and written < before)):
                self.remove(name)


def is_unfinished(name: str) -> bool:
    """Whether a file is a temporary one of `Store.write`, by its name."""
    last = name.rpartition("/")[2]
    return last.startswith(".") and (".parquet." in last or last.startswith(".job.json."))


def without_credentials(address: str) -> str:
    """An address for messages: without the name and password before its host, and without options that are secret."""
    found = _CREDENTIALS.match(address)
    if found is not None:
        kept = f"{found['user']}@" if found["user"] and found["scheme"].lower() in _CONTAINER_SCHEMES else ""
        address = f"{found['scheme']}{kept}{address[found.end() :]}"
    place, mark, options = address.partition("?")
    if not mark or "://" not in place:
        return address
    shown = "&".join(one for one in options.split("&") if not _SECRET_OPTION.search(one.partition("=")[0]))
    return f"{place}?{shown}" if shown else place


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
        return Store(local, os.path.abspath(path), uri_of(text), local=True)  # noqa: PTH100, keeps links
    uri = uri_of(text)
    filesystem, root = _within_time(lambda: _remote(uri), uri)
    return Store(filesystem, root.rstrip("/"), uri, local=False)


def uri_of(text: str) -> str:
    """`Store.uri` of the store that a text names."""
    path = local_path(text)
    return text.rstrip("/") if path is None else path.rstrip("/") or "/"


def check_store(store: Store) -> str:
    """The kind of what is at the root of a store: `file`, `folder` or empty, as `Store.kind`.

    Raises:
        InputError: the store cannot be read.
    """
    return _within_time(lambda: store._kind(""), store.uri)


def _remote(uri: str) -> tuple[Any, str]:
    fs = require("pyarrow.fs", EXTRA)
    arrow = require("pyarrow", EXTRA)
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
        return filesystem, str(root)
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError):  # a scheme that only fsspec knows
        found, root = require("fsspec", EXTRA).core.url_to_fs(uri)
        return fs.PyFileSystem(fs.FSSpecHandler(found)), str(root)


def _within_time(work: Callable[[], T], uri: str) -> T:
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
    address = without_credentials(uri)
    raise InputError(f"The store {address} cannot be read: {reason.replace(uri, address)}.", _CHECK)


def _reason(error: Exception) -> str:
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
            return MISSING
        except Exception as error:  # libraries of stores raise errors of their own
            return store.reason(error)

    left = iter(names)
    with ThreadPoolExecutor(threads, thread_name_prefix="thirtytwo-read") as pool:
        ahead = deque((name, pool.submit(read, name)) for name in islice(left, 2 * threads))
        while ahead:
            name, content = ahead.popleft()
            yield name, content.result()
            ahead.extend((following, pool.submit(read, following)) for following in islice(left, 1))
