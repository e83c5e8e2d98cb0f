"""Every error that is the user's to mend, in one tree.

ThirtytwoError              anything below; the command line prints it as one message and exits with 2
├── UnknownNameError        a data set, model, recipe, … nobody registered; offers close matches
├── RecipeError             a recipe or a --set that does not fit the schema
├── DataError               a data set that cannot be used as it is
│   ├── OfflineError        a data set that would have to be fetched, and could not be
│   └── ImageError          one file that is no usable picture
├── DivergedError           training whose loss is no number any more
├── RunError                a run directory that is missing, not empty, or damaged
├── ModelFileError          an ONNX file that is not one of ours
├── ExportError             an exported model that does not agree with the one it came from
├── InputError              an input file that cannot be read
├── OutputError             an output that cannot be written (disk full, no permission, exists already)
├── ServiceError            a service that cannot be started as asked
└── MissingExtraError       an optional part that is not installed

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType


class ThirtytwoError(Exception):
    """A mistake the user can mend: what was wrong, what was found and expected, and the fix.

    `message` says what was wrong, with the found and the expected value; `fix` says what to do about it.
    """

    def __init__(self, message: str, fix: str | None = None) -> None:
        self.message = message
        self.fix = fix
        super().__init__(message if fix is None else f"{message} {fix}")


class UnknownNameError(ThirtytwoError):
    """A name that is not registered; the message lists close matches or everything there is."""


class RecipeError(ThirtytwoError):
    """A recipe that does not fit the schema."""


class DataError(ThirtytwoError):
    """A data set that cannot be used as it is."""


class OfflineError(DataError):
    """A data set that is not on this machine and could not be fetched."""


class ImageError(DataError):
    """One file that is no usable picture; the message names it."""


class DivergedError(ThirtytwoError):
    """Training whose loss became infinite or no number."""


class RunError(ThirtytwoError):
    """A run directory that is missing, not empty, or damaged."""


class ModelFileError(ThirtytwoError):
    """A model file that cannot be used."""


class ExportError(ThirtytwoError):
    """An exported model that does not agree with the network it came from."""


class InputError(ThirtytwoError):
    """An input file that cannot be read; the message names it."""


class OutputError(ThirtytwoError):
    """An output that cannot be written."""


class ServiceError(ThirtytwoError):
    """A service that cannot be started as asked."""


class MissingExtraError(ThirtytwoError):
    """An optional part that is not installed; the message holds the install command."""


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """One sentence of help for a mistyped name: the close matches, or all that is known."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    close = [folded[match] for match in get_close_matches(found.casefold(), folded, n=3, cutoff=0.6)]
    if close:
        return "Did you mean " + " or ".join(repr(name) for name in close) + "?"
    return "Known: " + ", ".join(names) + "." if names else "None is known."


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say which extra brings it.

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
