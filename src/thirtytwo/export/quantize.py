"""The same model in a smaller file: weights kept in half or a quarter of their bits, arithmetic as before."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from thirtytwo.errors import ExportError
from thirtytwo.io import written_whole

Weights = Literal["float16", "int8"]

LEAST = 1024
"""Tensors with fewer numbers stay as they are."""
LEVELS = 127
CLIPS = np.linspace(0.7, 1.0, 13)
"""Parts of the largest weight that are tried as the largest one kept."""

Floats = npt.NDArray[np.float32]


def shrink_onnx(source: Path, target: Path, weights: Weights) -> None:
    """Write the model file `source` to `target` with its float32 weights kept as `weights`.

    They become float32 again when the file is opened, so the graph computes what it computed, of rounded weights. For
    `int8` each output channel has a scale of its own, chosen for the least squared error.

    Raises:
        ExportError: there is nothing to make smaller, or a weight is too large for float16.
    """
    model = onnx.load(str(source))
    graph = model.graph
    kept, nodes = [], []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < LEAST:
            kept.append(tensor)
            continue
        values = numpy_helper.to_array(tensor)
        small, unpack = (_halved if weights == "float16" else _quartered)(tensor.name, values)
        kept += small
        nodes += unpack
    if not nodes:
        raise ExportError(f"{source} holds no float32 weights to make smaller.", "Export the run that it comes from.")
    old = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend([*nodes, *old])
    onnx.checker.check_model(model)
    with written_whole(target) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _halved(name: str, values: Floats) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ExportError(
            f"The weights {name} reach {np.abs(values).max():.3g}, which float16 cannot hold (65,504 at most).",
            "Keep them as int8.",
        )
    packed = f"{name}.float16"
    return [numpy_helper.from_array(half, packed)], [helper.make_node("Cast", [packed], [name], to=TensorProto.FLOAT)]


def _quartered(name: str, values: Floats) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    levels, scale = quantised(values)
    packed, scales, whole = f"{name}.int8", f"{name}.scale", f"{name}.whole"
    return (
        [numpy_helper.from_array(levels, packed), numpy_helper.from_array(scale, scales)],
        [
            helper.make_node("Cast", [packed], [whole], to=TensorProto.FLOAT),
            helper.make_node("Mul", [whole, scales], [name]),
        ],
    )


def quantised(values: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Levels int8 of the shape of `values`, and scales that broadcast over it: `levels * scale` is near `values`.

    There is one scale for each place along the first axis; for matrices along the one that loses less of both rows and
    columns.
    """
    if values.ndim != 2:
        return _along(values, 0)
    least = np.finfo(np.float32).tiny
    squares = [np.maximum((values**2).mean(axis=axis, keepdims=True), least) for axis in (0, 1)]

    def lost(pair: tuple[npt.NDArray[np.int8], Floats]) -> float:
        errors = (pair[0] * pair[1] - values) ** 2
        return float(sum((errors / square).sum() for square in squares))

    return min((_along(values, axis) for axis in (0, 1)), key=lost)


def _along(values: Floats, axis: int) -> tuple[npt.NDArray[np.int8], Floats]:
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
