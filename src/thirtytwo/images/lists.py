"""Lists of paths in place of images on the command line: `-` for standard input, and `@FILE`."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from thirtytwo.errors import DataError
from thirtytwo.images.discover import is_image
from thirtytwo.inputs import address_error, is_address, with_slashes

LIST_MARK = "@"
_COLUMNS = ("file", "image", "path")
"""Headings of the first column of a table of images, such as the results of `predict`."""


def expand_lists(arguments: Iterable[str]) -> list[str]:
    """Replace `-` by the paths on standard input and `@FILE` by those in a file, one path a line.

    An existing file whose name starts with `@` is itself meant. NUL may separate paths, as by `find -print0`. Quotation
    marks around a path and the backslashes of Windows are read as such where there is no file of that name.

    Raises:
        DataError: a list does not exist or cannot be read, or an argument is a URL.
    """
    return [path for argument in arguments for path in _expanded(argument)]


def _expanded(argument: str) -> Iterator[str]:
    if argument == "-":
        lines = _lines(sys.stdin.buffer.read(), "standard input")
    elif argument.startswith(LIST_MARK) and len(argument) > 1 and not os.path.exists(argument):  # noqa: PTH110, False where it cannot exist
        file = Path(os.path.expanduser(argument[1:]))  # noqa: PTH111 (raises no error for unknown users)
        try:
            lines = _lines(file.read_bytes(), str(file))
        except OSError as error:
            raise DataError(
                f"The list {str(file)!r} cannot be read: {error.strerror}.", "Expected a file with one path a line."
            ) from None
    else:
        lines = [argument]
    for line in lines:
        if is_address(line) and not os.path.exists(line):  # noqa: PTH110
            raise address_error(line, folder=False)
        yield line


def _lines(content: bytes, where: str) -> list[str]:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes
        content = content.decode("utf-16", "replace").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    if is_image("", content):
        raise DataError(
            f"There is an image in {where}; expected one path a line.",
            "Give the image as a file of its own, without - or @.",
        )
    separator = b"\0" if b"\0" in content else b"\n"
    found = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator)]
    found = [_path(line) for line in found if line.strip()]
    if not found:
        raise DataError(f"There is no path in {where}.", "Expected one path a line.")
    if found[0].partition(",")[0] in _COLUMNS and "," in found[0]:
        raise DataError(
            f"There is a table in {where}; expected one path a line.",
            "Write the column of the paths alone to a file, without its heading.",
        )
    return found


def _path(line: str) -> str:
    """The path that a line names: without quotation marks, as Windows copies paths, and with this system's slashes."""
    if len(line) > 2 and line[0] == line[-1] == '"' and not os.path.lexists(line):
        line = line[1:-1]
    return with_slashes(line)
