"""Write a model file with a new last layer: a base network with the classes and calibration of a linear probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import ModelFileError, require
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import KNOWN_SCORE, open_session
from thirtytwo.io import METADATA_KEY, atomic_write
from thirtytwo.text import first_line

FEATURES, HEATMAPS = "features", "heatmaps"
_WEIGHTED_MAPS = "ndhw,nd->nhw"


def write_probe_model(
    base: Path,
    path: Path,
    info: ModelInfo,
    weights: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
    means: npt.NDArray[np.float32],
) -> None:
    """Write the network of `base` with a new last layer to `path`, atomically, as a regular model file.

    The file has heatmaps of the new classes if those of `base` are its last maps weighted by class weights.

    Args:
        base: the model file whose network is used.
        path: the file to write.
        info: metadata of the new file.
        weights: those of the new last layer, for features of length 1, `(D, C)`.
        bias: its bias, `(C,)`.
        means: class means of the features, float32 `(C, D)`.

    Raises:
        MissingExtraError: the library `onnx` is not installed.
        ModelFileError: `base` cannot be read, has no features, or the new file does not run.
    """
    onnx: Any = require("onnx", "app")
    model = _load_base(onnx, base)
    graph = model.graph
    maps = _find_maps(onnx, graph)
    _prune(graph, [FEATURES, *([maps] if maps else [])])
    if FEATURES not in {name for node in graph.node for name in node.output}:
        raise ModelFileError(f"The graph of {base} has no {FEATURES!r}.", "Choose another model.")
    classes: list[int | str] = ["N", len(info.classes)]
    outputs: dict[str, list[int | str]] = {"probabilities": classes, "logits": classes, FEATURES: ["N", len(weights)]}
    if maps:
        outputs[HEATMAPS] = _declared_shape(graph, HEATMAPS)
    outputs[KNOWN_SCORE] = ["N"]
    constants = _probe_constants(info, weights, bias, means)
    graph.node.extend([*_probe_nodes(onnx.helper), *(_heatmap_nodes(onnx.helper, maps) if maps else [])])
    graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    _set_outputs(onnx, graph, outputs)
    onnx.helper.set_model_props(model, {METADATA_KEY: info.model_dump_json()})
    model.producer_name, model.producer_version = "thirtytwo", info.version
    with atomic_write(path) as temporary:
        temporary.write_bytes(with_checksum(model.SerializeToString()))
        _check_runs(temporary, info, base)


def _load_base(onnx: Any, base: Path) -> Any:
    try:
        return onnx.load(str(base))
    except Exception as error:  # protobuf's own errors, and those of missing external data
        raise ModelFileError(f"{base} cannot be read: {error}.", "Choose another model.") from None


def _probe_constants(
    info: ModelInfo, weights: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], means: npt.NDArray[np.float32]
) -> dict[str, Any]:
    return {
        "probe.weights": weights.T.astype(np.float32),  # (C, D)
        "probe.bias": bias.astype(np.float32),
        "probe.temperature": np.float32(info.temperature),
        "probe.means": means.T.astype(np.float32),  # (D, C)
        "probe.axis": np.array([1], dtype=np.int64),
        "probe.first": np.array([0], dtype=np.int64),
    }


def _probe_nodes(helper: Any) -> list[Any]:
    """Logits, calibrated probabilities and the OOD score from the features, which are scaled to length 1."""
    return [
        helper.make_node("LpNormalization", [FEATURES], ["probe.directions"], axis=1, p=2),
        helper.make_node("Gemm", ["probe.directions", "probe.weights", "probe.bias"], ["logits"], transB=1),
        helper.make_node("Div", ["logits", "probe.temperature"], ["probe.sharpened"]),
        helper.make_node("Softmax", ["probe.sharpened"], ["probabilities"], axis=1),
        helper.make_node("MatMul", ["probe.directions", "probe.means"], ["probe.similarity"]),
        helper.make_node("ReduceMax", ["probe.similarity", "probe.axis"], [KNOWN_SCORE], keepdims=0),
    ]


def _heatmap_nodes(helper: Any, maps: str) -> list[Any]:
    """Heatmaps of the most probable class: `maps` weighted by its weights.

    The first features are the means of `maps`; where there are more, the others have no part in the heatmaps.
    """
    return [
        helper.make_node("ArgMax", ["logits"], ["probe.top"], axis=1, keepdims=0),
        helper.make_node("Gather", ["probe.weights", "probe.top"], ["probe.row"], axis=0),
        helper.make_node("Shape", [maps], ["probe.channels"], start=1, end=2),
        helper.make_node("Slice", ["probe.row", "probe.first", "probe.channels", "probe.axis"], ["probe.map_weights"]),
        helper.make_node("Einsum", [maps, "probe.map_weights"], [HEATMAPS], equation=_WEIGHTED_MAPS),
    ]


def _set_outputs(onnx: Any, graph: Any, outputs: dict[str, list[int | str]]) -> None:
    """Replace the graph's outputs by float outputs of these shapes."""
    del graph.output[:], graph.value_info[:]
    floats = onnx.TensorProto.FLOAT
    graph.output.extend(onnx.helper.make_tensor_value_info(name, floats, shape) for name, shape in outputs.items())


def _find_maps(onnx: Any, graph: Any) -> str | None:
    """Name of the last maps `(N, D, h, w)` if the heatmaps are these maps weighted by class weights, else None."""
    for node in graph.node:
        if HEATMAPS in node.output and node.op_type == "Einsum" and len(node.input) == 2:
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            equation = attributes.get("equation", b"").decode().replace(" ", "")
            return str(node.input[0]) if equation == _WEIGHTED_MAPS else None
    return None


def _declared_shape(graph: Any, name: str) -> list[int | str]:
    """The declared shape of an output."""
    output = next(entry for entry in graph.output if entry.name == name)
    return [side.dim_param or side.dim_value for side in output.type.tensor_type.shape.dim]


def _prune(graph: Any, outputs: list[str]) -> None:
    """Remove nodes and initializers that `outputs` do not depend on."""
    needed, kept = set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [entry for entry in graph.initializer if entry.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _check_runs(path: Path, info: ModelInfo, base: Path) -> None:
    """Run the model file once to check it.

    Raises:
        ModelFileError: it does not run.
    """
    try:
        session, _ = open_session(path, threads=1)
        session.run(None, {"images": np.zeros((2, info.input_size, info.input_size, 3), dtype=np.uint8)})
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise ModelFileError(
            f"The network of {base} does not support new classes: {first_line(error)}.", "Choose another model."
        ) from None
