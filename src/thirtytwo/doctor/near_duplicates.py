"""Find near-duplicates: copies that were recompressed, resized, brightened, shifted by a few pixels or mirrored.

Three steps, each on fewer pairs. The spectra of all images are compared, which a shift does not change. Of pairs with
similar spectra, half-size images are compared at several shifts. What remains is aligned at `SIDE` pixels, and what is
left of both after subtracting a blurred copy is correlated: two photographs of a plane in the sky agree in their
colors, but only copies agree in their details.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SIDE = 32
"""Side in pixels at which candidates are compared."""
FREQUENCIES = 6
"""Largest frequency of a spectrum, in periods per image."""
LARGEST_SHIFT = 3
"""Largest shift in pixels, at `SIDE`, that is undone."""
SPECTRA, COARSE, FINE = 0.8, 0.8, 0.75
"""Least correlation of near-duplicates in each step."""
FINE_PHOTOGRAPHS = 0.8
"""`FINE` for reports on photographs, of which different objects on a plain ground are more alike; chosen on TrashNet by
`benchmarks/duplicates.py`."""
LEAST_CONTRAST = 4.0
"""Standard deviation of pixel values, 0 to 255, below which an image is too flat to be compared."""
LEAST_SIDE = 16
"""Median shorter side of the original images, in pixels, below which they are not compared: different digits of 8×8
pixels are as similar as copies are."""
LEAST_DETAIL = 0.0005
"""Median share of the energy of images at `SIDE` pixels in their upper half of frequencies, below which they were
enlarged from about 8 pixels: 0.0002 of digits, 0.055 of CIFAR-10, 0.016 of CIFAR-10 at 24 pixels."""
ALL_PAIRS = 500
"""Number of images up to which all pairs are candidates: spectra are relative to those of many images."""
_ROWS, _PAIRS = 1024, 4096
_SAMPLE = 500


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of near-duplicates, most similar first: `first` and `second` int64 `(P,)`, `similarity` float32 `(P,)`,
    and `mirrored` bool `(P,)`, whether the second image resembles the first as its mirror image.
    """

    first: Ints
    second: Ints
    similarity: Floats
    mirrored: Bools

    def __len__(self) -> int:
        return len(self.first)


def thumbnails(images: Pixels) -> Pixels:
    """Images uint8 `(N, S, S, 3)`, each averaged or enlarged to `SIDE` pixels, uint8 `(N, SIDE, SIDE, 3)`."""
    if images.shape[1] == SIDE:
        return images
    small = np.empty((len(images), SIDE, SIDE, 3), dtype=np.uint8)
    for position, image in enumerate(images):
        small[position] = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
    return small


def find_pairs(small: Pixels, least: float = FINE) -> Pairs:
    """All pairs of near-duplicates among images uint8 `(N, SIDE, SIDE, 3)`, with a similarity of at least `least`."""
    usable = np.flatnonzero(_contrasts(small) >= LEAST_CONTRAST)
    images = small[usable]
    half = _half_size(images)
    found = [
        _compared(images, half, first, second, mirror, least)
        for mirror in (False, True)
        for first, second in _candidates(images, mirror)
    ]
    if not found:
        none = np.zeros(0, dtype=np.int64)
        return Pairs(none, none, np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.bool_))
    every = _once(Pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True))))
    order = np.argsort(-every.similarity, kind="stable")
    return Pairs(
        usable[every.first[order]], usable[every.second[order]], every.similarity[order], every.mirrored[order]
    )


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


def find_alike(images: Pixels, sides: Sequence[int] = ()) -> list[list[int]]:
    """Groups of near-duplicates among photographs uint8 `(N, S, S, 3)`, as positions; the most similar first.

    `sides` are the shorter sides of the originals in pixels, where they may be too small to be compared.
    """
    small = thumbnails(images)
    if (sides and median(sides) < LEAST_SIDE) or is_enlarged(small):
        return []
    return grouped(find_pairs(small, FINE_PHOTOGRAPHS))


