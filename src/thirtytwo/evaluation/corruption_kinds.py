"""The kinds of common corruption: functions on float pixels, with their settings at five severities.

After D. Hendrycks and T. Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
2019 (arXiv 1903.12261). Kinds and most severities are those of CIFAR-10-C. The corruptions are computed here, for
images of any data set and size, so results are close to those on the files of CIFAR-10-C but not equal. Frost and
glass blur are left out; spatter and saturate are included. Motion blur, snow, spatter, elastic and saturate have
severities of their own, so that a higher severity always means a larger distance from the original. Lengths are for
images with a side of 32 pixels and scale with the shorter side.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.errors import require
from thirtytwo.registry import Registry

FAMILIES = ("noise", "blur", "weather", "digital")
_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_WATER, _MUD = (175, 238, 238), (63, 42, 20)

Floats = npt.NDArray[np.float32]
Apply = Callable[[Floats, Any, np.random.Generator, float], Floats]
"""`(pixels, setting, random, scale)` → corrupted pixels, not yet clipped. Pixels are float32 `(N, H, W, 3)` in 0 to 1;
`scale` is the shorter side / 32."""


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption: its family, its function, and its setting at each severity."""

    family: str
    apply: Apply
    settings: tuple[Any, ...]


CORRUPTIONS: Registry[Corruption] = Registry("corruption")


def _corruption(name: str, family: str, settings: tuple[Any, ...]) -> Callable[[Apply], Apply]:
    """Decorator that registers a corruption with its setting at each severity."""

    def add(apply: Apply) -> Apply:
        CORRUPTIONS.register(name)(Corruption(family, apply, settings))
        return apply

    return add


# Noise


@_corruption("gaussian_noise", "noise", (0.04, 0.06, 0.08, 0.09, 0.10))
def _gaussian_noise(pixels: Floats, deviation: float, random: np.random.Generator, scale: float) -> Floats:
    return pixels + np.float32(deviation) * random.standard_normal(pixels.shape, dtype=np.float32)


@_corruption("shot_noise", "noise", (500, 250, 100, 75, 50))
def _shot_noise(pixels: Floats, photons: int, random: np.random.Generator, scale: float) -> Floats:
    """Poisson noise of photon counts; white has `photons` photons."""
    return (random.poisson(pixels * photons) / photons).astype(np.float32)


@_corruption("impulse_noise", "noise", (0.01, 0.02, 0.03, 0.05, 0.07))
def _impulse_noise(pixels: Floats, share: float, random: np.random.Generator, scale: float) -> Floats:
    """Salt-and-pepper noise: a share of all values becomes 0 or 1."""
    drawn = random.random(pixels.shape, dtype=np.float32)
    return np.where(drawn < share, (drawn < share / 2).astype(np.float32), pixels)


# Blur


@_corruption("defocus_blur", "blur", (0.61, 0.72, 0.85, 1.26, 1.69))
def _defocus_blur(pixels: Floats, radius: float, random: np.random.Generator, scale: float) -> Floats:
    """Convolution with a disk; the radii match the areas of CIFAR-10-C's kernels."""
    return _convolve(pixels, _disk(radius * scale)[None])


@_corruption("motion_blur", "blur", ((6, 1.0), (6, 1.5), (7, 2.0), (8, 2.5), (9, 3.0)))
def _motion_blur(pixels: Floats, setting: tuple[float, float], random: np.random.Generator, scale: float) -> Floats:
    """Convolution with a line; each image has a random direction."""
    reach, deviation = setting
    angles = np.radians(random.uniform(-45, 45, len(pixels)))
    return _convolve(pixels, _motion_kernels(angles, reach * scale, deviation * scale))


@_corruption("zoom_blur", "blur", (1.05, 1.10, 1.15, 1.20, 1.25))
def _zoom_blur(pixels: Floats, most: float, random: np.random.Generator, scale: float) -> Floats:
    """The mean of the image and enlarged copies up to `most` times its size."""
    height, width = pixels.shape[1:3]
    steps = max(5, math.ceil((most - 1) * max(height, width)))
    total = pixels.copy()
    for zoom in np.linspace(1.0, most, steps):
        total += _resample(pixels, _zoom_matrix(height, zoom), _zoom_matrix(width, zoom))
    return total / np.float32(steps + 1)


