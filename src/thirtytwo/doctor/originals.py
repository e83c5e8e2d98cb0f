"""Originals of a few training images for a page: whole, and larger than the data set is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from thirtytwo.data.load import open_undecoded
from thirtytwo.data.undecoded import Source
from thirtytwo.doctor.subject import Subject
from thirtytwo.errors import ImageError, ThirtytwoError
from thirtytwo.images.decode import load_preview
from thirtytwo.images.pixels import Pixels
from thirtytwo.machine import cpu_count


def load_originals(subject: Subject, positions: Sequence[int], side: int) -> dict[int, Pixels]:
    """Training images as people see them, from where they are stored.

    Args:
        subject: the data set.
        positions: positions in the training images.
        side: largest width and height in pixels.

    Returns:
        By position, uint8 `(H, W, 3)`; without those that cannot be read anymore, and empty where the data set was
        loaded as large as it is.
    """
    if not any(min(size) > subject.side for size in subject.data.sizes):
        return {}

    def preview(item: tuple[int, Source]) -> tuple[int, Pixels] | None:
        position, source = item
        try:
            return position, load_preview(source, side)
        except ImageError:  # changed since it was read
            return None

    with ThreadPoolExecutor(cpu_count(8)) as pool:
        return dict(filter(None, pool.map(preview, _sources(subject, positions))))


def _sources(subject: Subject, positions: Sequence[int]) -> Iterator[tuple[int, Source]]:
    """Position and file, or encoded image, of each; nothing where a plan of fixes gave the rows of a table others."""
    train = subject.data.train
    if train.files is not None and subject.folder is not None:
        yield from ((position, subject.folder / train.files[position]) for position in positions)
    elif train.files is None and subject.spec is not None and not subject.data.fixes:
        order = sorted(positions, key=lambda position: int(train.rows[position]))
        try:
            part = open_undecoded(subject.spec, data_root=subject.data_root).parts["train"]
            yield from zip(order, part.stream(train.rows[np.array(order, dtype=np.int64)]), strict=True)
        except (ThirtytwoError, KeyError):  # changed since it was read
            return
