"""The images behind the predictions of a run, and the photographs that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from thirtytwo.app.library import Entry
from thirtytwo.app.originals import Original, openable
from thirtytwo.data.load import files_folder
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import ThirtytwoError
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.rundir import RunDir


def run_model(run: RunDir) -> Entry | None:
    """The model of a run, if it was exported."""
    return Entry(run.path.name, run.onnx, f"run {run.path}") if run.onnx.is_file() else None


def run_rule(run: RunDir) -> ResizeRule | None:
    """How the images of a run were made square; None if that cannot be read."""
    with suppress(ThirtytwoError):
        return run.read_recipe().data.resize
    return None


def run_folders(run: RunDir) -> list[Path]:
    """Folders that the files of a run's data may be relative to."""
    about = run.read_json(run.environment).get("data", {}) if run.environment.is_file() else {}
    found = [files_folder(str(about[key])) for key in ("path", "spec") if about.get(key)]
    return [folder for folder in dict.fromkeys(found) if folder is not None]


def source_of(images: ImageSet, position: int, folders: list[Path]) -> Path | Callable[[], Pixels]:
    """The file of an image if it is at hand, else a function that returns its decoded pixels."""
    if images.files is not None:
        for folder in folders:
            path = folder / images.files[position]
            if path.is_file():
                return path
    return lambda: images.images[position]


def openable_image(
    images: ImageSet,
    position: int,
    folders: list[Path],
    *,
    identity: str,
    caption: str,
    entry: Entry | None = None,
    rule: ResizeRule | None = None,
    viewer: str = "The model",
) -> str:
    """Let an image of a data set be opened, from its file where that is at hand; returns the key of its button."""
    source = source_of(images, position, folders)
    name = images.name_of(position)
    square = rule if isinstance(source, Path) else None  # of decoded pixels, nothing is cut off any more
    original = Original(name, source, caption, entry, square, int(images.images.shape[1]), viewer)
    return openable(original, f"{identity} {name}")
