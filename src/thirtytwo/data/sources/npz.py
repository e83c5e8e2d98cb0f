"""NumPy files with arrays of pixels and labels, such as Keras's `mnist.npz` or those of `data export`."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.data import cache
from thirtytwo.data.arrays import release_pages
from thirtytwo.data.sources.tables import KnownDataSet
from thirtytwo.data.split import SPLITS, Positions, Split
from thirtytwo.data.types import Request, refuse_options
from thirtytwo.data.undecoded import UndecodedDataSet, UndecodedPart, name_of_file
from thirtytwo.errors import DataError
from thirtytwo.images.pixels import Pixels
from thirtytwo.images.render import ppm

SUFFIX, _MEMBER = ".npz", ".npy"
_LOCAL_HEADER = 30
_BATCH_BYTES = 2**24


def find_npz(root: Path) -> Path | None:
    """The `.npz` file that `root` is or, as a folder, has as its only one; None where there is none."""
    if os.path.isfile(root):  # noqa: PTH113, False without permission
        return root if root.suffix.lower() == SUFFIX else None
    try:
        found = [entry for entry in root.iterdir() if entry.suffix.lower() == SUFFIX and not entry.name.startswith(".")]
    except OSError:
        return None
    return found[0] if len(found) == 1 else None


def open_npz(root: Path, request: Request, known: KnownDataSet | None = None) -> UndecodedDataSet:
    """Open a file with `x_train`, uint8 `(N, H, W, 3)` or `(N, H, W)`, `y_train`, integers `(N,)`, and other splits.

    `classes`, strings `(C,)`, names the classes; without it they are called by their indices. Pickled objects are
    refused.

    Raises:
        DataError: not such a file.
    """
    file = find_npz(root)
    assert file is not None
    refuse_options(request, str(file), ())
    arrays = _open(file)
    found: dict[Split, Pixels] = {split: arrays[f"x_{split}"] for split in SPLITS if f"x_{split}" in arrays}
    if "train" not in found and not (request.whole and found):
        raise DataError(
            f"{file} has no array 'x_train'; found {', '.join(sorted(arrays)) or 'none'}.",
            "Expected x_train, uint8 (N, H, W, 3), y_train (N,), and optionally x_test, y_test and classes.",
        )
    labels = {split: _labels(file, split, arrays, pixels) for split, pixels in found.items()}
    most = max((int(own.max()) for own in labels.values() if len(own)), default=0)
    classes = _classes(file, arrays, most)
    return UndecodedDataSet(
        name=name_of_file(file),
        where=str(file),
        classes=classes,
        parts={split: _part(split, pixels, labels[split]) for split, pixels in found.items()},
        content=lambda: cache.content_key(file.parent, [file]),
    )


def _open(file: Path) -> Mapping[str, Any]:
    """The arrays by name; those that are not compressed are mapped from the file instead of read.

    Raises:
        DataError: damaged, encrypted, or with pickled objects.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(_MEMBER)]
            return {member.filename.removesuffix(_MEMBER): _array(file, archive, member) for member in members}
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError, MemoryError) as error:
        raise DataError(f"{file} {_reason(error)}.", "Save it with numpy.savez, without objects.") from None


def _reason(error: Exception) -> str:
    """What is wrong with a file that cannot be read, as the end of a sentence."""
    if isinstance(error, MemoryError):
        return "has arrays that are too large for the memory of this machine"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, RuntimeError):  # of zipfile
        return "is encrypted, or compressed in a way that is not supported"
    if isinstance(error, zipfile.BadZipFile | zlib.error | EOFError):
        return "is damaged, incomplete, or not a file of NumPy"
    if "allow_pickle" in str(error) or "pickle" in str(error):
        return "has Python objects, which are not read, instead of arrays of numbers"
    return "has an array that is damaged or incomplete"


def _array(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    mapped = _mapped(file, member) if member.compress_type == zipfile.ZIP_STORED else None
    if mapped is not None:
        return mapped
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _mapped(file: Path, member: zipfile.ZipInfo) -> Any:
    """A memory map of an uncompressed array in the file; None where it cannot be mapped."""
    with file.open("rb") as stream:
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER)
        start = member.header_offset + _LOCAL_HEADER
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        stream.seek(start)
        if np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if fortran or dtype.hasobject or size == 0 or stream.tell() + size > start + member.file_size:
            return None
        return np.memmap(file, dtype, "r", stream.tell(), shape)


def _labels(file: Path, split: Split, arrays: Mapping[str, Any], pixels: Any) -> Positions:
    if pixels.dtype != np.uint8 or not (pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] in (1, 3))):
        raise DataError(
            f"{file}: x_{split} is {pixels.dtype} {pixels.shape}; expected uint8 (N, H, W, 3) or (N, H, W).",
            "Scale it to 0 to 255 and convert it, with the channels last.",
        )
    values = arrays.get(f"y_{split}")
    if values is None:
        raise DataError(f"{file} has no array 'y_{split}'.", f"Add the labels of x_{split}, integers (N,).")
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != pixels.shape[:1] or values.dtype.kind not in "iu":
        raise DataError(
            f"{file}: y_{split} is {values.dtype} {values.shape}; expected integers ({len(pixels)},).",
            "Give one class index for each image.",
        )
    labels = np.array(values, dtype=np.int64)
    if len(labels) and labels.min() < 0:
        raise DataError(f"{file}: y_{split} contains {labels.min()}; expected 0 or more.", "Correct the labels.")
    return labels


def _classes(file: Path, arrays: Mapping[str, Any], most: int) -> tuple[str, ...]:
    if "classes" not in arrays:
        return tuple(map(str, range(most + 1)))
    names = arrays["classes"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) <= most:
        raise DataError(
            f"{file}: classes is {names.dtype} {names.shape}; expected at least {most + 1} strings.",
            "Name every class, in the order of the labels.",
        )
    return tuple(map(str, names))


def _part(split: Split, pixels: Any, labels: Positions) -> UndecodedPart:
    def stream(rows: Positions) -> Iterator[bytes]:
        step = max(1, _BATCH_BYTES // max(1, pixels[:1].nbytes))
        for start in range(0, len(rows), step):
            for image in pixels[rows[start : start + step]]:
                colored = image.reshape(*image.shape[:2], -1)
                yield ppm(np.broadcast_to(colored, (*image.shape[:2], 3)))
            release_pages(pixels)

    return UndecodedPart(
        labels=labels,
        rows=np.arange(len(labels), dtype=np.int64),
        stream=stream,
        name_of=lambda row: f"{split} row {row}",
        random_access=True,
    )
