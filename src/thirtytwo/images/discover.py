"""Discover images in folders and globs, in natural order; outputs of thirtytwo are recognized and skipped."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from thirtytwo.errors import DataError
from thirtytwo.images.formats import FORMATS, HEAD_BYTES, HEIF, HEIF_INSTALL, format_of, heif_is_readable
from thirtytwo.io import expand_home
from thirtytwo.text import escape_bytes

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".mpo"}
)
"""Files with these suffixes are images, or images that are damaged; of other files, the content decides."""
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Images that only a library outside of the dependencies reads; the error without it says how to install it."""
SUFFIXES = IMAGE_SUFFIXES | HEIC_SUFFIXES
"""Suffixes of every format that is read: by the command line, the app and the service."""
_NO_IMAGES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw"}
    | {".rw2", ".sr2", ".srf", ".srw", ".x3f"}  # raw photographs, many of which are TIFF files
    | {".crdownload", ".download", ".part", ".partial", ".tmp"}  # unfinished downloads
)
JUNK_NAMES = frozenset(
    {"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "$recycle.bin", "recycler", "system volume information"}
    | {"@eadir", "@synoresource", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}  # network storage
)
_SYSTEM_FOLDERS = frozenset(
    {".appledouble", ".cache", ".dvc", ".git", ".idea", ".ipynb_checkpoints", ".svn", ".thumbnails", ".vscode"}
)
"""Hidden folders that programs create; others may have been meant as classes."""

UNREADABLE = "cannot be read"
"""How the reason starts why a folder was skipped that may not be read."""
LOST_AND_FOUND = "lost+found"
"""Folder of a file system, for files that it recovers, which only its administrator may read."""
_EMPTY = "folder without images"
HEIC = f"HEIC image, which cannot be read here. {HEIF_INSTALL}"
_BMP = re.compile(rb"BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)

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
        path = expand_home(text)
        if is_folder(path):
            inside, junk = list_images(path)
            found.update(dict.fromkeys(inside))
            skipped += junk if inside or junk else [(path, _EMPTY)]
        elif os.path.lexists(path) or not glob.has_magic(text):
            found[path] = None
        else:
            matches = sorted({str(Path(match)) for match in _glob(str(path))}, key=natural_key)
            if not matches:
                raise DataError(f"No file matches {text!r}.", "Check the pattern.")
            for match in map(Path, matches):
                inside, junk = _list_match(match, path)
                found.update(dict.fromkeys(inside))
                skipped += junk
    if not found:
        raise _nothing_found(", ".join(texts) or "an empty list", skipped)
    return list(found), skipped


def _glob(pattern: str) -> list[str]:
    """As `glob.glob`, recursively, but no folder is searched twice: links may form circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return glob.glob(pattern)  # noqa: PTH207, patterns may be absolute
    at = parts.index("**")
    before, after = parts[:at], [part for part in parts[at + 1 :] if part != "**"]
    starts = glob.glob(os.path.join(*before)) if before else ["."]  # noqa: PTH118, PTH207
    if not after:
        return [start for start in starts if os.path.isdir(start)]  # noqa: PTH112
    folders = (folder for start in starts for folder in _folders(Path(start)))
    return [match for folder in folders for match in _glob(os.path.join(glob.escape(str(folder)), *after))]  # noqa: PTH118


def _folders(start: Path) -> Iterator[Path]:
    """A folder and all below it but hidden ones, each once; links are followed last."""
    folders, links, seen = [start], list[Path](), set[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen or not is_folder(folder):
            continue
        seen.add(real)
        yield folder
        with suppress(OSError):
            below = [entry for entry in os.scandir(folder) if is_folder(entry) and not entry.name.startswith(".")]
            folders += [Path(entry.path) for entry in below if not entry.is_symlink()]
            links = sorted([*links, *(Path(entry.path) for entry in below if entry.is_symlink())])


def _list_match(match: Path, pattern: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Image files in or at a match of a glob, and the skipped files with the reason for each."""
    if any(is_junk(part) and part not in pattern.parts for part in match.parts[:-1]):
        return [], [(match, "in a hidden or system folder")]
    return list_images(match) if is_folder(match) else split_by_content([match])


def _nothing_found(where: str, skipped: Sequence[tuple[Path, str]]) -> DataError:
    """The error for no image at all; names what would help most."""
    if found := [path for path, reason in skipped if reason == HEIC]:
        return DataError(f"{where} has only HEIC images ({len(found)}), which cannot be read here.", HEIF_INSTALL)
    if serious := [f"{path} {reason}" for path, reason in skipped if needs_attention(reason)]:
        return DataError(f"No image in {where}: {serious[0]}.", "Check its permissions.")
    others = sum(reason != _EMPTY for _, reason in skipped)
    rest = f"; other files or folders skipped: {others}" if others else ""
    return DataError(f"No image in {where}{rest}.", f"Expected {FORMATS} files.")


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
        places = (Path(os.path.realpath(folder)), Path(os.path.abspath(folder)))  # noqa: PTH100, resolve() follows links
        above = frozenset(os.path.realpath(parent) for place in places for parent in place.parents)
        files = _walk(folder, above, outputs, named=named)
        found = sorted(files, key=lambda path: natural_key(path.as_posix()))
    images, skipped = split_by_content(found)
    return images, skipped + outputs


def split_by_content(files: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Separate image files from all others, which come with the reason why they are skipped.

    Files with the suffix of an image are images, so that damaged ones are reported; of other files the content decides.
    """
    images: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    for file in files:
        if reason := _reason_to_skip(file):
            skipped.append((file, reason))
        else:
            images.append(file)
    return images, skipped


def is_image(name: str, data: bytes) -> bool:
    """Whether the content of a file of this name is read as an image: by its name, else by its first bytes.

    As in folders, files with the suffix of an image are images, also damaged ones; raw photographs are none.
    """
    suffix = PurePath(name).suffix.lower()
    return suffix in SUFFIXES or (suffix not in _NO_IMAGES and _has_image_head(data[:HEAD_BYTES]))


def needs_attention(reason: str) -> bool:
    """Whether a file or folder was skipped for a reason that its owner should know about."""
    return reason.startswith(UNREADABLE) or reason == HEIC


def _reason_to_skip(file: Path) -> str | None:
    """Why a file is not read as an image; None where it is."""
    if is_junk(file.name):
        return "hidden or system file"
    suffix = file.suffix.lower()
    unsupported = f"not a supported image format ({escape_bytes(file.suffix) or 'no suffix'})"
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return "not a file but a named pipe, socket or device"
        if suffix in IMAGE_SUFFIXES:
            return None
        if suffix in _NO_IMAGES:
            return unsupported
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:  # a broken link, or no permission: reported for each image when it is decoded
        is_link = os.path.islink(file)  # noqa: PTH114, False without permission
        return None if suffix in IMAGE_SUFFIXES else "broken link" if is_link else unsupported
    if not _has_image_head(head):
        return unsupported
    kind = format_of(head)
    return HEIC if kind == HEIF and not heif_is_readable() else None


def has_image_content(file: Path) -> bool:
    """Whether a file starts as an image does, whatever its name; False where it cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as stream:
            return format_of(stream.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def natural_key(text: str) -> tuple[tuple[int | str, ...], str]:
    """Sort key for natural order, with `cat2` before `cat10`.

    The order of class folders gives the label indices of runs and bundled models, so it must not change. The natsort
    package differs: it decomposes accented letters, so that `À` sorts before `B` instead of after `Z`, and sorts `²`
    as a digit.
    """
    pieces = re.split(r"(\d+)", text.casefold())
    return tuple(int(piece) if index % 2 else piece for index, piece in enumerate(pieces)), text


def _has_image_head(head: bytes) -> bool:
    """Whether the first bytes are those of an image, and not of a text that may start like one."""
    kind = format_of(head)
    return kind is not None and kind != "PPM" and (kind != "BMP" or _BMP.match(head) is not None)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden or created by the operating system."""
    return name.startswith(".") or name.casefold() in JUNK_NAMES


def hidden_classes(folder: Path) -> list[tuple[Path, int]]:
    """Hidden folders in `folder` that contain images and that no known program creates, with the number of images."""
    found = []
    for path in sorted(folder.iterdir()):
        name = path.name.casefold()
        if name.startswith(".") and name not in _SYSTEM_FOLDERS and not name.startswith(".trash") and is_folder(path):
            with suppress(OSError):
                if count := sum(map(has_image_content, path.iterdir())):
                    found.append((path, count))
    return found


def is_folder(path: Path | os.DirEntry[str]) -> bool:
    """Whether a path is a folder; False where that cannot be determined, as for links to themselves."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _walk(folder: Path, above: frozenset[str], outputs: list[tuple[Path, str]], *, named: bool) -> Iterator[Path]:
    """All files below `folder`, each folder once; follows links, last and except to a folder above.

    Collects what was skipped in `outputs`. `above` are the real paths of the folders above `folder`.
    """
    folders, links, seen = [folder], list[Path](), set[str]()
    while folders or links:
        path = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(path)
        if real in above or real in seen:
            parent = os.path.realpath(path.parent)
            is_above = real in above or Path(parent).is_relative_to(real)
            outputs.append((path, "link to a folder above it" if is_above else "link to a folder that is read already"))
            continue
        seen.add(real)
        overlays = frozenset() if named and path == folder else overlays_in(path)
        if overlays:
            outputs.append((path, f"written by thirtytwo explain ({len(overlays)} images)"))
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            outputs.append((path, f"{UNREADABLE}: {error.strerror}"))
            continue
        yield from (Path(entry.path) for entry in entries if not is_folder(entry) and entry.name not in overlays)
        below = [entry for entry in entries if is_folder(entry) and not is_junk(entry.name)]
        for entry in below:
            if kind := output_kind(Path(entry.path)):
                outputs.append((Path(entry.path), f"{kind} written by thirtytwo"))
            elif not entry.is_symlink():
                folders.append(Path(entry.path))
            else:
                links.append(Path(entry.path))
        links.sort()


def output_kind(folder: Path) -> str | None:
    """Kind of output that a folder is, or None where thirtytwo did not write it; nothing in an output is data."""
    return next((kind for names, kind in _MARKERS if all(os.path.isfile(folder / name) for name in names)), None)  # noqa: PTH113, False without permission


def overlays_in(folder: Path) -> frozenset[str]:
    """Names of the images in a folder that `thirtytwo explain` wrote; other images in it belong to the user."""
    try:
        explanations = json.loads((folder / EXPLANATIONS).read_text(encoding="utf-8"))
        return frozenset({SHEET, *(str(one["overlay"]) for one in explanations if "overlay" in one)})
    except (OSError, ValueError, TypeError, KeyError):
        return frozenset()
