"""The content of the PDF report: blocks of text, tables, figures and images, which `templates/paper.typ` lays out.

Nothing here is escaped: the template reads blocks as data and never parses a string as markup.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.sections import Cell, Table
from thirtytwo.images.pixels import Pixels
from thirtytwo.images.render import is_pixelated, png
from thirtytwo.report.gallery import locate
from thirtytwo.report.paper_words import Words
from thirtytwo.report.run_record import RunRecord

Block: TypeAlias = dict[str, Any]
T = TypeVar("T")

SIDE = 256
"""Side of images in pixels, at most 2.5 cm of paper."""
WIDTH, GAP = 16.6, 0.27
"""Width of the text and space between images, in cm."""
LETTER, MAX_LINES = 0.0222, 70
"""Width of a letter of code, in cm per point of its size; lines of code that fit one page, others are broken."""


@dataclass(frozen=True)
class Material:
    """What the paper is made of.

    Args:
        record: the files of the run.
        images: the images of each split, None where they are not available.
        figures: names of the files of figures, without suffix.
        words: the words of the paper.
        files: files that blocks refer to by name; filled while blocks are made.
    """

    record: RunRecord
    images: Mapping[str, ImageSet | None]
    figures: Sequence[str]
    words: Words
    files: dict[str, bytes] = field(default_factory=dict)

    def add_image(self, pixels: Pixels) -> str:
        """Add an image, uint8 `(H, W, 3)`, and return the name of its file."""
        suffix, data = encode(pixels)
        name = f"image-{len(self.files) + 1}{suffix}"
        self.files[name] = data
        return name

    def pixels(self, split: str, positions: npt.NDArray[np.int64]) -> list[Pixels] | None:
        """The images of predictions at these positions; None where they are not available."""
        part = self.images.get(split)
        if part is None or split not in self.record.out_of_sample:
            return None
        places, _ = locate(self.record.out_of_sample[split], part, positions)
        return None if places is None else [part.images[place] for place in places.tolist()]


def encode(pixels: Pixels) -> tuple[str, bytes]:
    """Suffix and content of an image file: small images enlarged without smoothing, photographs as JPEG."""
    if is_pixelated(pixels):
        factor = max(1, SIDE // max(pixels.shape[:2]))
        return ".png", png(pixels.repeat(factor, axis=0).repeat(factor, axis=1), optimize=True)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return ".jpg", stream.getvalue()


def heading(text: str, level: int = 1) -> Block:
    """A heading."""
    return {"kind": "heading", "text": text, "level": level}


def text(*sentences: str) -> list[Block]:
    """A paragraph of those sentences that are not empty; nothing where all are."""
    joined = " ".join(sentence for sentence in sentences if sentence)
    return [{"kind": "text", "text": joined}] if joined else []


def bullets(items: Iterable[str]) -> Block:
    """A list."""
    return {"kind": "bullets", "items": list(items)}


def facts(rows: Iterable[tuple[str, str]], caption: str) -> Block:
    """A table of names and values."""
    return {"kind": "facts", "rows": [list(row) for row in rows], "caption": caption}


def table(
    found: Table,
    caption: str = "",
    *,
    names: int = 1,
    parts: int = 1,
    size: float = 9.0,
    tight: float = 3.0,
    wide: int = 0,
) -> Block:
    """A table.

    Args:
        found: the table.
        caption: its caption; that of the table by default.
        names: number of columns that are aligned to the left, of a table of numbers.
        parts: number of columns of the page in which the rows stand side by side.
        size: size of the font in points.
        tight: space above and below each row in points.
        wide: number of columns at the end that take the space left.
    """
    rows = [[_cell(cell) for cell in row] for row in found.rows]
    return {
        "kind": "table",
        "caption": caption or (f"{found.title}." if found.title else ""),
        "columns": list(found.columns),
        "parts": _chunks(rows, parts),
        "names": len(found.columns) if found.words else names,
        "wide": wide,
        "size": size,
        "tight": tight,
    }


def _chunks(items: Sequence[T], count: int) -> list[Sequence[T]]:
    """At most `count` parts of about equal length, at least one."""
    each = max(1, -(-len(items) // count))
    return [items[start : start + each] for start in range(0, max(1, len(items)), each)]


def _cell(cell: Cell) -> dict[str, Any]:
    return {"text": cell.text, "note": cell.note, "best": cell.best}


def figure(name: str, caption: str, width: float) -> Block:
    """A figure from a file; `width` is a share of the width of the text."""
    return {"kind": "figure", "file": f"{name}.svg", "caption": caption, "width": width}


def gallery(items: Sequence[tuple[str, tuple[str, ...]]], caption: str, columns: int = 6) -> Block:
    """Images by file name with lines of text below them."""
    return {
        "kind": "images",
        "items": [{"file": file, "lines": list(lines), "alt": ", ".join(lines)} for file, lines in items],
        "caption": caption,
        "columns": columns,
        "side": WIDTH / columns - GAP,
        "longest": 14 if columns <= 6 else 9,
    }


def code(text: str, size: float = 8.0, columns: int = 1) -> Block:
    """Lines of code, in columns side by side."""
    parts = ["\n".join(lines) for lines in _chunks(text.splitlines(), columns)]
    letters = max(1, int(WIDTH / columns / (size * LETTER)))
    rows = max((sum(-(-len(line) // letters) or 1 for line in part.splitlines()) for part in parts), default=0)
    return {"kind": "code", "parts": parts, "size": size, "long": rows > MAX_LINES}
