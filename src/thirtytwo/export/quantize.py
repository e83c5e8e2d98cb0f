"""Write a model file with its weights stored as float16 or int8; the arithmetic stays float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from thirtytwo.errors import ExportError
from thirtytwo.export.webpage import write_web_page
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.io import atomic_write
from thirtytwo.registry import Registry

Weights = Literal["float16", "int8"]

MIN_ELEMENTS = 1024
"""Tensors with fewer elements are not changed."""
LEVELS = 127
CLIPS = np.linspace(0.7, 1.0, 13)
"""Clipping thresholds to try, as shares of the largest absolute weight."""

Floats = npt.NDArray[np.float32]


def shrink_onnx(source: Path, target: Path, weights: Weights) -> None:
    """Write the model file `source` to `target` with its float32 weights stored as `weights`.

    The graph converts them back to float32, so that only the weights are rounded. For `int8`, each output channel has
    its own scale, chosen to minimize the squared error.

    Raises:
        ExportError: there are no weights to quantize, or one is too large for float16.
    """
    model = onnx.load(str(source))
    graph = model.graph
    initializers, unpack_nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < MIN_ELEMENTS:
            initializers.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        packed, unpack_ops = (_to_float16 if weights == "float16" else _to_int8)(tensor.name, values)
        initializers += packed
        unpack_nodes += unpack_ops
    if not unpack_nodes:
        raise ExportError(f"{source} contains no float32 weights to quantize.", "Export from the original run.")
    old = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend([*unpack_nodes, *old])
    onnx.checker.check_model(model)
    with atomic_write(target) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))


def _to_float16(name: str, values: Floats) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(
            f"The weights {name} reach {np.abs(values).max():.3g}, beyond the range of float16 (at most 65,504).",
            "Use int8 instead.",
        )
    packed = f"{name}.float16"
    return [numpy_helper.from_array(half, packed)], [helper.make_node("Cast", [packed], [name], to=TensorProto.FLOAT)]


def _to_int8(name: str, values: Floats) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    levels, scale = quantize_int8(values)
    packed, scales, whole = f"{name}.int8", f"{name}.scale", f"{name}.whole"
    return (
        [numpy_helper.from_array(levels, packed), numpy_helper.from_array(scale, scales)],
        [
            helper.make_node("Cast", [packed], [whole], to=TensorProto.FLOAT),
            helper.make_node("Mul", [whole, scales], [name]),
        ],
    )


def quantize_int8(values: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Quantize weights symmetrically to int8: `levels * scale` approximates `values`.

    There is one scale per index of the first axis; for matrices, of the axis with the smaller quantization error.

    Returns:
        Levels, int8 of the shape of `values`, and scales, float32, which broadcast over it.
    """
    if values.ndim != 2:
        return _quantize_along(values, 0)
    least = np.finfo(np.float32).tiny
    squares = [np.maximum((values**2).mean(axis=axis, keepdims=True), least) for axis in (0, 1)]

    def quantization_error(pair: tuple[npt.NDArray[np.int8], Floats]) -> float:
        errors = (pair[0] * pair[1] - values) ** 2
        return float(sum((errors / square).sum() for square in squares))

    return min((_quantize_along(values, axis) for axis in (0, 1)), key=quantization_error)


def _quantize_along(values: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
    rest = tuple(other for other in range(values.ndim) if other != axis)
    largest = np.maximum(np.abs(values).max(axis=rest, keepdims=True), np.finfo(np.float32).tiny)
    best_scale = (largest / LEVELS).astype(np.float32)
    best_error = np.full(largest.shape, np.inf, dtype=np.float32)
    for clip in CLIPS:
        scale = (clip * largest / LEVELS).astype(np.float32)
        levels = np.clip(np.rint(values / scale), -LEVELS, LEVELS)
        error = ((levels * scale - values) ** 2).sum(axis=rest, keepdims=True)
        best_scale = np.where(error < best_error, scale, best_scale)
        best_error = np.minimum(error, best_error)
    return np.clip(np.rint(values / best_scale), -LEVELS, LEVELS).astype(np.int8), best_scale


@dataclass(frozen=True)
class ExportFormat:
    """A file format derived from a `model.onnx`.

    `write(source, target)` writes the file; `ending` is appended to the model's name. `same_contract`: the file is
    itself a thirtytwo model file with the same inputs, outputs and metadata; then `tolerance` is the largest allowed
    difference of its outputs (`parity.rounding`), on images that the model was not trained on.
    """

    ending: str
    description: str
    write: Callable[[Path, Path], None]
    same_contract: bool = True
    tolerance: float = 0.25


EXPORTS: Registry[ExportFormat] = Registry("export format")

# float16 has 11 significant bits, so the relative error of a weight is at most 2^-12; int8 has 7, an error of a few
# percent of a typical weight. A larger difference is not rounding: the file is broken.
EXPORTS.register("onnx-float16")(
    ExportFormat(
        "-float16.onnx",
        "weights stored as float16: half the size",
        partial(shrink_onnx, weights="float16"),
        tolerance=0.01,
    )
)
EXPORTS.register("onnx-int8")(
    ExportFormat(
        "-int8.onnx",
        "weights stored as int8: a quarter of the size",
        partial(shrink_onnx, weights="int8"),
        tolerance=0.25,
    )
)
EXPORTS.register("web-page")(
    ExportFormat(
        "-web-page.zip",
        "a web page that classifies images in the browser, without a network",
        write_web_page,
        same_contract=False,
    )
)
