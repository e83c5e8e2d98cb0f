"""Larger copies of a few images of a page, which a click shows: from the photographs where they are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thirtytwo.data.load import files_folder
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import ImageError
from thirtytwo.images.decode import load_preview
from thirtytwo.images.pixels import Pixels, ResizeRule, seen_box
from thirtytwo.images.render import THUMBNAIL_SIDE
from thirtytwo.report.run_record import RunRecord
from thirtytwo.report.thumbnails import Storage, Thumbnail, thumbnails
from thirtytwo.text import percent

BUDGET = 1_500_000
"""Largest number of characters of the copies of one gallery."""
STORAGES = (Storage(640, 80), Storage(512, 78), Storage(400, 75), Storage(300, 72), Storage(220, 70))
"""From best to smallest: the first with which all copies fit the budget is used."""


@dataclass(frozen=True)
class Enlarged:
    """A larger copy of an image.

    Attributes:
        source: data URI.
        square: the square that the model sees as CSS, such as `left:12.5%;top:0%;width:75%;height:100%`; empty: all.
        note: what the model sees, as a sentence; empty where nothing is cut off or distorted.
    """

    source: str
    square: str = ""
    note: str = ""


@dataclass(frozen=True)
class Photographs:
    """The photographs behind the images of a run: folders of its files, and how images were made square."""

    folders: tuple[Path, ...]
    rule: ResizeRule

    @classmethod
    def of(cls, record: RunRecord) -> Photographs:
        """Those of a run; without folders where its data is not files that are there."""
        found = [files_folder(str(record.data[key])) for key in ("path", "spec") if record.data.get(key)]
        return cls(tuple(dict.fromkeys(folder for folder in found if folder)), record.recipe.data.resize)

    def load(self, images: ImageSet, position: int) -> Pixels | None:
        """A photograph, reduced, uint8 `(H, W, 3)`; None where it is not at hand."""
        for folder in self.folders if images.files is not None else ():
            try:
                return load_preview(folder / (images.files or ())[position], STORAGES[0].side)
            except ImageError:  # moved or changed since
                continue
        return None


def enlarge(
    images: ImageSet, positions: Sequence[int], photographs: Photographs, budget: int = BUDGET
) -> list[Enlarged | None]:
    """Larger copies of images that together take at most `budget` characters; None for those that have none."""
    found: list[tuple[Pixels, bool] | None] = []
    for position in positions:
        photograph = photographs.load(images, position)
        decoded: Pixels = images.images[position]
        larger = max(decoded.shape[:2]) > THUMBNAIL_SIDE
        found.append((photograph, True) if photograph is not None else (decoded, False) if larger else None)
    copies = iter(thumbnails([one[0] for one in found if one is not None], budget, STORAGES))
    return [None if one is None else _enlarged(next(copies, None), *one, photographs.rule) for one in found]


def _enlarged(copy: Thumbnail | None, pixels: Pixels, whole: bool, rule: ResizeRule) -> Enlarged | None:
    """A copy with what the model sees of it; `whole`: the copy is of the photograph, not of the model's input."""
    if copy is None:
        return None
    height, width = pixels.shape[:2]
    source = copy.source
    if not whole or width == height:
        return Enlarged(source)
    if rule != "crop":
        how = "squeezed into a square" if rule == "squash" else "with black borders"
        return Enlarged(source, note=f"The model sees the whole image, {how}.")
    left, top, right, bottom = seen_box(width, height, rule)
    at = {"left": left / width, "top": top / height, "width": (right - left) / width, "height": (bottom - top) / height}
    square = ";".join(f"{name}:{100 * share:.2f}%" for name, share in at.items())
    cut = percent(1 - min(width, height) / max(width, height), 0)
    return Enlarged(source, square, f"The model sees the marked square; {cut} of the longer side are cut off.")
