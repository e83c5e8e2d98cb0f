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

from thirtytwo.config.recommend import is_small
from thirtytwo.data import cache
from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.errors import DataError, UnknownNameError, require
from thirtytwo.fewshot.base import PHOTO_BASE, RESIZE
from thirtytwo.images.content import Hashes, hash_pixels
from thirtytwo.images.pixels import Pixels, resize
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import bundled_models, default_model
from thirtytwo.inference.session import INPUT
from thirtytwo.progress import tracked

Features: TypeAlias = npt.NDArray[np.float32]
"""One row for each image, float32 `(N, D)`."""

SMALL_BASES = ("cifar100-tiny", "cifar10-tiny")
"""Models for small images, the first of them preferred."""
LARGER_BASES = ("cifar100", "cifar10")
"""Models that tell small images better and take a hundred times as long, the first of them preferred."""
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
    wanted = (*SMALL_BASES, PHOTO_BASE) if is_small(data.median_side) else (PHOTO_BASE, *SMALL_BASES)
    present = [models[name] for name in wanted if name in models]
    return next((path for path in present if not _trained_on(path, data)), present[0] if present else default_model())


def choose_larger_model(data: DataSet) -> Path | None:
    """One of `LARGER_BASES` for small images; None for photographs, and where each was trained on the same classes."""
    if not is_small(data.median_side):
        return None
    present = (path for name, path in bundled_models().items() if name in LARGER_BASES)
    order = sorted(present, key=lambda path: LARGER_BASES.index(path.stem))
    return next((path for path in order if not _trained_on(path, data)), None)


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


def larger_features(path: Path, images: Pixels) -> Features:
    """Like `compute_features`, by a model of `choose_larger_model`; taken from the cache if computed before."""

    def make() -> cache.Entry:
        halves = compute_features(path, images).astype(np.float16)
        return cache.Entry({"features": np.ascontiguousarray(halves).view(np.uint8)}, {"features": hashes}, {}, key)

    hashes = np.array([hash_pixels(image) for image in images], dtype=np.uint64)
    content = hashlib.blake2b(hashes.tobytes(), digest_size=16).hexdigest()
    key = cache.digest(["larger features", _FORMAT, _digest(path), RESIZE, content])
    stored = cache.cached(key, make, f"features of {len(images):,} images by {path.stem}").images["features"]
    return np.ascontiguousarray(stored).view(np.float16).astype(np.float32)


def compute_features(path: Path, images: Pixels) -> Features:
    """Features of images uint8 `(N, S, S, 3)` of any side, float32 `(N, D)`; a bar shows the progress.

    The features of each layer have length 1, and are concatenated.

    Raises:
        MissingExtraError: the library `onnx`, which reads layers of small networks, is not installed.
    """
    classifier = Classifier(path)
    side, starts = classifier.info.input_size, range(0, len(images), _CHUNK)
    kinds = dict.fromkeys(SMALL_BASES, _layers_of) | dict.fromkeys(LARGER_BASES, _larger_network)
    run = kinds.get(path.stem, _last_features)(classifier)
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
    session = _session_like(classifier, model)

    def run(images: Pixels) -> Features:
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            views = [session.run(names, {INPUT: np.ascontiguousarray(view)}) for view in (batch, batch[:, :, ::-1])]
            layers = [normalized(normalized(one) + normalized(two)) for one, two in zip(*views, strict=True)]
            parts.append(np.concatenate(layers, axis=1))
        return np.concatenate(parts)

    return run


def _session_like(classifier: Classifier, model: Any) -> Any:
    """A session for a changed ONNX model, with the options of the classifier's."""
    return type(classifier.session)(model.SerializeToString(), classifier.session.get_session_options())


def _larger_network(classifier: Classifier) -> Callable[[Pixels], Features]:
    """Computes the features of the network that was fine-tuned on small images.

    Bundled models for small images join it with a second network, for photographs, which is left out.
    """
    onnx = require("onnx", "train")
    model = onnx.load(str(classifier.path))
    last = _fine_tuned_layer(model.graph)
    if last is None:
        return _last_features(classifier)
    pooled = f"{last}.pooled"
    model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", [last], [pooled]))  # (N, D, 1, 1)
    _keep_only(model.graph, pooled)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(pooled))
    session = _session_like(classifier, model)

    def run(images: Pixels) -> Features:
        starts = range(0, len(images), _BATCH)
        parts = [session.run([pooled], {INPUT: images[start : start + _BATCH]})[0] for start in starts]
        return normalized(np.concatenate(parts)[:, :, 0, 0])

    return run


def _fine_tuned_layer(graph: Any) -> str | None:
    """The last layer of the first network of a joined model, `(N, D, H, W)`; None for other models.

    Their `features` are the means of the parts of a split of both last layers, which are concatenated before and after.
    """
    made = {name: node for node in graph.node for name in node.output}
    name = "features"
    for kind in ("Concat", "Reshape", "ReduceMean", "Split", "Concat"):
        node = made.get(name)
        if node is None or node.op_type != kind:
            return None
        name = str(node.input[0])
    return name


def _keep_only(graph: Any, output: str) -> None:
    """Remove everything from a model's graph that one output does not need, and all outputs."""
    made = {name: node for node in graph.node for name in node.output}
    needed, wanted = set(), [output]
    while wanted:
        name = wanted.pop()
        if name in needed:
            continue
        needed.add(name)
        wanted += list(made[name].input) if name in made else []
    nodes = [node for node in graph.node if needed & {*node.output}]
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    weights = [type(one).FromString(one.SerializeToString()) for one in graph.initializer if one.name in needed]
    for part in (graph.node, graph.initializer, graph.output, graph.value_info):
        del part[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


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
    return cache.digest(["features", _FORMAT, _digest(path), RESIZE, content.hexdigest()])


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


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
