"""Overview of a data set: counts per class and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from thirtytwo.data.doctor import splits
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.images.render import png
from thirtytwo.io import write_bytes

_LABEL_WIDTH = 150
_GAP = 4
_MOST_CLASSES = 100
_SMALLEST_CELL = 48
_AUGMENTED_CELL = 90
_LINE = 14


@dataclass(frozen=True)
class ClassCount:
    """Number of images of one class, by split."""

    name: str
    counts: dict[str, int]


def class_counts(dataset: DataSet) -> list[ClassCount]:
    """Counts of all classes, in the order of their indices."""
    counts = {name: images.counts for name, images in splits(dataset).items()}
    return [
        ClassCount(label, {name: int(found[index]) for name, found in counts.items()})
        for index, label in enumerate(dataset.classes)
    ]


def contact_sheet(images: ImageSet, per_class: int = 10, seed: int = 0) -> Image.Image:
    """Contact sheet with one row per class: its name and randomly chosen images, enlarged by an integer factor.

    Args:
        images: the images to choose from.
        per_class: images per row.
        seed: seed of the choice.

    Returns:
        An RGB image with at most 100 rows; further classes are left out.
    """
    side = images.images.shape[1]
    cell = side * max(1, -(-_SMALLEST_CELL // side))
    classes = images.classes[:_MOST_CLASSES]
    size = (_LABEL_WIDTH + per_class * (cell + _GAP) + _GAP, len(classes) * (cell + _GAP) + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    rng = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        top = _GAP + index * (cell + _GAP)
        draw.text((_GAP, top + cell // 2), _truncate(draw, font, name), fill="black", font=font, anchor="lm")
        members = np.flatnonzero(images.labels == index)
        for column, position in enumerate(np.sort(rng.permutation(members)[:per_class])):
            tile = Image.fromarray(np.ascontiguousarray(images.images[position]))
            left = _LABEL_WIDTH + column * (cell + _GAP)
            sheet.paste(tile.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
    return sheet


def write_sheet(images: ImageSet, path: Path, per_class: int = 10, seed: int = 0) -> None:
    """Write `contact_sheet` as PNG."""
    write_bytes(path, png(np.asarray(contact_sheet(images, per_class, seed))))


def augmented_sheet(
    originals: npt.NDArray[np.uint8],
    augmented: npt.NDArray[np.uint8],
    names: Sequence[str],
    captions: Sequence[Sequence[Sequence[str]]] | None = None,
) -> Image.Image:
    """Contact sheet with one row per image: its name, the original and its augmented versions.

    Args:
        originals: uint8 `(R, H, W, 3)`.
        augmented: uint8 `(R, K, H, W, 3)`.
        names: R names.
        captions: for each augmented image, the lines of text below it.
    """
    rows, columns, side = augmented.shape[:3]
    cell = side * max(1, -(-_AUGMENTED_CELL // side))
    lines = max((len(text) for row in captions or () for text in row), default=0)
    high = cell + lines * _LINE + _GAP
    size = (_LABEL_WIDTH + (columns + 1) * (cell + _GAP) + 3 * _GAP, rows * high + _GAP)
    sheet = Image.new("RGB", size, "white")
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(11)
    for row, name in enumerate(names):
        top = _GAP + row * high
        draw.text((_GAP, top + cell // 2), _truncate(draw, font, name), fill="black", font=font, anchor="lm")
        for column, pixels in enumerate([originals[row], *augmented[row]]):
            left = _LABEL_WIDTH + column * (cell + _GAP) + (2 * _GAP if column else 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels))
            sheet.paste(tile.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
            for number, line in enumerate(captions[row][column - 1] if captions and column else ()):
                text = _truncate(draw, small, line, cell)
                draw.text((left, top + cell + number * _LINE), text, fill="black", font=small)
    return sheet


def _truncate(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    text: str,
    width: float = _LABEL_WIDTH - 2 * _GAP,
) -> str:
    """`text` on one line, truncated to at most `width` pixels."""
    text = " ".join(text.split()) or "?"
    if draw.textlength(text, font=font) <= width:
        return text
    while len(text) > 1 and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
