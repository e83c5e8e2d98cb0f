"""Discover images in folders and globs, in natural order; outputs of thirtytwo are recognized and skipped."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from thirtytwo.errors import DataError
from thirtytwo.images.decode import FORMATS

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "$recycle.bin"})

RUN = "run directory"
_MARKERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("recipe.toml", "split.json"), RUN),
    (("recipe.toml", "environment.json"), RUN),
    (("study.db", "base.toml"), "tuning directory"),
)
EXPLANATIONS = "explanations.json"
SHEET = "contact-sheet.png"


def find_images(paths: Iterable[str | Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find image files in files, folders and globs.

    A file given by name is included whatever its suffix, so that decoding can report what is wrong with it; folders are
    searched recursively.

    Returns:
        The images in natural order, and the skipped files with the reason for each.

    Raises:
        DataError: a glob that matches nothing, or no image in any of `paths`.
    """
    found: dict[Path, None] = {}
    skipped: list[tuple[Path, str]] = []
    texts = [str(path) for path in paths]
    for text in texts:
        path = Path(text).expanduser()
        if path.is_dir():
            inside, junk = list_images(path)
            found.update(dict.fromkeys(inside))
            skipped += junk if inside else [*junk, (path, "folder without images")]
        elif path.exists() or not glob.has_magic(text):
            found[path] = None
        else:
            matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)  # noqa: PTH207, patterns may be absolute
            if not matches:
                raise DataError(f"No file matches {text!r}.", "Check the pattern.")
            for match in map(Path, matches):
                inside, junk = list_images(match) if match.is_dir() else split_by_suffix([match])
                found.update(dict.fromkeys(inside))
                skipped += junk
    if not found:
        rest = f"; {len(skipped)} other files or folders were skipped" if skipped else ""
        raise DataError(f"No image in {', '.join(texts) or 'an empty list'}{rest}.", f"Expected {FORMATS} files.")
    return list(found), skipped


def list_images(folder: Path, *, named: bool = True) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find image files below `folder`, recursively.

    Outputs of thirtytwo are skipped as well: run directories, and the images that `explain` writes. A folder `named` by
    the user is not itself skipped for that reason.

    Returns:
        The images in natural order, and the skipped files with the reason for each.
    """
    outputs: list[tuple[Path, str]] = []
    found: list[Path] = []
    if not named and (kind := output_kind(folder)):
        outputs.append((folder, f"{kind} written by thirtytwo"))
    else:
        above = set() if named else {""}
        found = sorted(_walk(folder, above, outputs), key=lambda path: natural_key(path.as_posix()))
    images, skipped = split_by_suffix(found)
    return images, skipped + outputs


def split_by_suffix(files: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Separate image files, by their suffix, from all others, which come with the reason why they are skipped."""
    images: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    for file in files:
        if is_junk(file.name):
            skipped.append((file, "hidden or system file"))
        elif file.suffix.lower() not in IMAGE_SUFFIXES:
            skipped.append((file, f"not a supported image format ({file.suffix or 'no suffix'})"))
        else:
            images.append(file)
    return images, skipped


def natural_key(text: str) -> tuple[tuple[int | str, ...], str]:
    """Sort key for natural order, with `cat2` before `cat10`.

    The order of class folders gives the label indices of runs and bundled models, so it must not change. The natsort
    package differs: it decomposes accented letters, so that `À` sorts before `B` instead of after `Z`, and sorts `²`
    as a digit.
    """
    pieces = re.split(r"(\d+)", text.casefold())
    return tuple(int(piece) if index % 2 else piece for index, piece in enumerate(pieces)), text


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden or created by the operating system."""
    return name.startswith(".") or name.casefold() in JUNK_NAMES


def _walk(folder: Path, above: set[str], outputs: list[tuple[Path, str]]) -> Iterator[Path]:
    """All files below `folder`; follows links except to a parent folder, and collects thirtytwo's `outputs`."""
    real = os.path.realpath(folder)
    if real in above:
        return
    overlays = overlays_in(folder) if above else frozenset()
    if overlays:
        outputs.append((folder, f"written by thirtytwo explain ({len(overlays)} images)"))
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if not entry.is_dir():
            if entry.name not in overlays:
                yield path
        elif is_junk(entry.name):
            continue
        elif kind := output_kind(path):
            outputs.append((path, f"{kind} written by thirtytwo"))
        else:
            yield from _walk(path, above | {real}, outputs)


def output_kind(folder: Path) -> str | None:
    """Kind of output that a folder is, or None where thirtytwo did not write it; nothing in an output is data."""
    return next((kind for names, kind in _MARKERS if all((folder / name).is_file() for name in names)), None)


def overlays_in(folder: Path) -> frozenset[str]:
    """Names of the images in a folder that `thirtytwo explain` wrote; other images in it belong to the user."""
    try:
        explanations = json.loads((folder / EXPLANATIONS).read_text(encoding="utf-8"))
        return frozenset({SHEET, *(str(one["overlay"]) for one in explanations if "overlay" in one)})
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
