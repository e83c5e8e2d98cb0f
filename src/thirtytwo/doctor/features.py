"""Features of all images of a data set by a bundled model, which was not trained on its labels where avoidable."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from thirtytwo.data import cache
from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import DataError, UnknownNameError
from thirtytwo.fewshot.base import PHOTO_BASE, PHOTO_SIDE, RESIZE
from thirtytwo.images.decode import Pixels, resize
from thirtytwo.inference.classifier import Classifier, bundled_models, default_model

Features: TypeAlias = npt.NDArray[np.float32]
"""One row for each image, float32 `(N, D)`."""

SMALL_BASES = ("cifar100-tiny", "cifar10-tiny")
"""Models for small images, the first of them preferred."""
_CHUNK = 256
"""Images between two updates of the progress."""
_FORMAT = 1


def choose_model(data: DataSet) -> Path:
    """The bundled model whose features suit the images: `PHOTO_BASE`, or for small images one of `SMALL_BASES`.

    A network fits wrong labels that it was trained on. So a model for small images that was trained on a data set of
    this name or with these classes is not taken if there is another one.
    """
    models = bundled_models()
    sides = [min(size) for size, count in data.sizes.items() for _ in range(count)]
    side = median(sides) if sides else data.train.images.shape[1]
    wanted = (PHOTO_BASE, *SMALL_BASES) if side >= PHOTO_SIDE else (*SMALL_BASES, PHOTO_BASE)
    present = [models[name] for name in wanted if name in models]
    return next((path for path in present if not _trained_on(path, data)), present[0] if present else default_model())


def _trained_on(path: Path, data: DataSet) -> bool:
    """Whether a model was trained on data of this name or with these classes."""
    info = Classifier(path, threads=1).info
    return data.name == info.dataset or {*map(str.casefold, data.classes)} == {*map(str.casefold, info.classes)}


def dataset_features(data: DataSet, spec: str | None = None, data_root: Path | None = None) -> Features:
    """Features of all images, the splits in their order; taken from the cache where they were computed before.

    Photographs are decoded again at the size of the model's input where `spec` names them.

    Raises:
        DataError: the size limit of the cache in the environment is not a number.
    """
    path = choose_model(data)

    def make() -> cache.Entry:
        parts = _at_input_size(path, data, spec, data_root)
        computed = np.concatenate([compute_features(path, images) for images in parts.values()])
        halves = np.ascontiguousarray(computed.astype(np.float16)).view(np.uint8)  # (N, 2 D), half the space
        hashes = np.concatenate([part.hashes for part in data.stored.values()])
        return cache.Entry({"features": halves}, {"features": hashes}, {}, key)

    key = _key(path, data)
    stored = cache.cached(key, make, f"{data.name}, features of {path.stem}").images["features"]
    return np.ascontiguousarray(stored).view(np.float16).astype(np.float32)


def compute_features(path: Path, images: Pixels) -> Features:
    """Features of images uint8 `(N, S, S, 3)` of any side, float32 `(N, D)`; the progress is shown on stderr."""
    classifier = Classifier(path)
    side, starts = classifier.info.input_size, range(0, len(images), _CHUNK)
    console, title = Console(stderr=True), f"Features of {len(images):,} images by {path.stem}"
    shown = track(starts, title, console=console, transient=True, disable=not sys.stderr.isatty() or len(starts) < 2)
    return np.concatenate(
        [
            classifier.run_batches(_resized(images[start : start + _CHUNK], side), ("features",))["features"]
            for start in shown
        ]
    ).astype(np.float32)


def _resized(images: Pixels, side: int) -> Pixels:
    return images if images.shape[1] == side else np.stack([resize(image, side, RESIZE) for image in images])


def _key(path: Path, data: DataSet) -> str:
    """Key of the features in the cache: of the images, whatever their labels, and the model."""
    content = hashlib.blake2b(digest_size=16)
    for part in data.stored.values():
        content.update(part.hashes.tobytes())
        for image in part.images:
            content.update(np.ascontiguousarray(image).data)
    model = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    return cache.digest(["features", _FORMAT, model, RESIZE, content.hexdigest()])


def _at_input_size(path: Path, data: DataSet, spec: str | None, data_root: Path | None) -> Mapping[str, Pixels]:
    """The images of each split, decoded again at the model's input size where they were made smaller."""
    decoded = {name: part.images for name, part in data.stored.items()}
    side = Classifier(path, threads=1).info.input_size
    own = data.train.images.shape[1]
    if spec is None or own >= side or not any(min(size) > own for size in data.sizes):
        return decoded
    try:
        larger = load_dataset(spec, data_root=data_root, image_size=side, resize=RESIZE, unreadable=[]).stored
    except (DataError, UnknownNameError):  # the data changed since
        return decoded
    same = larger.keys() == decoded.keys() and all(_same(larger[name], part) for name, part in data.stored.items())
    return {name: part.images for name, part in larger.items()} if same else decoded


def _same(one: ImageSet, other: ImageSet) -> bool:
    """Whether two sets have the same images in the same order, at whatever size."""
    return np.array_equal(one.hashes, other.hashes)
