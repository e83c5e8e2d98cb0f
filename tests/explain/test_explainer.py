"""Explaining images: choice of the method, errors and results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.errors import MissingExtraError, ModelFileError, RunError, ThirtytwoError, UnknownNameError
from thirtytwo.explain import Explainer, Explanation
from thirtytwo.explain.explainer import as_heat
from thirtytwo.explain.methods import METHODS
from thirtytwo.inference.classifier import UnreadableImage
from thirtytwo.inference.integrity import with_checksum


@pytest.fixture
def without_heatmaps(squares_run: Path, tmp_path: Path) -> Path:
    """The model file of `squares_run`, alone, without the output `heatmaps`."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(squares_run / "model.onnx")
    kept = [output for output in model.graph.output if output.name != "heatmaps"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    (tmp_path / "plain.onnx").write_bytes(with_checksum(model.SerializeToString()))
    return tmp_path / "plain.onnx"


@pytest.fixture
def alone(squares_run: Path, tmp_path: Path) -> Path:
    """The model file of `squares_run`, alone."""
    (tmp_path / "model.onnx").write_bytes((squares_run / "model.onnx").read_bytes())
    return tmp_path / "model.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cam", "gradcam", "integrated", "occlusion"])
def test_every_method_finds_the_object(method: str, squares_run: Path, lab: SimpleNamespace) -> None:
    images, labels, where = lab.squares(6, seed=2)
    found = list(Explainer(squares_run, method).explain(list(images)))
    for one, label, place in zip(found, labels, where, strict=True):
        assert isinstance(one, Explanation)
        assert (one.label, one.top, one.method, one.file) == (lab.info().classes[label], one.label, method, None)
        assert (one.heat.dtype, one.heat.shape) == (np.dtype(np.float32), (32, 32))
        assert (one.heat.min(), one.heat.max()) == (0.0, 1.0)
        assert one.heat[place].mean() > 3 * one.heat[~place].mean()
    scores = [one.score for one in found if isinstance(one, Explanation) and one.score is not None]
    assert len(scores) == 6
    assert np.mean([score.gain for score in scores]) > 0.02
    assert np.mean([score.beaten for score in scores]) > 0.6


def test_cam_of_the_model_file_is_grad_cam(squares_run: Path, lab: SimpleNamespace) -> None:
    """FastNet's logits are linear in the mean and the maximum of its maps, so both weigh channels alike."""
    images, labels, _ = lab.squares(12, seed=3)
    with pytest.raises(ValueError, match="most probable class"):
        Explainer(squares_run, "cam").raw_maps(images, (labels + 1) % 3)
    cam, grad = (Explainer(squares_run, method).raw_maps(images, labels) for method in ("cam", "gradcam"))
    np.testing.assert_allclose(cam / np.abs(cam).max(), grad / np.abs(grad).max(), atol=1e-4)


def test_method_is_chosen_with_a_reason(squares_run: Path, alone: Path, without_heatmaps: Path) -> None:
    def chosen(model: Path, class_name: str | None = None) -> tuple[str, str]:
        made = Explainer(model, class_name=class_name)
        return made.method, made.reason

    assert chosen(squares_run) == ("gradcam", Explainer(squares_run).reason)
    assert chosen(squares_run / "model.onnx")[0] == "gradcam", "the model file of a run is the run"
    method, reason = chosen(alone)
    assert method == "cam"
    assert "weights" in reason
    method, reason = chosen(alone, "green")
    assert method == "occlusion"
    assert "most probable class" in reason
    method, reason = chosen(without_heatmaps)
    assert method == "occlusion"
    assert "no heatmaps" in reason


