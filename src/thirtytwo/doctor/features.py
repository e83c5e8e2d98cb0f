"""Features of all images of a data set by a bundled model, which was not trained on its labels where avoidable.

The last features of a small network are made for its own classes; earlier layers tell other classes better. So those of
`SMALL_BASES` are read too, the mean and the maximum of each channel, and an image is averaged with its mirror image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from thirtytwo.data import cache
from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.errors import DataError, UnknownNameError, require
from thirtytwo.fewshot.base import PHOTO_BASE, PHOTO_SIDE, RESIZE
from thirtytwo.images.content import Hashes
from thirtytwo.images.decode import Pixels, resize
from thirtytwo.inference.classifier import Classifier, bundled_models, default_model
from thirtytwo.inference.model_file import INPUT
from thirtytwo.progress import tracked

Features: TypeAlias = npt.NDArray[np.float32]
"""One row for each image, float32 `(N, D)`."""

SMALL_BASES = ("cifar100-tiny", "cifar10-tiny")
"""Models for small images, the first of them preferred."""
_CHUNK = 256
"""Images between two updates of the progress."""
_FORMAT = 3
_BATCH = 32


def choose_model(data: DataSet) -> Path:
    """The bundled model whose features suit the images: `PHOTO_BASE`, or for small images one of `SMALL_BASES`.

    A network fits wrong labels that it was trained on. So a model for small images that was trained on a data set of
    this name or with these classes is not taken if there is another one.
    """
    models = bundled_models()
    wanted = (PHOTO_BASE, *SMALL_BASES) if data.median_side >= PHOTO_SIDE else (*SMALL_BASES, PHOTO_BASE)
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
        parts, order = _at_input_size(path, data, spec, data_root)
        computed = np.concatenate([compute_features(path, images) for images in parts])[order]
        halves = np.ascontiguousarray(computed.astype(np.float16)).view(np.uint8)  # (N, 2 D), half the space
        hashes = np.concatenate([part.hashes for part in data.stored.values()])
        return cache.Entry({"features": halves}, {"features": hashes}, {}, key)

    key = _key(path, data)
    stored = cache.cached(key, make, f"{data.name}, features of {path.stem}").images["features"]
    return np.ascontiguousarray(stored).view(np.float16).astype(np.float32)


def compute_features(path: Path, images: Pixels) -> Features:
    """Features of images uint8 `(N, S, S, 3)` of any side, float32 `(N, D)`; a bar shows the progress.

    The features of each layer have length 1, and are concatenated.

    Raises:
        MissingExtraError: the library `onnx`, which reads layers of small networks, is not installed.
    """
    classifier = Classifier(path)
    side, starts = classifier.info.input_size, range(0, len(images), _CHUNK)
    run = _layers_of(classifier) if path.stem in SMALL_BASES else _last_features(classifier)
    shown = tracked(starts, f"Features of {len(images):,} images by {path.stem}")
    return np.concatenate([run(_resized(images[start : start + _CHUNK], side)) for start in shown])


def normalized(features: Features) -> Features:
    """Features of length 1, float32 `(N, D)`."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)


def _last_features(classifier: Classifier) -> Callable[[Pixels], Features]:
    """Computes the features before the last layer."""
    return lambda images: normalized(classifier.run_batches(images, ("features",))["features"])


def _layers_of(classifier: Classifier) -> Callable[[Pixels], Features]:
    """Computes features of several layers, averaged over an image and its mirror image."""
    onnx = require("onnx", "train")
    model = onnx.load(str(classifier.path))
    names = _with_pooled_layers(model, onnx.helper)
    session = type(classifier.session)(model.SerializeToString(), classifier.session.get_session_options())

    def run(images: Pixels) -> Features:
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            views = [session.run(names, {INPUT: np.ascontiguousarray(view)}) for view in (batch, batch[:, :, ::-1])]
            layers = [normalized(normalized(one) + normalized(two)) for one, two in zip(*views, strict=True)]
            parts.append(np.concatenate(layers, axis=1))
        return np.concatenate(parts)

    return run


def _with_pooled_layers(model: Any, helper: Any) -> list[str]:
    """Add the mean and maximum of the last layers to the outputs of an ONNX model; returns the names of these outputs.

    The layers are the first activation of the last block, which follows a normalization, and the sums that end the last
    two blocks. An architecture without them has its features alone.
    """
    nodes = model.graph.node
    normal = {name for node in nodes if node.op_type == "BatchNormalization" for name in node.output}
    first = [node.output[0] for node in nodes if node.op_type == "Mul" and normal & {*node.input}]
    sums = [node.output[0] for node in nodes if node.op_type == "Add" and {*first} & {*node.input}]
    names = [] if first and sums else ["features"]
    for layer in [*first[-1:], *sums[-2:]]:
        axes = f"{layer}.pooled_axes"
        model.graph.initializer.append(helper.make_tensor(axes, 7, [2], [2, 3]))  # int64: height and width
        for kind in ("ReduceMean", "ReduceMax"):
            name = f"{layer}.{kind}"
            nodes.append(helper.make_node(kind, [layer, axes], [name], keepdims=0))
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
            names.append(name)
    return names


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


def _at_input_size(
    path: Path, data: DataSet, spec: str | None, data_root: Path | None
) -> tuple[list[Pixels], npt.NDArray[np.int64]]:
    """The images, decoded again at the model's input size where they were made smaller, and the order of the data set.

    Returns:
        Arrays uint8 `(M, S, S, 3)`; and the position of each image of the data set, the splits in their order, among
        the images of all arrays, int64 `(N,)`.
    """
    parts = list(data.stored.values())
    decoded = [part.images for part in parts], np.arange(sum(map(len, parts)))
    side = Classifier(path, threads=1).info.input_size
    own = data.train.images.shape[1]
    if spec is None or own >= side or not any(min(size) > own for size in data.sizes):
        return decoded
    try:
        larger = load_dataset(
            spec, data_root=data_root, image_size=side, resize=RESIZE, whole=True, unreadable=[]
        ).stored.values()
    except (DataError, UnknownNameError):  # the data changed since
        return decoded
    # By content: where the data brings no test split, it depends on more than the images which are split off.
    order = _positions(np.concatenate([part.hashes for part in parts]), [part.hashes for part in larger])
    return decoded if order is None else ([part.images for part in larger], order)


def _positions(wanted: Hashes, present: Sequence[Hashes]) -> npt.NDArray[np.int64] | None:
    """The position of each hash among those of all parts, int64 `(N,)`; None if one is missing."""
    every = np.concatenate(list(present))
    order = np.argsort(every, kind="stable")
    slots = np.searchsorted(every, wanted, sorter=order)
    places = order[np.minimum(slots, len(every) - 1)]
    return places.astype(np.int64) if np.array_equal(every[places], wanted) else None