def is_enlarged(small: Pixels) -> bool:
    """Whether images uint8 `(N, SIDE, SIDE, 3)` have no more detail than images of about 8 pixels; of a sample."""
    some = small[:: max(1, len(small) // _SAMPLE)]
    some = some[_contrasts(some) >= LEAST_CONTRAST]
    if not len(some):
        return False
    energy = np.square(_amplitudes(some))
    rows, columns = np.abs(np.fft.fftfreq(SIDE, 1 / SIDE)), np.arange(SIDE // 2 + 1)
    upper = np.maximum(rows[:, None], columns) >= SIDE // 4
    share = energy[:, upper].sum(axis=1) / np.maximum(energy.sum(axis=(1, 2)), 1e-6)
    return bool(np.median(share) < LEAST_DETAIL)


def _contrasts(small: Pixels) -> Floats:
    """Standard deviation of the pixel values of each image, float32 `(N,)`."""
    parts = [small[start : start + _PAIRS].std(axis=(1, 2, 3)) for start in range(0, len(small), _PAIRS)]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def _candidates(images: Pixels, mirror: bool) -> Iterator[tuple[Ints, Ints]]:
    """Pairs `first < second` with similar spectra, of the second mirrored if `mirror`, block by block."""
    if len(images) <= ALL_PAIRS:
        yield np.triu_indices(len(images), 1)
        return
    spectra = _spectra(images)
    others = _mirrored_spectra(spectra) if mirror else spectra
    for start in range(0, len(images), _ROWS):
        block = spectra[start : start + _ROWS]
        one, other = np.nonzero(block @ others[start:].T > SPECTRA)
        later = other > one
        yield start + one[later], start + other[later]


def _spectra(images: Pixels) -> Floats:
    """Logarithmic amplitudes up to `FREQUENCIES`, less the mean of all images and scaled to length 1, `(N, D)`."""
    rows = np.r_[-FREQUENCIES : FREQUENCIES + 1]
    parts = []
    for start in range(0, len(images), _PAIRS):
        amplitudes = _amplitudes(images[start : start + _PAIRS])[:, rows, : FREQUENCIES + 1]
        parts.append(np.log(amplitudes + 50).reshape(len(amplitudes), -1).astype(np.float32))
    values = np.concatenate(parts)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _amplitudes(images: Pixels) -> Floats:
    """Amplitudes of the spectra of gray images, without their mean and faded out at the edges, `(N, SIDE, D)`."""
    window = np.hanning(SIDE + 2)[1:-1].astype(np.float32)
    gray = images.mean(axis=3, dtype=np.float32)
    gray = (gray - gray.mean(axis=(1, 2), keepdims=True)) * window * window[:, None]
    return np.abs(np.fft.rfft2(gray))


def _mirrored_spectra(spectra: Floats) -> Floats:
    """The spectra of the mirrored images: vertical frequencies change their sign."""
    shape = (len(spectra), 2 * FREQUENCIES + 1, FREQUENCIES + 1)
    return np.ascontiguousarray(spectra.reshape(shape)[:, ::-1]).reshape(spectra.shape)


def _half_size(images: Pixels) -> Floats:
    """Gray images of half the size, without their mean, float32 `(N, SIDE / 2, SIDE / 2)`."""
    side = SIDE // 2
    parts = [np.zeros((0, side, side), dtype=np.float32)]
    for start in range(0, len(images), _PAIRS):
        gray = images[start : start + _PAIRS].mean(axis=3, dtype=np.float32)
        small = gray.reshape(-1, side, 2, side, 2).mean(axis=(2, 4))
        parts.append(small - small.mean(axis=(1, 2), keepdims=True))
    return np.concatenate(parts)


def _compared(
    images: Pixels, half: Floats, first: Ints, second: Ints, mirror: bool, least: float
) -> tuple[Ints, Ints, Floats, Bools]:
    """The candidates that agree at half size and in their details, with the correlation of their details, and
    `mirror` for each of them.
    """
    kept = [(first[:0], second[:0], np.zeros(0, dtype=np.float32))]
    for start in range(0, len(first), _PAIRS):
        one, other = first[start : start + _PAIRS], second[start : start + _PAIRS]
        chosen = _coarse_correlation(half[one], half[other][:, :, ::-1] if mirror else half[other]) >= COARSE
        one, other = one[chosen], other[chosen]
        theirs = images[other][:, :, ::-1] if mirror else images[other]
        best = _best_correlation(_details(images[one]), _details(theirs))
        chosen = best >= least
        kept.append((one[chosen], other[chosen], best[chosen]))
    first, second, similarity = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return first, second, similarity, np.full(len(first), mirror, dtype=np.bool_)


def _coarse_correlation(ours: Floats, theirs: Floats) -> Floats:
    """Largest correlation float32 `(N,)` of what overlaps at shifts of `theirs` by up to a pixel."""
    side = ours.shape[1]
    best = np.full(len(ours), -1.0, dtype=np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            one = ours[:, max(down, 0) : side + min(down, 0), max(right, 0) : side + min(right, 0)]
            other = theirs[:, max(-down, 0) : side + min(-down, 0), max(-right, 0) : side + min(-right, 0)]
            product = np.einsum("nij,nij->n", one, other)
            lengths = np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", other, other)
            best = np.maximum(best, product / np.sqrt(np.maximum(lengths, 1e-6)))
    return best


def _details(images: Pixels) -> Floats:
    """Images minus their mean over 5×5 pixels, scaled to length 1, float32 `(N, SIDE, SIDE, 3)`."""
    values = images.astype(np.float32)
    padded = np.pad(values, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    rows = np.sum([padded[:, offset : offset + SIDE] for offset in range(5)], axis=0)
    details = values - np.sum([rows[:, :, offset : offset + SIDE] for offset in range(5)], axis=0) / 25
    lengths = np.sqrt(np.square(details).sum(axis=(1, 2, 3), keepdims=True))
    return np.asarray(details / np.maximum(lengths, 1e-6), dtype=np.float32)


def _best_correlation(ours: Floats, theirs: Floats) -> Floats:
    """Largest correlation float32 `(N,)` over all shifts of `theirs` by up to `LARGEST_SHIFT` pixels.

    By Fourier transforms, so the images continue at the opposite side.
    """
    product = np.fft.rfft2(ours, axes=(1, 2)) * np.conj(np.fft.rfft2(theirs, axes=(1, 2)))
    every = np.fft.irfft2(product.sum(axis=3), s=(SIDE, SIDE), axes=(1, 2))  # (N, down, right)
    near = np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
    return np.asarray(every[:, near[:, None], near].max(axis=(1, 2)), dtype=np.float32)


def _once(pairs: Pairs) -> Pairs:
    """Each pair once, with its larger similarity: a symmetric image is also a candidate as its mirror image."""
    order = np.lexsort((pairs.mirrored, -pairs.similarity, pairs.second, pairs.first))
    first, second = pairs.first[order], pairs.second[order]
    new = np.ones(len(first), dtype=bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return Pairs(first[new], second[new], pairs.similarity[order][new], pairs.mirrored[order][new])