# Weather


@_corruption("brightness", "weather", (0.05, 0.10, 0.15, 0.20, 0.30))
def _brightness(pixels: Floats, more: float, random: np.random.Generator, scale: float) -> Floats:
    """Add `more` to the value (of HSV), keeping hue and saturation."""
    value = pixels.max(axis=3, keepdims=True)
    raised = np.minimum(value + np.float32(more), 1)
    return np.asarray(np.where(value > 0, pixels * raised / np.maximum(value, 1e-6), raised))


@_corruption("fog", "weather", ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)))
def _fog(pixels: Floats, setting: tuple[float, float], random: np.random.Generator, scale: float) -> Floats:
    """Blend with fractal noise; the setting is its amount and its decay per octave."""
    amount, decay = setting
    brightest = pixels.max(axis=(1, 2, 3), keepdims=True)
    clouds = _fractal_noise(pixels.shape[:3], decay, random)[..., None]
    return np.asarray((pixels + np.float32(amount) * clouds) * brightest / (brightest + np.float32(amount)))


@_corruption("snow", "weather", ((0.01, 0.05), (0.02, 0.10), (0.035, 0.12), (0.05, 0.16), (0.07, 0.20)))
def _snow(pixels: Floats, setting: tuple[float, float], random: np.random.Generator, scale: float) -> Floats:
    """Motion-blurred flakes over a whitened image; the setting is the share of flakes and the whitening."""
    share, white = setting
    count, height, width = pixels.shape[:3]
    coarse = random.random((count, max(1, round(height / scale)), max(1, round(width / scale)), 1), dtype=np.float32)
    flakes = _resample((coarse < share).astype(np.float32), *_enlarge_matrices(coarse.shape[1:3], (height, width)))
    angles = np.radians(random.uniform(-135, -45, count))
    flakes = np.minimum(2.0 * _convolve(flakes, _motion_kernels(angles, 8 * scale, 2 * scale)), 1)
    gray = (pixels @ _GRAY)[..., None]
    whitened = np.float32(1 - white) * pixels + np.float32(white) * np.maximum(pixels, 1.5 * gray + 0.5)
    return np.asarray(whitened + flakes, dtype=np.float32)


@_corruption("spatter", "weather", ((0.04, _WATER), (0.08, _WATER), (0.10, _MUD), (0.15, _MUD), (0.22, _MUD)))
def _spatter(
    pixels: Floats, setting: tuple[float, tuple[int, int, int]], random: np.random.Generator, scale: float
) -> Floats:
    """Drops of water or mud on about this share of the image; the setting is the share and the color."""
    share, color = setting
    noise = _smooth_noise(pixels.shape[:3], 1.2 * scale, random)
    ranks = np.quantile(noise, 1 - share, axis=(1, 2), keepdims=True)
    drops = np.clip((noise - ranks) / np.float32(0.25), 0, 1)[..., None].astype(np.float32)
    paint = np.array(color, dtype=np.float32) / 255
    return np.asarray(pixels * (1 - drops) + paint * drops, dtype=np.float32)


# Digital


@_corruption("contrast", "digital", (0.75, 0.5, 0.4, 0.3, 0.15))
def _contrast(pixels: Floats, share: float, random: np.random.Generator, scale: float) -> Floats:
    means = pixels.mean(axis=(1, 2), keepdims=True)
    return np.asarray((pixels - means) * np.float32(share) + means)


@_corruption("elastic", "digital", ((0.2, 0.5), (0.35, 0.75), (0.5, 1.0), (0.7, 1.25), (0.9, 1.5)))
def _elastic(pixels: Floats, setting: tuple[float, float], random: np.random.Generator, scale: float) -> Floats:
    """Affine transform plus smooth displacements; the setting is their deviation and the corners' jitter."""
    deviation, jitter = (length * scale for length in setting)
    count, height, width = pixels.shape[:3]
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).astype(np.float32)
    center, reach = np.array([(height - 1) / 2, (width - 1) / 2]), max(1.0, min(height, width) / 3)
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])  # times reach, around the center
    corner_shift = random.uniform(-jitter, jitter, (count, 3, 2))
    # The affine displacement is linear in the position: `slopes` `(count, 3, 2)` hold dy and dx for y, x and 1.
    slopes = np.linalg.solve(np.column_stack([corners * reach, np.ones(3)]), corner_shift).astype(np.float32)
    homogeneous = np.concatenate([places - center.astype(np.float32), np.ones((height, width, 1), np.float32)], axis=-1)
    shift = np.einsum("hwk,nkd->nhwd", homogeneous, slopes)
    shift += deviation * np.stack([_smooth_noise(pixels.shape[:3], 2 * scale, random) for _ in "yx"], axis=-1)
    return _sample(pixels, places + shift)


