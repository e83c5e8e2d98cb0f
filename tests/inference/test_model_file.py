from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from thirtytwo.errors import ModelFileError
from thirtytwo.inference.model_file import read_info
from thirtytwo.inference.session import open_session
from thirtytwo.io import METADATA_KEY


def test_info_is_read(colour_model: Path) -> None:
    info = read_info(colour_model)
    assert info.classes == ("red", "green", "blue")
    assert info.input_size == 8
    assert info.unknown_threshold == 1.0


def test_session_runs(colour_model: Path) -> None:
    session, info = open_session(colour_model)
    pixels = np.zeros((2, info.input_size, info.input_size, 3), dtype=np.uint8)
    (probabilities,) = session.run(["probabilities"], {"images": pixels})
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=1e-6)


def not_there(path: Path, model: Path) -> None:
    pass


def folder(path: Path, model: Path) -> None:
    path.mkdir()


def empty(path: Path, model: Path) -> None:
    path.touch()


def text(path: Path, model: Path) -> None:
    path.write_text("this is no model at all, whatever its name says")


def truncated(path: Path, model: Path) -> None:
    data = model.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def png(path: Path, model: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))


def without_metadata(path: Path, model: Path) -> None:
    changed = onnx.load(model)
    del changed.metadata_props[:]
    onnx.save(changed, path)


def no_json(path: Path, model: Path) -> None:
    with_metadata(path, model, "{classes")


def missing_classes(path: Path, model: Path) -> None:
    info = {"input_size": 8, "resize": "crop"}
    with_metadata(path, model, json.dumps(info))


def wrong_resize(path: Path, model: Path) -> None:
    info = json.loads(onnx.load(model).metadata_props[0].value)
    with_metadata(path, model, json.dumps(info | {"resize": "stretch"}))


def more_classes(path: Path, model: Path) -> None:
    info = json.loads(onnx.load(model).metadata_props[0].value)
    with_metadata(path, model, json.dumps(info | {"classes": ["a", "b", "c", "d"]}))


def float_input(path: Path, model: Path) -> None:
    changed = onnx.load(model)
    changed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(changed, path)


def no_logits(path: Path, model: Path) -> None:
    changed = onnx.load(model)
    kept = [output for output in changed.graph.output if output.name != "logits"]
    del changed.graph.output[:]
    changed.graph.output.extend(kept)
    onnx.save(changed, path)


def with_metadata(path: Path, model: Path, value: str) -> None:
    changed = onnx.load(model)
    changed.metadata_props[0].value = value
    onnx.save(changed, path)


@pytest.mark.parametrize(
    ("make", "contains"),
    [
        (not_there, ""),
        (folder, "folder"),
        (empty, "0 bytes"),
        (text, "47 bytes"),
        (png, "264 bytes"),
        (truncated, " bytes"),
        (without_metadata, "'thirtytwo'"),
        (no_json, "JSON"),
        (missing_classes, "classes: "),
        (wrong_resize, "resize: "),
        (more_classes, "3 columns for 4 classes"),
        (float_input, "images tensor(float)"),
        (no_logits, "'logits', found probabilities, features, heatmaps"),
    ],
)
@pytest.mark.parametrize("read", [read_info, open_session])
def test_bad_files(
    tmp_path: Path,
    colour_model: Path,
    capfd: pytest.CaptureFixture[str],
    make: Callable[[Path, Path], None],
    contains: str,
    read: Callable[[Path], object],
) -> None:
    path = tmp_path / "model.onnx"
    make(path, colour_model)
    with pytest.raises(ModelFileError) as caught:
        read(path)
    assert contains in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == "", "ONNX Runtime must not write beside the message"


def test_metadata_key_is_the_contract() -> None:
    assert METADATA_KEY == "thirtytwo"


def test_onnx_runtime_prints_nothing_about_damaged_names(
    colour_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = colour_model.read_bytes()
    (tmp_path / "model.onnx").write_bytes(data.replace(b"images", b"im\xffges", 1))
    with pytest.raises(ModelFileError):
        open_session(tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


SHARED = """
import numpy as np, psutil
import thirtytwo
from thirtytwo.inference.library import bundled_models

def grown_by(classifier):
    before = psutil.Process().memory_info().rss
    side = classifier.info.input_size
    images = np.zeros((classifier.largest_batch, side, side, 3), dtype=np.uint8)
    classifier.run(images, ("probabilities",))
    return psutil.Process().memory_info().rss - before

first, second = (thirtytwo.load(name) for name in ("cifar100", "cifar10"))
assert first.info.input_size == second.info.input_size == 224
alone, beside = grown_by(first), grown_by(second)
assert alone > 60 * 2**20 and beside < alone / 3, (alone, beside)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is counted as Linux does")
def test_models_share_memory_for_intermediate_results() -> None:
    done = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


REGISTERED = """
import onnxruntime, thirtytwo
memory = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)
onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(0, -1, -1, -1))
thirtytwo.load("cifar10-tiny")
"""


@pytest.mark.slow
def test_memory_registered_by_the_program_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", REGISTERED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
