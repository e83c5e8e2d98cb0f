"""Decode all images of a data set in threads, and name those that cannot be read."""

from __future__ import annotations

import logging
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from thirtytwo.data.arrays import blank, taken
from thirtytwo.data.split import SPLITS, Split
from thirtytwo.data.survey import auto_size
from thirtytwo.data.types import Request
from thirtytwo.data.undecoded import Source, UndecodedDataSet, UndecodedPart
from thirtytwo.errors import DataError, ImageError
from thirtytwo.images.content import Hashes, load_hashed
from thirtytwo.images.pixels import Pixels
from thirtytwo.machine import cpu_count
from thirtytwo.text import listing

LARGE_SPLITS = ("train", "val")
"""Splits that may be trained on, so that larger copies of their images are decoded where training crops them."""
_CHUNK = 128

logger = logging.getLogger(__name__)


class UnreadableImagesError(DataError):
    """Images of a data set that cannot be read; names the first few.

    Attributes:
        causes: the error of each, by split and row.
        others: the other images, where they were decoded and the request leaves these out.
    """

    def __init__(
        self,
        where: str,
        total: int,
        causes: Mapping[tuple[Split, int], ImageError],
        spec: str,
        others: Decoded | None = None,
    ) -> None:
        self.causes = causes
        self.others = others
        messages = [cause.message.rstrip(".") for cause in causes.values()]
        causes_text = listing(messages, quoted=False, separator="; ")
        super().__init__(
            f"{where}: {len(messages)} of {total} images cannot be read: {causes_text}.",
            "Copy them again, or move them away; thirtytwo train leaves them out with --skip-unreadable. All of them "
            "are listed by: " + shlex.join(["thirtytwo", "data", "doctor", spec]),
        )


@dataclass(frozen=True, eq=False)
class Decoded:
    """The decoded images of a data set.

    Attributes:
        images: by split, uint8 `(N, S, S, 3)`.
        copies: larger copies of the images of `LARGE_SPLITS`, uint8 `(N, L, L, 3)`; empty where there are none.
        hashes: content hashes by split, uint64 `(N,)` (`images.content`).
        sizes: number of images by original width and height, most first.
    """

    images: Mapping[str, Pixels]
    copies: Mapping[str, Pixels]
    hashes: Mapping[str, Hashes]
    sizes: Mapping[tuple[int, int], int]

    @property
    def side(self) -> int:
        """Side S of the images in pixels."""
        return int(next(iter(self.images.values())).shape[1])


def side_of(undecoded: UndecodedDataSet, request: Request) -> int:
    """Side of the decoded images in pixels."""
    return auto_size(undecoded) if request.image_size == "auto" else request.image_size


def decode_all(undecoded: UndecodedDataSet, request: Request) -> Decoded:
    """Decode all images and resize them to one size, and those of `LARGE_SPLITS` also to the larger size, if any.

    Raises:
        UnreadableImagesError: some cannot be read.
    """
    total = sum(len(part.rows) for part in undecoded.parts.values())
    logger.info("Decoding %s images of %s.", f"{total:,}", undecoded.where)
    side = side_of(undecoded, request)
    images: dict[str, Pixels] = {}
    copies: dict[str, Pixels] = {}
    hashes: dict[str, Hashes] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    causes: dict[tuple[Split, int], ImageError] = {}
    for name in SPLITS:
        if name in undecoded.parts:
            done = _decode_part(undecoded.parts[name], side, _side_of_copies(name, side, request), request, sizes)
            images[name], hashes[name] = done.images, done.hashes
            if done.copies is not None:
                copies[name] = done.copies
            causes |= {(name, row): cause for row, cause in done.causes.items()}
    found = Decoded(images, copies, hashes, dict(sizes.most_common()))
    if causes:
        others = _without(found, undecoded, causes) if request.unreadable is not None else None
        raise _unreadable(undecoded, request, causes, others)
    return found


def _unreadable(
    undecoded: UndecodedDataSet,
    request: Request,
    causes: Mapping[tuple[Split, int], ImageError],
    others: Decoded | None = None,
) -> UnreadableImagesError:
    total = sum(len(part.rows) for part in undecoded.parts.values())
    return UnreadableImagesError(undecoded.where, total, causes, request.spec or undecoded.where, others)


