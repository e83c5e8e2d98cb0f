"""Loading a finished run: its network, records, data and predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import RunError
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.export.parity import onnx_outputs
from thirtytwo.io import METADATA_KEY
from thirtytwo.models.base import load_network, read_run_weights, read_weights
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.loading import load_run
from thirtytwo.workflows.train import train


@pytest.fixture(scope="module")
def finished(tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on digits."""
    settings = {**tiny.overrides, "data.image_size": 16, "schedule.epochs": 1}
    path = tmp_path_factory.mktemp("runs") / "digits"
    train("digits", recipe="digits", overrides=settings, limit_train=60, run=path, show=False)
    return path


def test_loaded_network_is_that_of_the_model_file(finished: Path) -> None:
    run = load_run(finished)
    images = load_dataset("digits", image_size=16).test.images[:32]  # type: ignore[union-attr]
    logits = Scorer(run.network, run.info.mean, run.info.std, torch.device("cpu")).logits(images)
    np.testing.assert_allclose(logits, onnx_outputs(run.directory.onnx, images)["logits"], rtol=1e-3, atol=1e-4)
    assert not run.network.training
    assert run.recipe == run.directory.read_recipe()
    assert run.environment["data"]["spec"] == "digits"


def test_data_and_predictions_are_those_of_the_training(finished: Path) -> None:
    run = load_run(finished)
    predictions = run.predictions("test")
    assert len(run.data.parts.train) == run.environment["data"]["train"]
    np.testing.assert_array_equal(predictions.truth, run.data.parts.test.labels)
    assert run.data is run.data, "the data is read once"


@pytest.mark.parametrize("missing", ["model.onnx", "weights.safetensors"])
def test_unfinished_run(missing: str, finished: Path) -> None:
    file = finished / missing
    content = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(RunError) as error:
            load_run(finished)
    finally:
        file.write_bytes(content)
    assert missing in error.value.message
    assert f"--resume --run {finished}" in error.value.fix


def test_weights_carry_metadata(finished: Path, tmp_path: Path) -> None:
    run = RunDir(finished)
    tensors, metadata = read_run_weights(run)
    assert tensors.keys() == load_network(run, len(metadata["classes"])).state_dict().keys()
    assert metadata["input_size"] == 16
    (tmp_path / "damaged.safetensors").write_bytes(run.weights.read_bytes()[:100])
    for name in ("damaged.safetensors", "absent.safetensors"):
        with pytest.raises(RunError) as error:
            read_weights(tmp_path / name)
        assert name in error.value.message


@pytest.mark.parametrize("damage", ["flipped bit", "NaN", "metadata"])
def test_damaged_weights_are_noticed(damage: str, finished: Path, tmp_path: Path) -> None:
    content = (finished / "weights.safetensors").read_bytes()
    file = tmp_path / "weights.safetensors"
    if damage == "flipped bit":
        file.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "NaN":
        save_file({"weights": torch.tensor([1.0, float("nan")])}, file)
    else:
        save_file({"weights": torch.ones(2)}, file, metadata={METADATA_KEY: "[1]"})
    with pytest.raises(RunError, match=str(file)):
        read_weights(file)
