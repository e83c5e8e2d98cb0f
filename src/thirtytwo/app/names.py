"""Names that this computer's user gave to models, in a file beside the projects."""

from __future__ import annotations

import json
from pathlib import Path

from thirtytwo.io import lock_directory, write_json

_FILE = "model-names.json"
_LOCK_SECONDS = 20.0
MAX_NAME = 80
"""Most characters of a name."""


def given_names(folder: Path) -> dict[str, str]:
    """The names by resolved path of the model file; none where the file is missing or damaged."""
    try:
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {path: name for path, name in pairs if isinstance(name, str)}


def give_name(folder: Path, path: Path, name: str) -> None:
    """Name a model; an empty name gives it back its own one. Names of models that are gone are dropped.

    Raises:
        RunError: the folder cannot be locked.
        OutputError: the file cannot be written.
    """
    name = " ".join(name.split())[:MAX_NAME]
    with lock_directory(folder, wait=_LOCK_SECONDS):
        names = {known: given for known, given in given_names(folder).items() if Path(known).is_file()}
        names.pop(str(path.resolve()), None)
        write_json(folder / _FILE, names | ({str(path.resolve()): name} if name else {}))
