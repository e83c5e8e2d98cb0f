"""Exported model.onnx: the contract of its inputs, outputs and metadata, and parity with its network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from thirtytwo.errors import ExportError, ModelFileError
from thirtytwo.evaluation.calibration import Calibration
from thirtytwo.evaluation.ood import class_mean
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import TOLERANCES, _tolerances, _value_problems, check_parity, onnx_outputs, rounding
from thirtytwo.inference.integrity import with_checksum
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.inference.session import open_session
from thirtytwo.models import Network
from thirtytwo.models.base import build_network, features_of

RESIDUAL = {
    "activation": "silu",
    "pooling": "max+mean",
    "groups": [
        {"width": 8, "body": [1, 1], "residual": True},
        {"width": 16, "kernel": 2, "body": [3, 3], "body_width": 12, "residual": True},
    ],
}
MEANS = np.eye(3, 16, dtype=np.float32)
"""Class means for 16 features: the directions of the first three."""
SMALL = {"groups": [{"width": 8}, {"width": 16}]}
OUTPUTS = ["probabilities", "logits", "features", "heatmaps", "known_score"]
METADATA = [
    "classes",
    "input_size",
    "resize",
    "mean",
    "std",
    "temperature",
    "curvature",
    "unknown_score",
    "unknown_threshold",
    "architecture",
    "dataset",
    "accuracy",
    "version",
    "tta",
    "few_shot",
]


@pytest.fixture(
    scope="module", params=[SMALL, pytest.param(RESIDUAL, marks=pytest.mark.slow)], ids=["plain", "residual"]
)
def exported(
    request: pytest.FixtureRequest, tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Network, ModelInfo, Path]:
    net = build_network(tiny.recipe(model__options=request.param), 3)
    net.prepare(torch.randn(8, 3, 16, 16))
    with torch.no_grad():
        for _ in range(3):
            net.train()(torch.randn(16, 3, 16, 16))
    info = ModelInfo(
        classes=("a", "bé", "c"),
        input_size=16,
        resize="pad",
        mean=(0.4, 0.5, 0.45),
        std=(0.2, 0.25, 0.3),
        temperature=0.25,
        curvature=0.3,
        unknown_score="class_mean",
        unknown_threshold=None,
        architecture="fastnet",
        dataset="noise",
        accuracy=0.5,
        version="1.2.3",
    )
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    net.to(memory_format=torch.channels_last)
    export_onnx(net, info, path, MEANS)
    return net, info, path


def test_inputs_and_outputs(exported: tuple[Network, ModelInfo, Path]) -> None:
    session, _ = open_session(exported[2])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["N", 16, 16, 3])
    outputs = {entry.name: entry for entry in session.get_outputs()}
    assert list(outputs) == ["probabilities", "logits", "features", "heatmaps", "known_score"]
    assert {entry.type for entry in outputs.values()} == {"tensor(float)"}
    assert outputs["probabilities"].shape[1] == outputs["logits"].shape[1] == 3
    assert outputs["features"].shape[1] == 16
    assert [len(entry.shape) for entry in outputs.values()] == [2, 2, 2, 3, 1]
    assert all(isinstance(entry.shape[0], str) for entry in outputs.values()), "N is free"


def test_the_file_contains_no_path_of_this_machine(exported: tuple[Network, ModelInfo, Path]) -> None:
    content = exported[2].read_bytes()
    for place in (Path(__file__).parents[2], Path(torch.__file__).parent):
        assert str(place).encode() not in content
    assert b'File "' not in content, "a stack trace"


def test_metadata(exported: tuple[Network, ModelInfo, Path]) -> None:
    _, info, path = exported
    (entry,) = [entry for entry in onnx.load(path).metadata_props if entry.key == "thirtytwo"]
    metadata = json.loads(entry.value)
    assert list(metadata) == METADATA
    assert metadata["classes"] == ["a", "bé", "c"]
    assert metadata["temperature"] == 0.25
    assert metadata["unknown_threshold"] is None
    assert ModelInfo.model_validate(metadata) == info
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"], "one file is the model"


@pytest.mark.parametrize("count", [1, 7])
def test_outputs_equal_those_of_the_network(
    count: int, exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace
) -> None:
    net, info, path = exported
    images = tiny.images(count).images
    session, _ = open_session(path)
    names = [entry.name for entry in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"images": images}), strict=True))
    assert [len(value) for value in outputs.values()] == [count] * 5
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    scaled = np.exp(outputs["logits"] / 0.25)
    np.testing.assert_allclose(outputs["probabilities"], scaled / scaled.sum(axis=1, keepdims=True), atol=1e-5)
    logits = Scorer(net, tuple(info.mean), tuple(info.std), torch.device("cpu")).logits(images)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(outputs["logits"], logits - 0.3 * log_softmax**2, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], Calibration(0.25, 0.3).probabilities(logits), atol=1e-4)
    pixels = ((images / 255 - info.mean) / info.std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        maps = net.eval().forward_features(torch.from_numpy(np.ascontiguousarray(pixels)))
        heatmaps = net.heatmaps(maps, torch.from_numpy(logits.argmax(axis=1)))
    np.testing.assert_allclose(outputs["features"], features_of(net, maps).numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["heatmaps"], heatmaps.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["known_score"], class_mean(outputs["features"], MEANS), atol=1e-5)


def test_parity(exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace) -> None:
    net, info, path = exported
    found = check_parity(net, info, path, tiny.images(150).images, MEANS)
    assert list(found) == OUTPUTS == list(TOLERANCES)
    assert all(0 <= found[name]["difference"] <= TOLERANCES[name].allowed for name in OUTPUTS)
    assert all(tolerance.why for tolerance in TOLERANCES.values())


@pytest.mark.parametrize("damage", ["network", "file", "temperature", "curvature", "means"])
def test_no_parity(
    damage: str, exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace, tmp_path: Path
) -> None:
    net, info, path = exported
    means = MEANS
    if damage == "network":
        other = build_network(tiny.recipe(seed=5), 3)
        net = other.eval()
    elif damage == "temperature":
        info = info.model_copy(update={"temperature": 0.3})
    elif damage == "curvature":
        info = info.model_copy(update={"curvature": 0.0})
    elif damage == "means":
        means = np.eye(3, 16, k=5, dtype=np.float32)
    else:
        model = onnx.load(path)
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(largest) * np.float32(1.5)
        largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
        path = tmp_path / "model.onnx"
        path.write_bytes(with_checksum(model.SerializeToString()))
    with pytest.raises(ExportError, match=r"30 images.*by up to") as caught:
        check_parity(net, info, path, tiny.images(30).images, means)
    assert str(path) in caught.value.message


def break_output(path: Path, name: str, target: Path, times: float, more: float) -> Path:
    """The model file with one output changed, and no other: `times` what it was, and `more`."""
    model = onnx.load(path)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                if one == name:
                    names[place] = f"{name}.before"
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.float32(value), f"{name}.{what}")
        for what, value in (("times", times), ("more", -1.0 if np.isnan(more) else more))
    )
    added = f"{name}.more"
    if np.isnan(more):  # computed: a file with NaN among its weights cannot be opened
        added = f"{name}.root"
        graph.node.append(onnx.helper.make_node("Sqrt", [f"{name}.more"], [added]))
    graph.node.extend(
        [
            onnx.helper.make_node("Mul", [f"{name}.before", f"{name}.times"], [f"{name}.scaled"]),
            onnx.helper.make_node("Add", [f"{name}.scaled", added], [name]),
        ]
    )
    target.write_bytes(with_checksum(model.SerializeToString()))
    return target


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(("times", "more"), [(1.01, 0.0), (1.0, float("nan"))])
def test_each_output_is_compared(
    name: str,
    times: float,
    more: float,
    exported: tuple[Network, ModelInfo, Path],
    tiny: SimpleNamespace,
    tmp_path: Path,
) -> None:
    net, info, path = exported
    broken = break_output(path, name, tmp_path / "model.onnx", times, more)
    with pytest.raises(ExportError) as caught:
        check_parity(net, info, broken, tiny.images(30).images, MEANS)
    assert [one for one in OUTPUTS if f" {one} by " in caught.value.message] == [name]


def test_outputs_that_should_not_be_there(exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace) -> None:
    net, info, path = exported
    with pytest.raises(ExportError, match="known_score"):
        check_parity(net, info, path, tiny.images(30).images)


def test_each_output_of_a_rounded_file_is_compared(
    exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace, tmp_path: Path
) -> None:
    _, _, path = exported
    images = tiny.images(30).images
    before = onnx_outputs(path, images)
    assert rounding(before, before) == dict.fromkeys(OUTPUTS, 0.0)
    for name in OUTPUTS:
        broken = break_output(path, name, tmp_path / f"{name}.onnx", 1.5, 0.0)
        found = rounding(before, onnx_outputs(broken, images))
        assert found == pytest.approx({one: 0.5 * (one == name) for one in OUTPUTS}, abs=1e-6)
    with pytest.raises(ExportError, match="heatmaps"):
        rounding(before, {one: value for one, value in before.items() if one != "heatmaps"})


def test_parity_with_a_broken_file(
    exported: tuple[Network, ModelInfo, Path], tiny: SimpleNamespace, tmp_path: Path
) -> None:
    net, info, path = exported
    (tmp_path / "model.onnx").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelFileError):
        check_parity(net, info, tmp_path / "model.onnx", tiny.images(3).images)


@pytest.mark.long
def test_without_class_means_there_is_no_known_score(
    exported: tuple[Network, ModelInfo, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.id != "plain":
        return  # once is enough: it does not depend on the network
    net, info, _ = exported
    export_onnx(net, info, tmp_path / "promised.onnx")
    names = [entry.name for entry in onnx.load(tmp_path / "promised.onnx").graph.output]
    assert names == ["probabilities", "logits", "features", "heatmaps"]
    with pytest.raises(ModelFileError, match="known_score"):
        open_session(tmp_path / "promised.onnx")


def test_probabilities_of_enormous_logits_may_differ_as_float32_rounds_them(
    exported: tuple[Network, ModelInfo, Path],
) -> None:
    """As of a training that nearly diverged: logits of millions, of which some images have small ones."""
    logits = np.array([[1e7, 0, 0], [10, 0, 5]], dtype=np.float32)
    info = exported[1].model_copy(update={"temperature": 20.0})
    assert _tolerances({"logits": logits[1:]}, info) is TOLERANCES
    assert _tolerances({"logits": logits}, info)["probabilities"].allowed == pytest.approx(1e7 / 2**23 / 20)
    near = {"logits": logits, "probabilities": np.array([[1, 0, 0], [0.5, 0.3, 0.2]], np.float32)}
    for change, problems in ((0.03, 0), (0.2, 2)):
        far = {**near, "probabilities": near["probabilities"] + np.float32([[0, 0, 0], [-change, change, 0]])}
        tolerances = _tolerances(near, info)
        found = {"probabilities": {"difference": change}}
        assert len(_value_problems(found, tolerances, near, far)) == problems
