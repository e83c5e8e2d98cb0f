"""Maps from gradients: against hand-made networks, and on every family of networks, where the evidence is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.explain.explainer import as_heat
from thirtytwo.explain.gradients import Gradients
from thirtytwo.explain.overlay import Heat
from thirtytwo.models import MODELS, Network
from thirtytwo.models.ensemble import Ensemble, EnsembleSettings, MemberSettings


class Linear(Network):
    """Color channels averaged over 4×4 patches, then over places: every map is known."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[2.0, -1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]]))

    def forward_features(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 4)

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight


class Token(Linear):
    """Logits from one token that attention fills from half of the places; Grad-CAM must use the maps before that."""

    def forward_features(self, images: Tensor) -> Tensor:
        mixed = self._patches(images)[..., :4].mean(dim=(2, 3))
        return mixed[:, :, None, None]

    def pool(self, maps: Tensor) -> Tensor:
        return maps.flatten(1)

    def forward_with_tap(self, images: Tensor, tap: Callable[[Tensor], Tensor]) -> Tensor:
        return self.classify(tap(self._patches(images))[..., :4].mean(dim=(2, 3)))

    def _patches(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 4)


def test_grad_cam_by_hand(lab: SimpleNamespace) -> None:
    images, labels, _ = lab.squares(6)
    found = Gradients(Linear(), lab.info()).grad_cam(images, labels)
    maps = F.avg_pool2d(lab.normalize(images), 4)
    weights = Linear().head.weight[torch.from_numpy(labels)]
    expected = torch.einsum("ndhw,nd->nhw", maps, weights) / (8 * 8)
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-6)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (6, 8, 8))


def test_grad_cam_looks_where_the_network_lets_it(lab: SimpleNamespace) -> None:
    images, labels, _ = lab.squares(4)
    found = Gradients(Token(), lab.info()).grad_cam(images, labels)
    assert found.shape == (4, 8, 8), "not the one place of the last maps"
    plain = Gradients(Linear(), lab.info()).grad_cam(images, labels)
    # half of the places carry twice the weight, and Grad-CAM takes the mean
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_grad_cam_leaves_no_traces(lab: SimpleNamespace) -> None:
    net = Linear().requires_grad_(False)
    images, labels, _ = lab.squares(2)
    with torch.inference_mode(False), torch.no_grad():
        found = Gradients(net, lab.info()).grad_cam(images, labels)
    assert np.ptp(found) > 0, "frozen weights are no obstacle"
    assert net.head.weight.grad is None
    assert not net._forward_hooks


def test_integrated_gradients_add_up(lab: SimpleNamespace) -> None:
    """Attributions sum to the difference of the logits of image and blurred image; smoothing keeps the sum."""
    images, labels, where = lab.squares(3)
    images[~where] = 128
    gradients = Gradients(Linear(), lab.info())
    found = gradients.integrated(images, labels)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (3, 32, 32))
    from thirtytwo.explain.faithfulness import blurred

    inputs, start = (lab.normalize(value) for value in (images, np.stack([blurred(one) for one in images])))
    with torch.no_grad():
        gained = (Linear()(inputs) - Linear()(start)).gather(1, torch.from_numpy(labels)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found.sum(axis=(1, 2)), gained, atol=0.02)
    for heat, place in zip(found, where, strict=True):
        assert heat[place].mean() > 5 * abs(heat[~place].mean())


FAMILIES: dict[str, dict[str, Any]] = {
    "resnet": {"architecture": "resnet10t"},
    "efficientnet": {"architecture": "tinynet_e"},
    "convnext": {"architecture": "convnext_atto"},
    "vit": {"architecture": "vit_tiny_patch16_224", "arguments": {"depth": 3}},
    "deit": {"architecture": "deit_tiny_patch16_224", "arguments": {"depth": 3}},
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "arguments": {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
    },
}


SLOW = ("resnet", "efficientnet", "convnext")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAMILIES]
)
def test_grad_cam_follows_the_object(family: str, lab: SimpleNamespace) -> None:
    torch.manual_seed(0)
    net: Any = MODELS.get("timm")(3, FAMILIES[family])
    if family == "efficientnet":
        lab.train(net)  # with weights by chance it forgets on the way where things are
    else:
        lab.find(net, net.head)
    images, labels, where = lab.squares(12, seed=1)
    found = Gradients(net, lab.info()).grad_cam(images, labels)
    assert found.shape[0] == 12
    assert min(found.shape[1:]) >= 4
    assert np.isfinite(found).all()
    assert (np.ptp(found, axis=(1, 2)) > 0).all()
    if net.has_heatmaps:
        assert agreement(net, lab.normalize(images), labels, found) > 0.95
    heats = as_heat(found, 32)
    inside = np.array([heat[place].mean() for heat, place in zip(heats, where, strict=True)])
    outside = np.array([heat[~place].mean() for heat, place in zip(heats, where, strict=True)])
    assert (inside > outside).sum() >= 10
    assert (inside - outside).mean() > 0.2


def agreement(net: Network, images: Tensor, labels: npt.NDArray[np.int64], found: Heat) -> float:
    """Least correlation between the maps that a model file would carry and those of Grad-CAM."""
    with torch.no_grad():
        carried = net.heatmaps(net.forward_features(images), torch.from_numpy(labels)).numpy()
    return min(float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) for one, other in zip(carried, found, strict=True))


def test_grad_cam_of_an_ensemble_that_is_certain(lab: SimpleNamespace) -> None:
    """Its logits are log probabilities: where one is 1 to the last bit, they say nothing about the class itself."""
    member = MemberSettings(name="linear", mean=(0.5,) * 3, std=(0.25,) * 3, temperature=0.002)
    net = Ensemble([Linear()], EnsembleSettings(members=(member,), size=32))
    images, labels, _ = lab.squares(6)
    found = Gradients(net, lab.info(mean=(0.0,) * 3, std=(1.0,) * 3)).grad_cam(images, labels)
    maps, weights = F.avg_pool2d(lab.normalize(images), 4), Linear().head.weight.detach()
    logits = maps.mean(dim=(2, 3)) @ weights.T / member.temperature
    assert logits.softmax(dim=1).gather(1, torch.from_numpy(labels)[:, None]).min() == 1.0
    others = logits.scatter(1, torch.from_numpy(labels)[:, None], -torch.inf).softmax(dim=1)
    against_others = weights[torch.from_numpy(labels)] - others @ weights
    expected = torch.einsum("ndhw,nd->nhw", maps, against_others) / (8 * 8 * member.temperature)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)
