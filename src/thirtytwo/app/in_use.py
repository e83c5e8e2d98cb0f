"""The model that this computer's user chose last, in a file beside the projects, so that new pages use it, too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from thirtytwo.errors import ThirtytwoError
from thirtytwo.io import write_json

_FILE = "model-in-use.json"


@dataclass(frozen=True)
class InUse:
    """A chosen model: its resolved path, its name, and the models of `--model` that the app had then."""

    path: str
    name: str
    options: tuple[str, ...]


def remembered(folder: Path) -> InUse | None:
    """The model that was chosen last; None where none was, or the file is damaged."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return InUse(str(content["path"]), str(content["name"]), tuple(map(str, content["options"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path, path: Path, name: str, options: Sequence[str]) -> None:
    """Remember a chosen model; where the file cannot be written, only this page knows it."""
    with suppress(OSError, ThirtytwoError):
        write_json(folder / _FILE, {"path": str(path.resolve()), "name": name, "options": list(options)})


def forget(folder: Path) -> None:
    """Forget the chosen model."""
    with suppress(OSError):
        (folder / _FILE).unlink(missing_ok=True)
