"""Inputs that users give where images or a folder of images are expected: addresses and other files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from thirtytwo.errors import DataError, OutputError
from thirtytwo.io import expand_home, folded, free_name, free_path, is_directory, is_file, short_name

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://?")
_HUB_PAGE = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)|hf:/)/datasets/(?P<name>[^/?#]+/[^/?#]+)")
_DOWNLOADS = {
    **dict.fromkeys(("http", "https", "ftp", "ftps", "sftp"), "curl -L -o {name} {address}"),
    "s3": "aws s3 cp {address} {name}",
    "gs": "gcloud storage cp {address} {name}",
}
"""Commands that download a file, by the scheme of its address."""
_ARCHIVES = {
    (".zip",): "unzip -q {file} -d {folder}",
    (
        ".tar",
        ".tar.gz",
        ".tgz",
        ".tar.bz2",
        ".tbz2",
        ".tar.xz",
        ".txz",
        ".tar.zst",
        ".tzst",
    ): "mkdir -p {folder} && tar -xf {file} -C {folder}",
    (".7z", ".rar"): "7z x {file} -o{folder}",
}
_OTHER_FILES = {
    (".ipynb",): ("a Jupyter notebook", "the folder of images that the notebook reads"),
    (".py",): ("a Python program", "the folder of images that the program reads"),
    (".onnx",): ("a model file", "a folder of images; the model is an option (--model)"),
    (".toml",): ("a TOML file", "a folder of images; a recipe is an option (--recipe)"),
    (".csv", ".tsv", ".json", ".jsonl", ".xlsx"): (
        "a table",
        "the folder of its images, sorted into one folder per class",
    ),
    (".parquet", ".arrow"): ("a table", "the folder that contains it"),
    (".npy", ".npz", ".pkl", ".pt", ".pth", ".mat", ".h5"): ("a file of arrays", "a folder of image files"),
    (".pdf", ".docx", ".pptx"): ("a document", "a folder of image files"),
    (".mp4", ".mov", ".avi", ".mkv", ".webm"): ("a video", "a folder of single frames, as ffmpeg writes them"),
}


def is_address(text: str) -> bool:
    """Whether a text is a URL, also one that has lost a slash as a path."""
    return bool(_ADDRESS.match(text))


def with_slashes(written: str, folder: Path | str = "") -> str:
    """A path relative to `folder` as a list or table has it; one written on Windows, as this system writes it.

    Only where the path does not exist as it is written, but does with slashes.
    """
    if "\\" not in written or os.sep != "/" or os.path.lexists(os.path.join(folder, written)):  # noqa: PTH118
        return written
    path = written.replace("\\", "/")
    return path if os.path.lexists(os.path.join(folder, path)) else written  # noqa: PTH118


def address_error(address: str, *, folder: bool) -> DataError:
    """The error for a URL where a path is expected: how to download it.

    Args:
        address: the URL.
        folder: whether a folder of images is expected, instead of images.
    """
    found = f"{address} is an address on the internet; thirtytwo reads local files only."
    if folder and (page := _HUB_PAGE.match(address)):
        return DataError(found, f"For this data set of the hub, write hf:{page['name']}.")
    scheme, _, rest = address.partition(":")
    if scheme.lower() == "file":
        path = unquote("/" + rest.lstrip("/"))
        return DataError(f"{address} is an address, not a path.", f"Give the path: {shlex.quote(path)}")
    name = short_name(address.partition("?")[0].rstrip("/").rsplit("/", 1)[-1].lstrip("-") or "download")
    if os.path.lexists(name):
        name = free_name(name, {folded(entry.name) for entry in Path().iterdir()})
    then = "unpack it and give the folder" if folder else f"give the file {name!r}"
    command = _DOWNLOADS.get(scheme.lower())
    if command is None or (folder and "." not in name):  # a page, rather than an archive
        return DataError(found, f"Download it first, then {then}.")
    fetch = command.format(address=shlex.quote(address), name=shlex.quote(name))
    return DataError(found, f"Download it first, for example with: {fetch} – then {then}.")


def archive_error(path: Path, expected: str) -> DataError | None:
    """The error for an archive, as its name says: how to unpack it into a new folder; None for other files.

    Args:
        path: an existing file.
        expected: what is expected instead, such as `a folder`.
    """
    name = path.name.lower()
    for suffixes, command in _ARCHIVES.items():
        if name.endswith(suffixes):
            suffix = max((one for one in suffixes if name.endswith(one)), key=len)
            folder = free_path(path.with_name(path.name[: -len(suffix)] or "images"))
            unpack = command.format(file=shlex.quote(str(path)), folder=shlex.quote(str(folder)))
            return DataError(
                f"{path} is an archive, not {expected}.", f"Unpack it with: {unpack} – then give {folder}."
            )
    return None


def file_error(path: Path, *, then: str) -> DataError:
    """The error for a file where a folder of images is expected: what it is, and what to give instead.

    Args:
        path: an existing file.
        then: what to give instead where nothing better is known, such as `Give a folder with one subfolder per class.`
    """
    if (archive := archive_error(path, "a folder")) is not None:
        return archive
    name = path.name.lower()
    for suffixes, (kind, instead) in _OTHER_FILES.items():
        if name.endswith(suffixes):
            return DataError(f"{path} is {kind}, not a folder of images.", f"Give {instead}.")
    return DataError(f"{path} is a file, not a folder.", then)


def refuse_data_as_output(path: Path, spec: str) -> None:
    """Check that an output is not a file of the data that a command reads, which `--force` would overwrite.

    Args:
        path: the output.
        spec: the data, as given on the command line.

    Raises:
        OutputError: it is the data, or an existing file in its folder.
    """
    data = expand_home(spec.partition("?")[0])
    output = expand_home(path)
    if not is_file(output):
        return
    inside = is_directory(data) and output.resolve().is_relative_to(data.resolve())
    if inside or output.resolve() == data.resolve():
        raise OutputError(f"{path} is a file of the data {spec}.", "Choose another name.")


def refuse_image_as_output(path: Path, images: Iterable[Path]) -> None:
    """Check that an output is none of the images that a command reads, which `--force` would overwrite.

    Raises:
        OutputError: it is.
    """
    place = os.path.realpath(expand_home(path))
    if os.path.exists(place) and place in map(os.path.realpath, images):  # noqa: PTH110, False where it cannot exist
        raise OutputError(f"{path} is one of the images.", "Choose another name with --out.")


def refuse_folder_in_data(path: Path, data: Path) -> None:
    """Check that a new folder does not become part of the data that it is made from.

    Raises:
        OutputError: it lies in the folder of the data.
    """
    if is_directory(data) and path.resolve().is_relative_to(data.resolve()):
        raise OutputError(f"{path} lies in the data {data}.", "Choose a folder outside of it.")
