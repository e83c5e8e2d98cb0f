"""Find near-duplicates: copies that were recompressed, resized, brightened, shifted by a few pixels or mirrored.

Two steps. Coarse descriptors, a few colors of each image, are compared for all pairs, and pairs above a threshold are
candidates. Candidates are then aligned at `SIDE` pixels, and what remains after subtracting a blurred copy of each is
correlated: two photographs of a plane in the sky agree in their colors, but only copies agree in their details.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SIDE = 32
"""Side in pixels at which candidates are compared."""
CELLS = 8
"""Rows and columns of a descriptor."""
LARGEST_SHIFT = 3
"""Largest shift in pixels, at `SIDE`, that is undone."""
COARSE = 0.9
"""Least correlation of the descriptors of a candidate pair."""
FINE = 0.6
"""Least correlation of the details of near-duplicates."""
LEAST_CONTRAST = 4.0
"""Standard deviation of pixel values, 0 to 255, below which an image is too flat to be compared."""
_ROWS, _PAIRS = 1024, 2048


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of near-duplicates, most similar first: `first` and `second` int64 `(P,)`, `similarity` float32 `(P,)`."""

    first: Ints
    second: Ints
    similarity: Floats

    def __len__(self) -> int:
        return len(self.first)


def thumbnails(images: Pixels) -> Pixels:
    """Images uint8 `(N, S, S, 3)` averaged or enlarged to `SIDE` pixels, uint8 `(N, SIDE, SIDE, 3)`."""
    if images.shape[1] == SIDE:
        return images
    small = np.empty((len(images), SIDE, SIDE, 3), dtype=np.uint8)
    for position, image in enumerate(images):
        small[position] = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
    return small


def find_pairs(small: Pixels, coarse: float = COARSE, fine: float = FINE) -> Pairs:
    """All pairs of near-duplicates among images uint8 `(N, SIDE, SIDE, 3)`.

    Args:
        small: the images.
        coarse: least correlation of descriptors.
        fine: least correlation of details, after alignment.
    """
    found = [_compare(small, *pairs, fine) for pairs in _candidates(small, coarse)]
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Pairs(none, none, np.zeros(0, dtype=np.float32))
    first, second, similarity = (np.concatenate(parts) for parts in zip(*found, strict=True))
    first, second, similarity = _once(first, second, similarity)
    order = np.argsort(-similarity, kind="stable")
    return Pairs(first[order], second[order], similarity[order])


def grouped(pairs: Pairs) -> list[list[int]]:
    """Images that are connected by pairs, in groups of two or more; the first group has the most similar pair."""
    parent: dict[int, int] = {}

    def root(image: int) -> int:
        while parent.setdefault(image, image) != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for one, other in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        parent[root(other)] = root(one)
    groups: dict[int, list[int]] = {}
    for image in parent:  # in the order of the pairs
        groups.setdefault(root(image), []).append(image)
    return [sorted(group) for group in groups.values()]


def _candidates(small: Pixels, coarse: float) -> Iterator[tuple[Ints, Ints, bool]]:
    """Pairs `first < second` whose descriptors correlate, block by block, and whether the second is mirrored."""
    described, usable = _descriptors(small)
    rows = np.flatnonzero(usable)
    straight = described[rows]
    mirrored = straight.reshape(-1, CELLS, CELLS, 3)[:, :, ::-1].reshape(straight.shape)
    for start in range(0, len(rows), _ROWS):
        block = straight[start : start + _ROWS]
        for mirror, others in ((False, straight), (True, mirrored)):
            one, other = np.nonzero(block @ others[start:].T > coarse)
            later = other > one
            if later.any():
                yield rows[start + one[later]], rows[start + other[later]], mirror


def _descriptors(small: Pixels) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Means of cells without the mean color, scaled to length 1, `(N, CELLS² · 3)`, and which images are not flat."""
    cell = SIDE // CELLS
    means = np.empty((len(small), CELLS, CELLS, 3), dtype=np.float32)
    for start in range(0, len(small), 4096):
        part = small[start : start + 4096].astype(np.float32)
        means[start : start + 4096] = part.reshape(-1, CELLS, cell, CELLS, cell, 3).mean(axis=(2, 4))
    means -= means.mean(axis=(1, 2), keepdims=True)
    flat = means.reshape(len(small), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    usable = lengths[:, 0] > LEAST_CONTRAST * np.sqrt(flat.shape[1])
    return flat / np.maximum(lengths, 1e-6), usable


def _compare(small: Pixels, first: Ints, second: Ints, mirror: bool, fine: float) -> tuple[Ints, Ints, Floats]:
    """The candidates whose details correlate by at least `fine` at the best alignment, with that correlation."""
    kept: list[tuple[Ints, Ints, Floats]] = []
    for start in range(0, len(first), _PAIRS):
        one, other = first[start : start + _PAIRS], second[start : start + _PAIRS]
        theirs = small[other][:, :, ::-1] if mirror else small[other]
        best = _best_correlation(_details(small[one]), _details(theirs))
        chosen = best >= fine
        kept.append((one[chosen], other[chosen], best[chosen]))
    return (
        np.concatenate([part[0] for part in kept]),
        np.concatenate([part[1] for part in kept]),
        np.concatenate([part[2] for part in kept]),
    )


def _details(images: Pixels) -> Floats:
    """Images minus their mean over 5×5 pixels, float32 `(N, SIDE, SIDE, 3)`."""
    values = images.astype(np.float32)
    padded = np.pad(values, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    rows = sum(padded[:, offset : offset + SIDE] for offset in range(5))
    blurred = sum(rows[:, :, offset : offset + SIDE] for offset in range(5)) / 25
    return np.asarray(values - blurred, dtype=np.float32)


def _best_correlation(ours: Floats, theirs: Floats) -> Floats:
    """Largest correlation float32 `(N,)` over all shifts of `theirs` by up to `LARGEST_SHIFT` pixels."""
    most = LARGEST_SHIFT
    best = np.full(len(ours), -1.0, dtype=np.float32)
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            one = ours[:, max(down, 0) : SIDE + min(down, 0), max(right, 0) : SIDE + min(right, 0)]
            other = theirs[:, max(-down, 0) : SIDE + min(-down, 0), max(-right, 0) : SIDE + min(-right, 0)]
            product = np.einsum("nijc,nijc->n", one, other)
            lengths = np.einsum("nijc,nijc->n", one, one) * np.einsum("nijc,nijc->n", other, other)
            best = np.maximum(best, product / np.sqrt(np.maximum(lengths, 1e-6)))
    return best


def _once(first: Ints, second: Ints, similarity: Floats) -> tuple[Ints, Ints, Floats]:
    """Each pair once, with its larger similarity: a symmetric image is also a candidate as its mirror image."""
    order = np.lexsort((-similarity, second, first))
    first, second, similarity = first[order], second[order], similarity[order]
    new = np.ones(len(first), dtype=bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return first[new], second[new], similarity[new]
