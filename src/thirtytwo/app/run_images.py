"""The images behind the predictions of a run, and the photographs that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import streamlit as st

from thirtytwo.app.library import Entry
from thirtytwo.app.originals import Original, openable
from thirtytwo.data.load import files_folder
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import ImageError, ThirtytwoError
from thirtytwo.images.decode import load_preview
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.images.render import for_display
from thirtytwo.rundir import RunDir

_MAX_TILES = 200
"""Number of small images of data sets that are kept for all sessions; one takes up to 150 kB."""


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


def tile_of(images: ImageSet, position: int, folders: list[Path], side: int) -> Pixels:
    """An image as people see it, uint8 `(H, W, 3)`: from its file where that is at hand, else as decoded.

    The longer side of one from a file is at most `side` pixels.
    """
    source = source_of(images, position, folders)
    if isinstance(source, Path):
        with suppress(ImageError, OSError):  # deleted meanwhile
            return _preview(source, source.stat().st_mtime_ns, side)
    return for_display(images.images[position], least=side // 2)


@st.cache_resource(show_spinner=False, max_entries=_MAX_TILES)
def _preview(path: Path, modified: int, side: int) -> Pixels:
    return load_preview(path, side)


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
