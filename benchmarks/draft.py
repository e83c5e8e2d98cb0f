"""JPEGs decoded at a smaller scale: time saved, and how much pixels and predictions differ from those of the whole.

    apt-get download gnome-backgrounds mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    for package in *.deb; do dpkg -x $package originals; done
    python benchmarks/draft.py --originals originals [--photos DIR]

The originals are photographs of Debian's packages with at least 1024 pixels on the shorter side. Central squares of
them are resized to JPEGs that are some times larger than the input of a model, so that `load_image` decodes them at
1/2, 1/4 or 1/8. It is compared with the whole JPEG resized in the same way (`decode`, then `resize`). Two changes that
nobody would notice show what a difference means: another filter (Lanczos instead of bicubic), and the first row and
column of the JPEG left out. DIR (`photos` under THIRTYTWO_DATA by default) holds labeled photographs of CIFAR's
classes, on which the accuracy of the models with small inputs is measured both ways.

Median PSNR in decibels, share of images with the same class, mean difference in the confidence of that class, and CPU
milliseconds to load an image of 1024×768 and of 4032×3024 pixels. Written to `benchmarks/results/draft.json`.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.evaluation.metrics import wilson
from thirtytwo.images.decode import decode, load_image
from thirtytwo.images.discover import find_images
from thirtytwo.images.jpeg import SCALES, draft_scale
from thirtytwo.images.pixels import Pixels, resize
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import bundled_models
from thirtytwo.io import write_json
from thirtytwo.machine import package_version

sys.path.insert(0, str(Path(__file__).parent))

from predict import hardware

RESULTS = Path(__file__).parent / "results" / "draft.json"
LEAST_SIDE = 1024
SIDES = {"imagenet": (768, 1200, 2304), "cifar100": (768, 1792), "cifar10-tiny": (86, 110, 257, 512)}
"""Sides of the JPEGs for each model, in pixels."""
LABELED = {"cifar10-tiny": "cifar10", "cifar100-tiny": "cifar100"}
TIMED = ((1024, 768), (4032, 3024))
TIMED_IMAGES, REPEATS = 4, 7


def main() -> int:
    root = os.environ.get("THIRTYTWO_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--originals", type=Path, help="folder of photographs with many pixels")
    parser.add_argument("--photos", type=Path, default=Path(root) / "photos" if root else None)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.originals is None:
        print("skipped: name a folder of photographs with --originals")
        return 0
    squares = read_squares(options.originals)
    found: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "pillow": package_version("pillow"),
        "scales": [list(scale) for scale in SCALES],
        "originals": len(squares),
        "cpu_ms": {f"{width}x{height}": cpu_ms(squares, (width, height)) for width, height in TIMED},
        "agreement": {
            model: [row for side in sides if (row := agreement(model, squares, side))] for model, sides in SIDES.items()
        },
    }
    if options.photos is not None and options.photos.is_dir():
        found["accuracy"] = {model: accuracy(model, options.photos / data) for model, data in LABELED.items()}
    write_json(options.out, found)
    print(options.out)
    return 0


def read_squares(folder: Path) -> list[Image.Image]:
    """The central squares of the JPEGs below a folder that are large enough."""
    squares = []
    for path in find_images([str(folder)])[0]:
        with Image.open(path) as image:
            side = min(image.size)
            if image.format != "JPEG" or image.mode != "RGB" or side < LEAST_SIDE:
                continue
            left, top = (image.width - side) // 2, (image.height - side) // 2
            squares.append(image.crop((left, top, left + side, top + side)))
    return squares


def jpeg_of(image: Image.Image, shape: tuple[int, int]) -> bytes:
    """A JPEG of this width and height, resized sharply, as cameras do."""
    stream = io.BytesIO()
    image.resize(shape, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def whole(data: bytes, size: int) -> Pixels:
    """What `load_image` would return without a smaller scale."""
    return resize(decode(data), size, "crop")


def other_filter(data: bytes, size: int) -> Pixels:
    return np.asarray(Image.fromarray(decode(data)).resize((size, size), Image.Resampling.LANCZOS))


def shifted(data: bytes, size: int) -> Pixels:
    return resize(decode(data)[1:, 1:], size, "crop")


def agreement(model: str, squares: list[Image.Image], side: int) -> dict[str, Any] | None:
    """How alike the pixels and predictions are for JPEGs of this side; None where too few originals are as large."""
    classifier = Classifier(bundled_models()[model])
    size = classifier.info.input_size
    files = [jpeg_of(square, (side, side)) for square in squares if square.width >= side]
    if len(files) < 5:
        return None
    expected = [whole(data, size) for data in files]
    sides: dict[str, Callable[[bytes], Pixels]] = {
        "smaller_scale": lambda data: load_image(data, size, "crop").pixels,
        "other_filter": lambda data: other_filter(data, size),
        "shifted": lambda data: shifted(data, size),
    }
    reference = probabilities(classifier, expected)
    row: dict[str, Any] = {"side": side, "input_size": size, "scale": draft_scale(side, side, size), "n": len(files)}
    for name, load in sides.items():
        row[name] = alike(classifier, reference, expected, [load(data) for data in files])
    print(model, row, flush=True)
    return row


def alike(
    classifier: Classifier, reference: npt.NDArray[np.float32], expected: list[Pixels], found: list[Pixels]
) -> dict[str, float]:
    errors = (np.stack(found).astype(np.int64) - np.stack(expected)) ** 2
    others = probabilities(classifier, found)
    best = reference.argmax(axis=1)
    rows = np.arange(len(best))
    return {
        "psnr": round(float(np.median(10 * np.log10(255**2 / np.maximum(errors.mean(axis=(1, 2, 3)), 1e-3)))), 1),
        "same_class": round(float((others.argmax(axis=1) == best).mean()), 4),
        "mean_difference": round(float(np.abs(others[rows, best] - reference[rows, best]).mean()), 4),
    }


def probabilities(classifier: Classifier, pixels: list[Pixels]) -> npt.NDArray[np.float32]:
    return classifier.run_batches(np.stack(pixels), ("probabilities",))["probabilities"]


def accuracy(model: str, folder: Path) -> dict[str, Any]:
    """Accuracy on labeled photographs, decoded at a smaller scale and as a whole."""
    classifier = Classifier(bundled_models()[model])
    size, rule = classifier.info.input_size, classifier.info.resize
    files = find_images([str(folder)])[0]
    truth = np.array([classifier.classes.index(path.parent.name) for path in files])
    found: dict[str, Any] = {"n": len(files)}
    for name, pixels in (
        ("smaller_scale", [load_image(path, size, rule).pixels for path in files]),
        ("whole", [resize(decode(path), size, rule) for path in files]),
    ):
        right = int((probabilities(classifier, pixels).argmax(axis=1) == truth).sum())
        found[name] = {"accuracy": round(right / len(files), 4), "ci95": list(wilson(right, len(files)))}
    print(model, found, flush=True)
    return found


def cpu_ms(squares: list[Image.Image], shape: tuple[int, int]) -> dict[str, float]:
    """Median CPU milliseconds to load a JPEG of this shape for an input of 224 pixels, and to decode and resize it."""
    files = [jpeg_of(square, shape) for square in squares[:TIMED_IMAGES]]
    sides: dict[str, Callable[[bytes], Any]] = {
        "smaller_scale": lambda data: load_image(data, 224),
        "whole": lambda data: whole(data, 224),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, load in sides.items():
            started = time.process_time()
            for data in files:
                load(data)
            taken[name].append(1000 * (time.process_time() - started) / len(files))
    return {name: round(statistics.median(values), 2) for name, values in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
