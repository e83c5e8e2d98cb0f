"""The images of a data set as a format is given them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from thirtytwo.data.export.base import DataFormat, Item
from thirtytwo.data.split import Positions, Split
from thirtytwo.data.undecoded import Source, UndecodedPart
from thirtytwo.errors import ImageError
from thirtytwo.images.decode import decode
from thirtytwo.images.discover import IMAGE_SUFFIXES
from thirtytwo.images.formats import HEAD_BYTES, format_of
from thirtytwo.images.render import png
from thirtytwo.io import short_name, slug

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}
_NAME_BYTES = 160
_MODULUS = 2**256
_GROUP = "group "


def items_of(
    part: UndecodedPart, split: Split, positions: Positions, *, as_png: bool, as_pixels: bool
) -> Iterator[Item]:
    """The images at `positions`, which must be increasing, one after another.

    Args:
        part: the split.
        split: its name.
        positions: positions in the split, int64.
        as_png: encode every image as PNG; otherwise only those that were arrays.
        as_pixels: the format uses decoded pixels, so nothing is encoded.

    Raises:
        ImageError: an image cannot be read.
    """
    rows = part.rows[positions]
    for position, row, source in zip(positions.tolist(), rows.tolist(), part.stream(rows), strict=True):
        name, group = part.name_of(row), part.groups[position] if part.groups else ""
        encoded = _read(source, name)
        kind = format_of(encoded[:HEAD_BYTES]) or ""
        converted = not as_pixels and (as_png or (kind == "PPM" and isinstance(source, bytes)))
        if converted:
            encoded, kind = png(decode(encoded, name)), "PNG"
        yield Item(
            split=split,
            row=row,
            label=int(part.labels[position]),
            encoded=encoded,
            file_name=_file_name(row, source, kind, keeps_suffix=not converted),
            name=name,
            group=group.removeprefix(_GROUP) if group.startswith(_GROUP) else "",
        )


def _read(source: Source, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}.", "Check the path and its permissions.") from None


def _file_name(row: int, source: Source, kind: str, *, keeps_suffix: bool) -> str:
    """A file name with the suffix of the original file, if it has one, else of the format `kind`."""
    name, suffix = f"{row:06d}", _SUFFIXES.get(kind, f".{kind.lower()}")
    if isinstance(source, Path):
        name = short_name(f"{name}-{slug(source.stem)}", _NAME_BYTES)
        if keeps_suffix and source.suffix.lower() in IMAGE_SUFFIXES:
            suffix = source.suffix
    return name + suffix


class ShardItems:
    """The images of one shard: an iterator that ends when the shard is full, and what went through it.

    Attributes:
        images: their number.
        content: sum of `item_digest` of all, modulo 2^256: independent of their order.
        ended: whether there are no more images in the split.
    """

    def __init__(self, items: Iterator[Item], writer: DataFormat, split: Split) -> None:
        self._items, self._writer, self._split = items, writer, split
        self.images = self.content = 0
        self.ended = False

    def __iter__(self) -> Iterator[Item]:
        size = 0
        while not (self.images and self._writer.is_full(self._split, self.images, size)):
            item = next(self._items, None)
            if item is None:
                self.ended = True
                return
            self.images += 1
            size += len(item.encoded)
            self.content = (self.content + item_digest(item, as_pixels=self._writer.as_pixels)) % _MODULUS
            yield item


def item_digest(item: Item, *, as_pixels: bool) -> int:
    """Hash of an image with its label: of the decoded pixels, or of the encoded image."""
    found = hashlib.sha256(f"{item.label} ".encode())
    if as_pixels:
        found.update(f"{item.pixels.shape} ".encode())
        found.update(item.pixels.tobytes())
    else:
        found.update(item.encoded)
    return int.from_bytes(found.digest(), "big")


def total(contents: Iterator[str]) -> str:
    """The sum of hexadecimal digests, as `ShardItems.content`."""
    return as_text(sum(int(one, 16) for one in contents) % _MODULUS)


def as_text(content: int) -> str:
    """A digest as 64 hexadecimal digits."""
    return f"{content:064x}"
