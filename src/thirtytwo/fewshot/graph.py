"""A model file with a new last layer: the network of one, with classes, calibration and known pictures of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ModelFileError, require
from thirtytwo.fewshot.head import Head
from thirtytwo.inference.model_file import KNOWN_SCORE, METADATA_KEY, ModelInfo, open_session
from thirtytwo.io import written_whole

FEATURES, HEATMAPS = "features", "heatmaps"
_MAPS_TIMES_WEIGHTS = "ndhw,nd->nhw"


def write_taught(base: Path, path: Path, info: ModelInfo, head: Head, means: npt.NDArray[np.float32]) -> None:
    """Write the network of `base` with a new last layer to `path`, whole, by the contract of every `model.onnx`.

    Heatmaps follow the new classes where `base` weighs its last maps by class weights; else there are none.

    Raises:
        MissingExtraError: the library `onnx` is not installed.
        ModelFileError: `base` cannot be read, or the result would not run.
    """
    onnx: Any = require("onnx", "app")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    try:
        model = onnx.load(str(base))
    except Exception as error:  # protobuf's own errors, and those of missing external data
        raise ModelFileError(f"{base} cannot be read: {error}.", "Choose another model.") from None
    graph = model.graph
    maps = _maps(onnx, graph)
    _keep_what_makes(graph, [FEATURES, *([maps] if maps else [])])
    if FEATURES not in {name for node in graph.node for name in node.output}:
        raise ModelFileError(f"The graph of {base} makes no {FEATURES!r}.", "Choose another model.")

    constants = {
        "taught.weights": head.weights.T.astype(np.float32),  # (C, D)
        "taught.bias": head.bias.astype(np.float32),
        "taught.temperature": np.float32(info.temperature),
        "taught.means": means.T.astype(np.float32),  # (D, C)
        "taught.axis": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gemm", [FEATURES, "taught.weights", "taught.bias"], ["logits"], transB=1),
        helper.make_node("Div", ["logits", "taught.temperature"], ["taught.sharpened"]),
        helper.make_node("Softmax", ["taught.sharpened"], ["probabilities"], axis=1),
        helper.make_node("LpNormalization", [FEATURES], ["taught.directions"], axis=1, p=2),
        helper.make_node("MatMul", ["taught.directions", "taught.means"], ["taught.likeness"]),
        helper.make_node("ReduceMax", ["taught.likeness", "taught.axis"], [KNOWN_SCORE], keepdims=0),
    ]
    width = len(head.weights)
    outputs: dict[str, list[int | str]] = {
        "probabilities": ["N", len(info.classes)],
        "logits": ["N", len(info.classes)],
        FEATURES: ["N", width],
    }
    if maps:
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["taught.top"], axis=1, keepdims=0),
            helper.make_node("Gather", ["taught.weights", "taught.top"], ["taught.row"], axis=0),
            helper.make_node("Einsum", [maps, "taught.row"], [HEATMAPS], equation=_MAPS_TIMES_WEIGHTS),
        ]
        outputs[HEATMAPS] = _shape(graph, HEATMAPS)
    outputs[KNOWN_SCORE] = ["N"]
    graph.node.extend(nodes)
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    del graph.output[:], graph.value_info[:]
    graph.output.extend(helper.make_tensor_value_info(name, floats, shape) for name, shape in outputs.items())
    helper.set_model_props(model, {METADATA_KEY: info.model_dump_json()})
    model.producer_name, model.producer_version = "thirtytwo", info.version
    with written_whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        _try(temporary, info, base)


def _maps(onnx: Any, graph: Any) -> str | None:
    """Name of the last maps `(N, D, h, w)`, where the graph's heatmaps are those weighted by class weights."""
    for node in graph.node:
        if HEATMAPS in node.output and node.op_type == "Einsum" and len(node.input) == 2:
            told = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            equation = told.get("equation", b"").decode().replace(" ", "")
            return str(node.input[0]) if equation == _MAPS_TIMES_WEIGHTS else None
    return None


def _shape(graph: Any, name: str) -> list[int | str]:
    """The declared shape of an output."""
    output = next(one for one in graph.output if one.name == name)
    return [side.dim_param or side.dim_value for side in output.type.tensor_type.shape.dim]


def _keep_what_makes(graph: Any, wanted: list[str]) -> None:
    """Take out of the graph whatever `wanted` does not depend on."""
    needed, kept = set(wanted), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [one for one in graph.initializer if one.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _try(path: Path, info: ModelInfo, base: Path) -> None:
    """Run the new file once.

    Raises:
        ModelFileError: it does not run.
    """
    try:
        session, _ = open_session(path, threads=1)
        session.run(None, {"images": np.zeros((2, info.input_size, info.input_size, 3), dtype=np.uint8)})
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelFileError(
            f"The network of {base} takes no new classes: {reason}.", "Choose another model."
        ) from None