@pytest.mark.parametrize("damaged", ["weights.safetensors", "recipe.toml"])
def test_a_damaged_run_is_explained_by_its_model_file(
    damaged: str, squares_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(squares_run, tmp_path / "run")
    (run / damaged).write_bytes((run / damaged).read_bytes()[:40])
    made = Explainer(run)
    assert made.method == "cam"
    assert damaged in made.reason or "Recipe" in made.reason
    assert damaged in caplog.text or "Recipe" in caplog.text
    with pytest.raises(ThirtytwoError):
        Explainer(run, "gradcam")


def test_without_pytorch(squares_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thirtytwo.explain.methods.find_spec", lambda name: None)
    made = Explainer(squares_run)
    assert made.method == "cam"
    assert {"PyTorch", "Captum"} <= set(made.reason.replace(",", " ").split())
    monkeypatch.setitem(sys.modules, "captum", None)
    for method in ("gradcam", "integrated"):
        with pytest.raises(MissingExtraError, match=r"thirtytwo\[train\]"):
            Explainer(squares_run, method)


NO_TORCH = """
import json, sys
from thirtytwo.explain import Explainer
found = next(Explainer(sys.argv[1], sys.argv[2]).explain(sys.argv[3]))
print(json.dumps({"entry": found.as_dict(), "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cam", "occlusion"])
def test_a_model_file_is_enough(method: str, alone: Path, tmp_path: Path, lab: SimpleNamespace) -> None:
    Image.fromarray(lab.squares(1)[0][0]).save(tmp_path / "red.png")
    command = [sys.executable, "-c", NO_TORCH, str(alone), method, str(tmp_path / "red.png")]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result["entry"]["class"] == "red"
    assert result["entry"]["better_than_random_by"] > 0
    assert not set(result["modules"]) & {"torch", "captum", "matplotlib", "sklearn", "scipy", "pandas", "onnx"}


def test_a_class_can_be_asked_for(squares_run: Path, lab: SimpleNamespace) -> None:
    image = np.random.default_rng(0).integers(118, 138, (32, 32, 3)).astype(np.uint8)
    red, blue = np.s_[2:12, 2:12], np.s_[20:30, 20:30]
    image[red], image[blue] = (230, 30, 30), (30, 30, 230)
    for name, its_own, the_other in (("red", red, blue), ("blue", blue, red)):
        (found,) = Explainer(squares_run, class_name=name).explain(image, score=False)
        assert isinstance(found, Explanation)
        assert found.label == name
        assert found.score is None
        assert found.heat[its_own].mean() > 1.5 * found.heat[the_other].mean()


def test_files_bytes_and_unreadable_ones(squares_run: Path, tmp_path: Path, lab: SimpleNamespace) -> None:
    images = lab.squares(2)[0]
    Image.fromarray(images[0]).resize((64, 96)).save(tmp_path / "tall.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    read = (tmp_path / "tall.png").read_bytes()
    found = list(Explainer(squares_run, "cam").explain([tmp_path / "tall.png", tmp_path / "bad.png", read, images[1]]))
    tall, bad, same, other = found
    assert isinstance(tall, Explanation)
    assert (tall.file, tall.width, tall.height) == (str(tmp_path / "tall.png"), 64, 96)
    assert isinstance(bad, UnreadableImage)
    assert str(tmp_path / "bad.png") in bad.error
    assert isinstance(same, Explanation)
    assert isinstance(other, Explanation)
    np.testing.assert_array_equal(same.heat, tall.heat)
    assert same.score == tall.score, "the same image has the same score wherever it stands"
    assert list(tall.as_dict())[:8] == ["file", "width", "height", "class", "confidence", "top", "known", "method"]
    assert list(tall.as_dict())[8:] == [
        *("deletion", "insertion", "random", "better_than_random_by", "random_maps_beaten")
    ]


def test_pixels_of_other_kinds(squares_run: Path, lab: SimpleNamespace) -> None:
    images = lab.squares(3)[0]
    made = Explainer(squares_run, "cam")
    assert len(list(made.explain(images, score=False))) == 3
    for wrong in (images[0].astype(np.float32), images[0, :, :, 0], images[0, :0]):
        (found,) = made.explain(wrong, score=False)
        assert isinstance(found, UnreadableImage)
        assert "uint8" in found.error
        assert str(wrong.shape) in found.error


def test_maps_of_many(squares_run: Path, lab: SimpleNamespace) -> None:
    images, labels, _ = lab.squares(5)
    made = Explainer(squares_run, "cam")
    heat = made.maps(images)
    assert (heat.dtype, heat.shape) == (np.dtype(np.float32), (5, 32, 32))
    np.testing.assert_array_equal(heat, made.maps(images, labels))


def test_heat_of_any_map() -> None:
    maps = np.zeros((4, 2, 2), dtype=np.float32)
    maps[0] = [[1e-9, 0], [0, -5e-9]]
    maps[1] = 3.0
    maps[2] = -1.0
    maps[3] = [[5, 6], [6, 7]]
    heat = as_heat(maps, 8)
    assert heat.shape == (4, 8, 8)
    assert (heat[0, 0, 0], heat[0, 7, 7]) == (1.0, 0.0)
    assert not heat[1].any(), "the same everywhere"
    assert not heat[2].any(), "nothing speaks for the class"
    assert (heat[3].min(), heat[3].max()) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "error", "values"),
    [
        ({"method": "grad-cam"}, UnknownNameError, ("'grad-cam'", "'gradcam'")),
        ({"class_name": "gren"}, UnknownNameError, ("'gren'", "'green'")),
        ({"method": "cam", "class_name": "red"}, ModelFileError, ("cam", "'red'", "gradcam")),
    ],
)
def test_errors(
    settings: dict[str, str], error: type[ThirtytwoError], values: tuple[str, ...], squares_run: Path
) -> None:
    with pytest.raises(error) as caught:
        Explainer(squares_run, **settings)  # type: ignore[arg-type]
    assert all(value in str(caught.value) for value in values)


def test_methods_that_do_not_fit_the_model(
    alone: Path, without_heatmaps: Path, squares_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="cam.*--method"):
        Explainer(without_heatmaps, "cam")
    for method in ("gradcam", "integrated"):
        with pytest.raises(RunError, match=rf"{method}.*weights\.safetensors.*--model"):
            Explainer(alone, method)
    run = Path(shutil.copytree(squares_run, tmp_path / "damaged"))
    (run / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match=r"weights\.safetensors"):
        Explainer(run, "gradcam")


def test_every_method_says_what_it_is() -> None:
    assert METHODS.names() == ["cam", "gradcam", "integrated", "occlusion"]
    assert all(METHODS.get(name).about for name in METHODS)


def test_pillow_images_alone_and_several(squares_run: Path) -> None:
    explainer, image = Explainer(squares_run, "cam"), Image.new("RGB", (16, 12), "red")
    (alone,) = explainer.explain(image, score=False)
    assert isinstance(alone, Explanation)
    assert (alone.file, alone.width, alone.height) == (None, 16, 12)
    assert len(list(explainer.explain([image, image], score=False))) == 2