@_corruption("jpeg", "digital", (80, 65, 58, 50, 40))
def _jpeg(pixels: Floats, quality: int, random: np.random.Generator, scale: float) -> Floats:
    return np.stack([_jpeg_roundtrip(image, quality) for image in pixels])


@_corruption("pixelate", "digital", (0.95, 0.9, 0.85, 0.75, 0.65))
def _pixelate(pixels: Floats, share: float, random: np.random.Generator, scale: float) -> Floats:
    """Downscale to `share` of the side, less for large images (as in ImageNet-C), and enlarge again."""
    share /= max(1.0, math.sqrt(scale))
    return _resample(pixels, *(_pixelate_matrix(side, max(1, int(side * share))) for side in pixels.shape[1:3]))


@_corruption("saturate", "digital", ((1.5, 0.0), (2.0, 0.1), (2.5, 0.2), (4.0, 0.2), (8.0, 0.3)))
def _saturate(pixels: Floats, setting: tuple[float, float], random: np.random.Generator, scale: float) -> Floats:
    """Multiply saturation (of HSV) by the first number and add the second; gray stays gray."""
    times, more = setting
    value = pixels.max(axis=3, keepdims=True)
    spread = value - pixels.min(axis=3, keepdims=True)
    before = spread / np.maximum(value, 1e-6)
    after = np.minimum(before * np.float32(times) + np.float32(more), 1)
    return np.where(spread > 0, value - (value - pixels) * after / np.maximum(before, 1e-6), pixels)


# Helpers


def _convolve(pixels: Floats, kernels: Floats) -> Floats:
    """Convolve each image `(N, H, W, K)` with its kernel `(N or 1, k, k)`, k odd, borders reflected."""
    signal = require("scipy.signal", "train")
    reach = kernels.shape[1] // 2
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    return np.asarray(signal.fftconvolve(padded, kernels[..., None], mode="valid", axes=(1, 2)), dtype=np.float32)


def _disk(radius: float, parts: int = 16) -> Floats:
    """Anti-aliased disk kernel `(k, k)`, sums to 1."""
    radius = max(radius, 0.5)
    reach = max(1, math.ceil(radius - 0.5))
    fine = (np.arange((2 * reach + 1) * parts) + 0.5) / parts - reach - 0.5
    inside = (fine[:, None] ** 2 + fine**2 <= radius**2).astype(np.float32)
    side = 2 * reach + 1
    kernel = inside.reshape(side, parts, side, parts).sum(axis=(1, 3))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _motion_kernels(angles: npt.NDArray[np.float64], length: float, deviation: float) -> Floats:
    """Line kernels from the center in each direction with Gaussian weights, `(N, k, k)`; each sums to 1."""
    reach = max(1, math.ceil(length))
    along = np.linspace(0, length, 4 * reach + 1)
    weights = np.exp(-0.5 * (along / deviation) ** 2)
    rows = reach - np.outer(np.sin(angles), along)  # (N, T)
    columns = reach + np.outer(np.cos(angles), along)
    side = 2 * reach + 1
    kernels = np.zeros((len(angles), side, side))
    number = np.arange(len(angles))[:, None]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            part = (1 - np.abs(rows - top - down)) * (1 - np.abs(columns - left - right))
            place = (number, np.minimum(top + down, side - 1), np.minimum(left + right, side - 1))
            np.add.at(kernels, place, part * weights)
    return np.asarray(kernels / kernels.sum(axis=(1, 2), keepdims=True), dtype=np.float32)


def _resample(pixels: Floats, rows: Floats, columns: Floats) -> Floats:
    """Resample images `(N, H, W, K)` by matrices `(H', H)` for rows and `(W', W)` for columns."""
    return np.asarray(np.einsum("ih,nhwk,jw->nijk", rows, pixels, columns, optimize=True), dtype=np.float32)


