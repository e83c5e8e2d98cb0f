"""Quantized model files: smaller, with small rounding errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from thirtytwo.cli.main import run_command
from thirtytwo.errors import ExportError
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.quantize import LEVELS, quantize_int8, shrink_onnx
from thirtytwo.inference.model_file import ModelInfo, read_info
from thirtytwo.inference.session import open_session
from thirtytwo.models import MODELS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net: Any = MODELS.get("fastnet-s")(10, {})
    net.prepare(torch.randn((64, 3, 32, 32)))
    info = ModelInfo(
        classes=tuple("abcdefghij"),
        input_size=32,
        resize="crop",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        temperature=1.0,
        unknown_threshold=None,
        architecture="fastnet-s",
        dataset="none",
        accuracy=None,
        version="0",
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(net.eval(), info, path)
    return path


def outputs_of(path: Path) -> dict[str, np.ndarray]:
    session, _ = open_session(path)
    names = [output.name for output in session.get_outputs()]
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize(("weights", "part", "tolerance"), [("float16", 0.51, 1e-3), ("int8", 0.27, 2e-2)])
def test_smaller_and_nearly_the_same(model: Path, tmp_path: Path, weights: Any, part: float, tolerance: float) -> None:
    small = tmp_path / "small.onnx"
    shrink_onnx(model, small, weights)
    assert small.stat().st_size < part * model.stat().st_size
    assert read_info(small) == read_info(model)
    before, after = outputs_of(model), outputs_of(small)
    assert before.keys() == after.keys()
    for name in ("logits", "features", "heatmaps"):
        assert np.abs(after[name] - before[name]).max() < tolerance * np.abs(before[name]).max(), name


def test_weights_are_unpacked_once_when_the_file_is_opened(model: Path, tmp_path: Path) -> None:
    import onnxruntime

    for weights in ("float16", "int8"):
        small, seen = tmp_path / f"{weights}.onnx", tmp_path / f"{weights}-seen.onnx"
        shrink_onnx(model, small, weights)  # type: ignore[arg-type]
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(seen)
        onnxruntime.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(str(seen)).graph
        assert not any(name.endswith((".int8", ".float16")) for node in graph.node for name in node.input), weights


def test_levels_and_scales_by_hand() -> None:
    rows = np.array([[1.27, -0.64, 0.01], [254.0, 2.0, -2.0]], dtype=np.float32)
    levels, scale = quantize_int8(np.concatenate([rows[:, None]] * 2, axis=1))  # three axes: along the first
    assert scale.shape == (2, 1, 1)
    np.testing.assert_allclose(levels * scale, np.concatenate([rows[:, None]] * 2, axis=1), atol=1.0)
    assert levels[0, 0].tolist() == [127, -64, 1]
    assert np.abs(levels).max() <= LEVELS


def test_matrices_have_scales_along_the_axis_with_the_smaller_error() -> None:
    random = np.random.default_rng(0)
    columns = (random.standard_normal((64, 8)) * 10.0 ** np.arange(8)).astype(np.float32)
    levels, scale = quantize_int8(columns)
    assert scale.shape == (1, 8)
    error = np.sqrt(((levels * scale - columns) ** 2).mean(axis=0))
    assert (error < scale[0]).all()


def test_zeros_stay_zeros() -> None:
    levels, scale = quantize_int8(np.zeros((40, 3, 3, 3), dtype=np.float32))
    assert not levels.any()
    assert np.isfinite(scale).all()


def test_too_large_for_float16(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((32, 64), 1e6, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    onnx.save(made, str(tmp_path / "large.onnx"))
    with pytest.raises(ExportError, match=r"weights.*1e\+06"):
        shrink_onnx(tmp_path / "large.onnx", tmp_path / "small.onnx", "float16")
    assert not (tmp_path / "small.onnx").exists()


@pytest.mark.parametrize("stored", ["float32", "int8"])
def test_an_export_that_is_not_smaller_says_why(
    stored: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of the bundled `imagenet` are stored in 8 bits."""
    source = str(model) if stored == "float32" else "imagenet"
    assert run_command(["export", source, "--format", "onnx-int8", "--out", str(tmp_path / "small.onnx")]) == 0
    assert ("has most of its weights in 8 or 16 bits already" in capsys.readouterr().err) is (stored == "int8")
