"""Arguments of the public functions that are paths or text, checked where they are given."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from thirtytwo.errors import ArgumentError


def path_of(name: str, value: object) -> Path:
    """The path that an argument of a function is: text, a path, or a run.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(os.fspath(value), str)):
        return Path(value)
    raise ArgumentError(f"{name} must be a path; found {value!r}.")


def given_path(name: str, value: object) -> Path:
    """As `path_of`, for a path that is read or written.

    Raises:
        ArgumentError: it is something else, or empty text, which would be the current folder.
    """
    path = path_of(name, value)
    if value == "":
        raise ArgumentError(f"{name} is empty.", "Check whether a variable is unset.")
    return path


def given_paths(name: str, value: object) -> list[Path]:
    """The paths that an argument of a function is: one, or several; errors are those of `given_path`."""
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return [given_path(name, value)]
    return [given_path(name, one) for one in value]


def optional_path(name: str, value: object) -> Path | None:
    """The path that an argument of a function is, or None; errors are those of `given_path`."""
    return None if value is None else given_path(name, value)


def optional_source(name: str, value: object) -> str | None:
    """The text of an argument of a function that is a name or a path, or None.

    Raises:
        ArgumentError: it is something else, or empty text.
    """
    if value is None:
        return None
    given_path(name, value)
    return os.fspath(value)  # type: ignore[call-overload, no-any-return]  # unlike the path, as it was written


def check_text(name: str, value: object, *, optional: bool = False) -> None:
    """Check that an argument of a function is text, or, where it is `optional`, None.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(value, str) and not (value is None and optional):
        raise ArgumentError(f"{name} must be text; found {value!r}.")
