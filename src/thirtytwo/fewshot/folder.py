"""Read the images of a folder with one subfolder per class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from thirtytwo.data.sources.folder import class_images
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.content import hash_pixels
from thirtytwo.images.decode import load_image
from thirtytwo.images.header import read_size
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.inputs import address_error, file_error, is_address
from thirtytwo.io import is_directory
from thirtytwo.machine import cpu_count
from thirtytwo.text import itemized, listing

_SIDES_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class ClassFiles:
    """The image files of each class by its name, in natural order, and notes on files that were skipped."""

    files: Mapping[str, Sequence[Path]]
    skipped: tuple[str, ...]

    def sides(self) -> list[int]:
        """Shorter sides, in pixels, of a sample of the images; unreadable ones are left out."""
        every = [path for found in self.files.values() for path in found]
        sides = []
        for path in every[:: max(1, len(every) // _SIDES_SAMPLE)]:
            try:
                sides.append(min(read_size(path)))
            except ImageError:  # reported on decoding
                continue
        return sides


def find_class_files(folder: Path) -> ClassFiles:
    """Find the images of each class; the layout is that of `thirtytwo train FOLDER`.

    Raises:
        DataError: not a folder, no images in class folders, or a class folder without images.
    """
    expected = "Give a folder with one subfolder of images for each class."
    if not is_directory(folder):
        if os.path.lexists(folder):
            raise file_error(folder, then=expected)
        if is_address(str(folder)):
            raise address_error(str(folder).replace(":/", "://"), folder=True)
        raise DataError(f"{folder} does not exist.", expected)
    files, skipped = class_images(folder)
    empty = [name for name, found in files.items() if not found]
    if empty:
        reasons = "".join(f" ({note})" for note in skipped if "HEIC" in note)
        raise DataError(
            f"{folder} has class folders without images: {listing(empty, 5)}{reasons}.",
            "Add images, or remove these folders.",
        )
    return ClassFiles(files, tuple(skipped))


def load_classes(
    files: Mapping[str, Sequence[Path]], size: int, rule: ResizeRule
) -> tuple[dict[str, list[Pixels]], list[str]]:
    """Decode and resize the images of each class, uint8 `(size, size, 3)`; and why others could not be read.

    Raises:
        DataError: no image of a class can be read, or two classes contain the same image.
    """
    pixels: dict[str, list[Pixels]] = {}
    problems: list[str] = []
    first: dict[int, tuple[str, Path]] = {}
    shared: list[str] = []

    def load(path: Path) -> Pixels | ImageError:
        try:
            return load_image(path, size, rule).pixels
        except ImageError as error:
            return error

    with ThreadPoolExecutor(cpu_count(8)) as pool:
        for name, paths in files.items():
            loaded = list(pool.map(load, paths))
            failed = [one.message for one in loaded if isinstance(one, ImageError)]
            pixels[name] = [one for one in loaded if not isinstance(one, ImageError)]
            if not pixels[name]:
                every = "The only image" if len(failed) == 1 else f"None of the {len(failed)} images"
                raise DataError(
                    f"{every} of class {name!r} can{'not' if len(failed) == 1 else ''} be read: {failed[0]}",
                    "Add readable images, or remove the class.",
                )
            problems += failed
            for path, one in zip(paths, loaded, strict=True):
                if not isinstance(one, ImageError):
                    earlier_name, earlier = first.setdefault(hash_pixels(one), (name, path))
                    if earlier_name != name:
                        shared.append(f"{earlier} and {path}")
    if shared:
        raise DataError(itemized("The same image is in two classes:", shared, 5), "Keep each image in one class only.")
    return pixels, problems