def _interpolation_matrix(places: npt.NDArray[np.floating[Any]], side: int) -> Floats:
    """Matrix `(len(places), side)` of linear interpolation at `places`; outside it repeats the border pixel."""
    inside = np.clip(places, 0, side - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(inside[:, None] - np.arange(side))), dtype=np.float32)


def _zoom_matrix(side: int, zoom: float) -> Floats:
    middle = (side - 1) / 2
    return _interpolation_matrix(middle + (np.arange(side) - middle) / zoom, side)


def _enlarge_matrices(before: tuple[int, int], after: tuple[int, int]) -> tuple[Floats, Floats]:
    rows, columns = (
        _interpolation_matrix((np.arange(large) + 0.5) * small / large - 0.5, small)
        for small, large in zip(before, after, strict=True)
    )
    return rows, columns


def _pixelate_matrix(side: int, left: int) -> Floats:
    """Matrix `(side, side)` that averages to `left` pixels and repeats them."""
    edges = np.linspace(0, side, left + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, side + 1)) - np.maximum(edges[:-1, None], np.arange(side))
    averages = np.maximum(overlap, 0) * left / side  # (left, side)
    nearest = np.minimum(((np.arange(side) + 0.5) * left / side).astype(int), left - 1)
    return np.asarray(averages[nearest], dtype=np.float32)


def _fractal_noise(shape: tuple[int, ...], decay: float, random: np.random.Generator) -> Floats:
    """Fractal noise in 0 to 1, `(N, H, W)`: each octave has twice the frequency and 1 / `decay` of the amplitude."""
    count, height, width = shape
    total = np.zeros(shape, dtype=np.float32)
    cells, weight = 2, 1.0
    while cells < 2 * max(height, width):
        drawn = random.uniform(-weight, weight, (count, cells + 1, cells + 1, 1)).astype(np.float32)
        rows, columns = (_interpolation_matrix(np.linspace(0, cells, side), cells + 1) for side in (height, width))
        total += _resample(drawn, rows, columns)[..., 0]
        cells, weight = 2 * cells, weight / decay
    total -= total.min(axis=(1, 2), keepdims=True)
    return np.asarray(total / np.maximum(total.max(axis=(1, 2), keepdims=True), 1e-6), dtype=np.float32)


def _smooth_noise(shape: tuple[int, ...], deviation: float, random: np.random.Generator) -> Floats:
    """Gaussian noise `(N, H, W)`, blurred with a Gaussian of `deviation` pixels; mean 0 and variance 1."""
    reach = max(1, math.ceil(3 * deviation))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = np.outer(line, line) / (line**2).sum()  # unit sum of squares keeps unit deviation
    drawn = random.standard_normal((shape[0], shape[1] + 2 * reach, shape[2] + 2 * reach), dtype=np.float32)
    signal = require("scipy.signal", "train")
    blurred = signal.fftconvolve(drawn, kernel[None].astype(np.float32), mode="valid", axes=(1, 2))
    return np.asarray(blurred, dtype=np.float32)


def _sample(pixels: Floats, places: Floats) -> Floats:
    """Sample images bilinearly at `places` `(N, H, W, 2)` (row, column), borders reflected."""
    count, height, width = pixels.shape[:3]
    number = np.arange(count)[:, None, None]
    corner = np.floor(places).astype(np.int64)
    fraction = (places - corner).astype(np.float32)
    total = np.zeros_like(pixels)
    for down in (0, 1):
        for right in (0, 1):
            part = np.abs(1 - down - fraction[..., 0]) * np.abs(1 - right - fraction[..., 1])
            rows, columns = _reflect(corner[..., 0] + down, height), _reflect(corner[..., 1] + right, width)
            total += part[..., None] * pixels[number, rows, columns]
    return total


def _reflect(places: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.int64]:
    """Reflect indices outside 0..side-1 at the border."""
    around = np.mod(places, 2 * side)
    return np.asarray(np.minimum(around, 2 * side - 1 - around))


def _jpeg_roundtrip(image: Floats, quality: int) -> Floats:
    file = io.BytesIO()
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), dtype=np.float32) / np.float32(255)