def _without(found: Decoded, undecoded: UndecodedDataSet, rows: Iterable[tuple[Split, int]]) -> Decoded:
    """Decoded images without the given rows; splits of which none are left are left out."""
    gone = set(rows)
    images, copies, hashes = dict(found.images), dict(found.copies), dict(found.hashes)
    for name in {split for split, _ in gone}:
        of_split = [row for split, row in gone if split == name]
        kept = np.flatnonzero(~np.isin(undecoded.parts[name].rows, of_split))
        for arrays in (images, copies):
            if name in arrays:
                arrays[name] = taken(arrays[name], kept)
        hashes[name] = hashes[name][kept]
        if not len(kept):
            for parts in (images, copies, hashes):
                parts.pop(name, None)
    return Decoded(images, copies, hashes, found.sizes)


def check_still_unreadable(undecoded: UndecodedDataSet, request: Request, rows: Collection[tuple[str, int]]) -> None:
    """Decode images that could not be read before.

    Raises:
        UnreadableImagesError: none of them can be read; if one can, all images have to be decoded.
    """
    if not rows:
        return
    side = side_of(undecoded, request)
    causes: dict[tuple[Split, int], ImageError] = {}
    for name, part in undecoded.parts.items():
        positions = np.flatnonzero(np.isin(part.rows, [row for split, row in rows if split == name]))
        if len(positions):
            done = _decode_part(part.take(positions), side, _side_of_copies(name, side, request), request, Counter())
            causes |= {(name, row): cause for row, cause in done.causes.items()}
    if causes.keys() == set(rows):
        raise _unreadable(undecoded, request, causes)


def _side_of_copies(name: Split, side: int, request: Request) -> int:
    """Side of the larger copies of a split's images in pixels; 0: none."""
    return request.large if name in LARGE_SPLITS and request.large > side else 0


@dataclass(frozen=True, eq=False)
class _DecodedPart:
    """A decoded split: images uint8 `(N, S, S, 3)`, larger copies if any, hashes uint64 `(N,)`, and errors by row."""

    images: Pixels
    copies: Pixels | None
    hashes: Hashes
    causes: dict[int, ImageError]


def _decode_part(
    part: UndecodedPart, side: int, large: int, request: Request, sizes: Counter[tuple[int, int]]
) -> _DecodedPart:
    """Decode a split; `large` is the side of the larger copies, 0: none."""
    images = blank((len(part.rows), side, side, 3))
    copies = blank((len(part.rows), large, large, 3)) if large else None
    hashes = np.zeros(len(part.rows), dtype=np.uint64)
    causes: dict[int, ImageError] = {}

    def work(items: Sequence[tuple[int, Source]]) -> None:
        for position, source in items:
            row = int(part.rows[position])
            try:
                loaded, content = load_hashed(source, side, request.resize, part.name_of(row), large)
            except ImageError as cause:
                causes[row] = _without_frames(cause)
                continue
            images[position] = loaded.pixels
            if copies is not None and loaded.large is not None:
                copies[position] = loaded.large
            hashes[position] = content
            found.append((loaded.width, loaded.height))

    found: list[tuple[int, int]] = []
    workers = cpu_count(8)
    waiting = enumerate(part.stream(part.rows))
    with ThreadPoolExecutor(workers) as pool:
        while items := list(islice(waiting, _CHUNK * workers)):
            list(pool.map(work, [items[start::workers] for start in range(workers)]))
    sizes.update(found)
    return _DecodedPart(images, copies, hashes, dict(sorted(causes.items())))


def _without_frames(error: ImageError) -> ImageError:
    """An error that is kept, without the frames it was raised in, which hold the image."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def without_rows(undecoded: UndecodedDataSet, rows: Iterable[tuple[Split, int]]) -> UndecodedDataSet:
    """The data set without the given rows."""
    gone = set(rows)
    parts = {
        name: part.take(
            np.array([i for i, row in enumerate(part.rows) if (name, int(row)) not in gone], dtype=np.int64)
        )
        for name, part in undecoded.parts.items()
    }
    if "train" in parts and not len(parts["train"].labels):
        raise DataError(f"{undecoded.where}: no training image can be read.", "Copy the data again.")
    return replace(undecoded, parts={name: part for name, part in parts.items() if len(part.labels)})
