"""A data set at a glance: counts, and one picture of many pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thirtytwo.data.doctor import splits
from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.files import write_bytes

_LABEL_WIDTH = 150
_GAP = 4
_MOST_CLASSES = 100
_SMALLEST_CELL = 48


@dataclass(frozen=True)
class ClassCount:
    """Pictures of one class in each split that there is."""

    name: str
    counts: dict[str, int]


def class_counts(dataset: DataSet) -> list[ClassCount]:
    """One row a class, in the order of their indices."""
    counts = {name: images.counts for name, images in splits(dataset).items()}
    return [
        ClassCount(label, {name: int(found[index]) for name, found in counts.items()})
        for index, label in enumerate(dataset.classes)
    ]


def contact_sheet(images: ImageSet, per_class: int = 10, seed: int = 0) -> Image.Image:
    """One row a class: its name and pictures drawn by chance, small ones enlarged by whole factors.

    The first classes only where there are more than fit.
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
        draw.text((_GAP, top + cell // 2), _shortened(draw, font, name), fill="black", font=font, anchor="lm")
        members = np.flatnonzero(images.labels == index)
        for column, position in enumerate(np.sort(rng.permutation(members)[:per_class])):
            picture = Image.fromarray(np.ascontiguousarray(images.images[position]))
            left = _LABEL_WIDTH + column * (cell + _GAP)
            sheet.paste(picture.resize((cell, cell), Image.Resampling.NEAREST), (left, top))
    return sheet


def write_sheet(images: ImageSet, path: Path, per_class: int = 10, seed: int = 0) -> None:
    """Write `contact_sheet` as PNG."""
    buffer = io.BytesIO()
    contact_sheet(images, per_class, seed).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _shortened(draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, text: str) -> str:
    """`text`, cut so that it fits beside the pictures; line ends would break the drawing."""
    text = " ".join(text.split()) or "?"
    if draw.textlength(text, font=font) <= _LABEL_WIDTH - 2 * _GAP:
        return text
    while len(text) > 1 and draw.textlength(text + "…", font=font) > _LABEL_WIDTH - 2 * _GAP:
        text = text[:-1]
    return text + "…"
