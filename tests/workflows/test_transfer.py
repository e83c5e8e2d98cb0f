"""Training from pretrained weights on a small folder of images, from the command line to model.onnx."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.config.recipe import ModelSettings
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import normalize

GROUPS = [{"width": 8}, {"width": 16}]
TEN = tuple(f"kind {number}" for number in range(10))
Pretrain = Callable[..., Any]


@pytest.fixture
def few(tmp_path: Path, tiny: SimpleNamespace) -> Path:
    """Ten images per class of three classes, 20×20 pixels."""
    folder: Path = tiny.folder(tmp_path / "few", 30, size=20)
    return folder


@pytest.mark.long
def test_few_images_from_a_run(
    few: Path, pretrain: Pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, before = pretrain(ModelSettings(name="fastnet", options={"groups": GROUPS}), TEN)
    words = ["train", str(few), "--pretrained", str(source), "--run", str(tmp_path / "run"), "--epochs", "4"]
    words += ["--set", "transfer.network=run", "--set", "train.precision=float32", "--set", "transfer.head_until=0.5"]
    assert run_command(words) == 0
    err = capsys.readouterr().err
    assert f"pretrained weights: {source}" in err
    assert "2 of 4 epochs" in err
    run = RunDir.open(tmp_path / "run")
    recipe = run.read_recipe()
    assert recipe.model.options["groups"] == GROUPS
    assert recipe.data.image_size == 16, "the run's"
    assert len(run.read_history()) == 4
    session = onnxruntime.InferenceSession(str(run.onnx), providers=["CPUExecutionProvider"])
    info = json.loads(session.get_modelmeta().custom_metadata_map["thirtytwo"])
    assert (info["mean"], info["std"], info["input_size"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3], 16)
    shutil.rmtree(source)
    assert thirtytwo.evaluate(run.path, show=False)["n"] == json.loads(run.metrics.read_text())["n"]
    assert before is not None


@pytest.mark.long
def test_features_of_a_frozen_base_do_not_change(few: Path, pretrain: Pretrain, tmp_path: Path) -> None:
    source, before = pretrain(ModelSettings(name="fastnet", options={"groups": GROUPS}), TEN)
    run = thirtytwo.train(
        str(few),
        pretrained=source,
        run=tmp_path / "run",
        epochs=2,
        overrides={"transfer.network": "run", "transfer.head_until": 1, "train.precision": "float32"},
        show=False,
    )
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(run.path / "model.onnx"), providers=["CPUExecutionProvider"])
    (features,) = session.run(["features"], {"images": images})
    with torch.inference_mode():
        normalized = normalize(torch.from_numpy(images), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        expected = before.pool(before.forward_features(normalized))
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (["--pretrained", "runs/gone"], ["runs/gone"]),
        (["--pretrained", "timm"], ["timm", "'fastnet'"]),
        (["--pretrained", "SOURCE"], ["groups.0.widen.weight", "64×24×3×3", "8×24×3×3"]),
        (["--pretrained", "SOURCE", "--set", "transfer.network=run", "--set", "transfer.unfreeze=groups.7"],
         ["'groups.7'"]),
    ],
)  # fmt: skip
def test_invalid_arguments_are_refused_before_anything_is_written(
    extra: list[str],
    named: list[str],
    few: Path,
    pretrain: Pretrain,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    source, _ = pretrain(ModelSettings(name="fastnet", options={"groups": GROUPS}), TEN)
    words = [str(source) if word == "SOURCE" else word for word in extra]
    plain = ["--set", "model.options={}"] if "transfer.network=run" not in extra else []
    assert run_command(["train", str(few), "--run", str(tmp_path / "run"), *words, *plain]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in named)
    assert not (tmp_path / "run").exists()
