"""Linear probes on a known network: its maps are the pixels and its features their means, so it separates colors."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.errors import DataError, ModelFileError
from thirtytwo.evaluation.metrics import confusion_matrix, wilson
from thirtytwo.fewshot import LinearProbe, fit_linear_probe
from thirtytwo.inference.classifier import Classifier

Pixels = npt.NDArray[np.uint8]


def write_maps_model(
    path: Path, *, heatmaps: bool = True, maps_equation: str = "ndhw,nd->nhw", joined: bool = False
) -> Path:
    """A model file with classes red, green and blue at 8×8, whose heatmaps are maps weighted by class weights.

    With `joined`, its features are the means of the maps and then the brightest values.
    """
    import onnx
    from onnx import TensorProto, helper

    def floats(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = {
        "axes": np.array([2, 3]),
        "weights": np.eye(3, dtype=np.float32),
        "scale": np.array(1 / 255, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["raw"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["maps"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["maps", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weights"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["top"], axis=1, keepdims=0),
        helper.make_node("Gather", ["weights", "top"], ["row"]),
        helper.make_node("Einsum", ["maps", "row"], ["heatmaps"], equation=maps_equation),
    ]
    if not heatmaps:
        nodes = nodes[:6]
    if joined:
        nodes.append(helper.make_node("ReduceMax", ["maps", "axes"], ["brightest"], keepdims=0))
    parts = ["means", "brightest"] if joined else ["means"]
    nodes.append(helper.make_node("Concat", parts, ["features"], axis=1))
    width = 3 * len(parts)
    outputs = [floats("probabilities", ["N", 3]), floats("logits", ["N", 3]), floats("features", ["N", width])]
    if heatmaps:
        outputs.append(floats("heatmaps", ["N", 8, 8]))
    graph = helper.make_graph(
        nodes,
        "maps",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        outputs,
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    info = {
        "classes": ["red", "green", "blue"],
        "input_size": 8,
        "resize": "crop",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "temperature": 1.0,
        "curvature": 0.3,
        "unknown_threshold": 0.1,
        "architecture": "maps",
        "dataset": "colors",
        "accuracy": 0.9,
        "version": "0.1.0",
    }
    helper.set_model_props(model, {"thirtytwo": json.dumps(info)})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="session")
def maps_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps_model(tmp_path_factory.mktemp("maps") / "model.onnx")


def tones(color: tuple[int, int, int], count: int, seed: int = 0, spread: int = 30) -> list[Pixels]:
    """Images of about that color, uint8 `(8, 8, 3)` each."""
    random = np.random.default_rng(seed)
    return [
        np.clip(np.array(color) + random.integers(-spread, spread + 1, (8, 8, 3)), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


@pytest.fixture(scope="session")
def two_tones() -> dict[str, list[Pixels]]:
    """Ten yellow and ten violet images."""
    return {"yellow": tones((220, 200, 40), 10), "violet": tones((150, 40, 200), 10, seed=1)}


@pytest.fixture(scope="module")
def probe(maps_model: Path, two_tones: dict[str, list[Any]]) -> LinearProbe:
    return fit_linear_probe(Classifier(maps_model, threads=1), two_tones)


@pytest.fixture(scope="module")
def probe_file(probe: LinearProbe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probe.write(tmp_path_factory.mktemp("probe") / "model.onnx")


def test_cross_validation_covers_every_image_once(probe: LinearProbe) -> None:
    assert probe.folds == 10
    assert probe.accuracy is not None
    assert probe.accuracy["value"] == 1.0
    assert probe.accuracy["ci95"][0] < wilson(20, 20)[0], "wider than for independent images"
    assert probe.accuracy["ci95"][1] == 1.0
    assert probe.held_out is not None
    assert confusion_matrix(probe.held_out).tolist() == [[10, 0], [0, 10]]
    np.testing.assert_allclose(probe.held_out.probabilities.sum(axis=1), 1.0, atol=1e-6)


def test_classes_that_cannot_be_separated_have_chance_accuracy(maps_model: Path) -> None:
    same = tones((120, 120, 120), 80, spread=100)
    found = fit_linear_probe(Classifier(maps_model, threads=1), {"one": same[:40], "other": same[40:]})
    assert found.accuracy is not None
    assert found.held_out is not None
    low, high = found.accuracy["ci95"]
    assert low < 0.5 < high
    assert found.held_out.confidence.mean() < 0.75, "not confident about classes it cannot separate"


def test_the_file_computes_the_probe(probe: LinearProbe, probe_file: Path, maps_model: Path) -> None:
    model = Classifier(probe_file, threads=1)
    assert model.classes == ("yellow", "violet")
    assert model.info.dataset == "20 images, on features of colors"
    assert model.info.accuracy is None
    assert model.info.curvature == 0.0
    pixels = np.stack([*tones((220, 200, 40), 3, seed=5), *tones((150, 40, 200), 3, seed=6)])
    out = model.run(pixels, ("features", "logits", "probabilities", "known_score", "heatmaps"))
    before = Classifier(maps_model, threads=1).run(pixels, ("features",))["features"]
    np.testing.assert_array_equal(out["features"], before)
    directions = before / np.linalg.norm(before, axis=1, keepdims=True)
    expected = probe.head.logits(directions)
    np.testing.assert_allclose(out["logits"], expected, rtol=1e-4, atol=1e-4)
    shares = np.exp(expected / probe.info.temperature)
    np.testing.assert_allclose(out["probabilities"], shares / shares.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(out["known_score"], (directions @ probe.means.T).max(axis=1), atol=1e-6)
    weights = probe.head.weights[:, out["logits"].argmax(axis=1)]  # (D, N)
    maps = pixels.transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(out["heatmaps"], np.einsum("ndhw,dn->nhw", maps, weights), rtol=1e-3, atol=1e-3)
    assert [one.top for one in model.classify(pixels)] == ["yellow"] * 3 + ["violet"] * 3


def test_ood_images_are_unknown(probe_file: Path) -> None:
    model = Classifier(probe_file, threads=1)
    assert not any(one.known for one in model.classify(np.stack(tones((20, 200, 60), 5))))
    own = [*tones((220, 200, 40), 50, seed=7), *tones((150, 40, 200), 50, seed=8)]
    assert np.mean([one.known for one in model.classify(np.stack(own))]) > 0.75


def test_a_probe_of_a_probe(probe_file: Path, tmp_path: Path) -> None:
    again = fit_linear_probe(
        Classifier(probe_file, threads=1), {"dark": tones((30, 30, 90), 5), "light": tones((240, 240, 90), 5)}
    )
    model = Classifier(again.write(tmp_path / "again.onnx"), threads=1)
    assert model.predict(tones((250, 240, 90), 1, seed=3)[0])[0].top == "light"  # type: ignore[union-attr]


def test_the_command_line_predicts_with_it(
    probe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 30), (150, 40, 200)).save(tmp_path / "a.png")
    assert run_command(["predict", str(tmp_path / "a.png"), "--model", str(probe_file), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"] == "violet"


def test_heatmaps_of_joined_features_use_the_weights_of_the_maps(
    two_tones: dict[str, list[Any]], tmp_path: Path
) -> None:
    base = Classifier(write_maps_model(tmp_path / "base.onnx", joined=True), threads=1)
    probe = fit_linear_probe(base, two_tones)
    assert probe.head.weights.shape == (6, 2)
    pixels = np.stack(two_tones["violet"])
    out = Classifier(probe.write(tmp_path / "model.onnx"), threads=1).run(pixels, ("logits", "heatmaps"))
    weights = probe.head.weights[:3, out["logits"].argmax(axis=1)]  # (3, N)
    expected = np.einsum("ndhw,dn->nhw", pixels.transpose(0, 3, 1, 2) / 255, weights)
    np.testing.assert_allclose(out["heatmaps"], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{"heatmaps": False}, {"maps_equation": "ndhw,nd->nwh"}])
def test_without_maps_weighted_by_class_there_are_no_heatmaps(
    changes: dict[str, Any], two_tones: dict[str, list[Any]], tmp_path: Path
) -> None:
    base = Classifier(write_maps_model(tmp_path / "base.onnx", **changes), threads=1)
    path = fit_linear_probe(base, two_tones).write(tmp_path / "model.onnx")
    assert "heatmaps" not in [output.name for output in Classifier(path, threads=1).session.get_outputs()]


def test_a_model_whose_heatmaps_are_something_else(
    colour_model: Path, two_tones: dict[str, list[Any]], tmp_path: Path
) -> None:
    path = fit_linear_probe(Classifier(colour_model, threads=1), two_tones).write(tmp_path / "model.onnx")
    assert Classifier(path, threads=1).predict(two_tones["violet"][0])[0].top == "violet"  # type: ignore[union-attr]


YELLOW, VIOLET = tones((220, 200, 40), 5), tones((150, 40, 200), 5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"yellow": YELLOW}, "found 1"),
        ({"yellow": YELLOW, " ": VIOLET}, "name"),
        ({"yellow": YELLOW, "violet": []}, "'violet'.* 0 .*1 to 200"),
        ({"yellow": YELLOW, "violet": tones((150, 40, 200), 201)}, "201 .*1 to 200.*thirtytwo train"),
        ({"yellow": YELLOW, "violet": [*VIOLET, YELLOW[2]]}, "'yellow' and 'violet'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_images_raise(maps_model: Path, images: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_linear_probe(Classifier(maps_model, threads=1), images)


def test_a_missing_base_model_raises(
    write_model: Callable[..., Path], two_tones: dict[str, list[Any]], tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base.onnx")
    found = fit_linear_probe(Classifier(base, threads=1), two_tones)
    base.unlink()
    with pytest.raises(ModelFileError, match=r"base\.onnx"):
        found.write(tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_import_needs_no_pytorch() -> None:
    code = "import sys, thirtytwo.fewshot; print(sorted({'torch', 'onnx', 'scipy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
