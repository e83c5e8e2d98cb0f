"""All errors that the user can fix, in one tree.

ThirtytwoError              base class; the command line prints it as one message and exits with code 2
├── ArgumentError           argument of a function that is out of its range; a ValueError, too
├── UnknownNameError        name of a data set, model, recipe, … that is not registered; suggests close matches
├── RecipeError             recipe or --set that does not fit the schema
├── DataError               data set that cannot be used as it is
│   ├── OfflineError        data set that is not on this machine and could not be downloaded
│   └── ImageError          file that is not a readable image
├── DivergedError           training whose loss became NaN or infinite
├── ProcessError            processes of a training that do not fit together, or one of which was lost
├── RunError                run directory that is missing, not empty, damaged, or in use
├── ModelFileError          ONNX file that thirtytwo did not write, or that is damaged
├── ExportError             exported model whose outputs differ from the original's
├── InputError              input file that cannot be read
├── OutputError             output that cannot be written (disk full, no permission, exists already)
├── ServiceError            service that cannot be started with these settings
├── ClusterError            Ray cluster that cannot be reached, or whose workers cannot do the work
└── MissingExtraError       optional dependency that is not installed

Any other exception that reaches the user is a bug in thirtytwo and keeps its traceback.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from operator import index
from types import ModuleType

_MOST_NAMES = 50
"""Largest number of known names that a message lists."""
_MOST_CLOSE = 3
_WORDS = re.compile(r"[^\W_]+")


class ThirtytwoError(Exception):
    """An error the user can fix.

    Attributes:
        message: what is wrong, with the value found and the value expected.
        fix: what to do about it; None where there is no specific advice.
    """

    def __init__(self, message: str, fix: str | None = None) -> None:
        self.message = message
        self.fix = fix
        between = "\n" if "\n  " in message else " "  # below a list (`text.itemized`)
        super().__init__(message if fix is None else f"{message}{between}{fix}")


class ArgumentError(ThirtytwoError, ValueError):
    """An argument of a function that is out of its range."""


class UnknownNameError(ThirtytwoError):
    """A name that is not registered; suggests close matches or lists the known names."""


class RecipeError(ThirtytwoError):
    """A recipe that does not fit the schema."""


class DataError(ThirtytwoError):
    """A data set that cannot be used as it is."""


class OfflineError(DataError):
    """A data set that is not on this machine and could not be downloaded."""


class ImageError(DataError):
    """A file that is not a readable image; the message names it.

    Attributes:
        place: its split, its file (or row, where images are not files) and its class, if it belongs to a data set.
    """

    place: tuple[str, str, str] | None = None


class DivergedError(ThirtytwoError):
    """Training whose loss became NaN or infinite."""


class ProcessError(ThirtytwoError):
    """Processes of a training that do not fit together, or one of which ended unexpectedly."""


class RunError(ThirtytwoError):
    """A run directory that is missing, not empty, damaged, or in use by another process."""


class ModelFileError(ThirtytwoError):
    """A model file that thirtytwo did not write, or that is damaged."""


class ExportError(ThirtytwoError):
    """An exported model whose outputs differ from those of the network it was exported from."""


class InputError(ThirtytwoError):
    """An input file that cannot be read; the message names it."""


class OutputError(ThirtytwoError):
    """An output that cannot be written."""


class ServiceError(ThirtytwoError):
    """A service that cannot be started with these settings."""


class ClusterError(ThirtytwoError):
    """A Ray cluster that cannot be reached, or whose workers cannot do the work."""


class MissingExtraError(ThirtytwoError):
    """An optional dependency that is not installed; `fix` holds the install command."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """One sentence of help for a mistyped name: the close matches, or the known names, of many the first."""
    names = sorted(known)
    if close := closest(found, names):
        return f"Did you mean {close}?"
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"Known: {', '.join(names[:_MOST_NAMES])}{more}." if names else "There are none."


def closest(found: str, known: Iterable[str]) -> str:
    """The known names that a mistyped name may mean, quoted and joined by `or`; empty: none is close.

    Names that have it as one of their words are closer than names with similar letters: `cat` means `tiger cat`
    rather than `crate`.
    """
    folded = {name.casefold(): name for name in known}
    wanted = found.casefold()
    close = sorted((name for name in folded if wanted in _WORDS.findall(name)), key=len)[:_MOST_CLOSE]
    close = close or get_close_matches(wanted, folded, n=_MOST_CLOSE, cutoff=0.6)
    return " or ".join(repr(folded[match]) for match in close)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that an argument of a function is one of its choices.

    Raises:
        ArgumentError: it is not.
    """
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}; found {value!r}.")


def check_least(name: str, value: int | None, least: int = 1, *, optional: bool = True) -> None:
    """Check that an argument of a function is an integer of at least `least`, or, where it is `optional`, None.

    Raises:
        ArgumentError: it is less, or no integer.
    """
    if value is None and optional:
        return
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentError(f"{name} must be an integer of at least {least}; found {value!r}.") from None
    if number < least:
        raise ArgumentError(f"{name} must be at least {least}; found {value}.")


def require(module: str, extra: str) -> ModuleType:
    """Import and return an optional dependency.

    Args:
        module: name of the module to import.
        extra: extra of thirtytwo that installs it.

    Raises:
        MissingExtraError: `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"This needs {module.split('.')[0]!r}, which is not installed.",
            f'Install it with: pip install "thirtytwo[{extra}]"',
        ) from error
