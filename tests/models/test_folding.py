"""Frozen BatchNorm folded into convolutions: same function, same gradients, nothing left behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import ModelSettings
from thirtytwo.models import MODELS, Network
from thirtytwo.models.folding import foldable_pairs, folded_norms

NETWORKS: dict[str, tuple[ModelSettings, int]] = {
    # Strided convolutions that pad in their forward pass (TensorFlow's "same"), activations inside BatchNorm.
    "lite0": (
        ModelSettings(name="timm", options={"architecture": "tf_efficientnet_lite0", "small_images": "none"}),
        64,
    ),
    # Activation modules after BatchNorm, and a convolution on the shortcut.
    "resnet": (ModelSettings(name="timm", options={"architecture": "resnet18", "small_images": "none"}), 64),
    "fastnet": (ModelSettings(name="fastnet", options={"groups": [{"width": 8}, {"width": 16}]}), 32),
}

FOLDED = {"lite0": 49, "resnet": 20, "fastnet": 2}
"""Layers folded; all of them, except where pooling comes in between, in FastNet."""


def network(name: str) -> tuple[Network, int]:
    """A network with BatchNorm layers whose statistics and parameters are not those of a new one."""
    torch.manual_seed(0)
    settings, size = NETWORKS[name]
    net = MODELS.get(settings.name)(5, settings.options)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if isinstance(values, Tensor):
                    nn.init.uniform_(values, low, high)
    return net.eval().to(memory_format=torch.channels_last), size  # type: ignore[call-overload, no-any-return]


def outputs_and_gradients(net: Network, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    images = torch.randn((4, 3, size, size), generator=torch.Generator().manual_seed(1))
    net.zero_grad()
    maps = net.forward_features(images)
    maps.square().mean().backward()
    return maps.detach(), {name: value.grad for name, value in net.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_changes_neither_outputs_nor_gradients(name: str) -> None:
    net, size = network(name)
    expected, gradients = outputs_and_gradients(net, size)
    names = list(net.state_dict())
    with folded_norms(net, size) as count:
        assert count == FOLDED[name]
        assert list(net.state_dict()) == names
        found, found_gradients = outputs_and_gradients(net, size)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert found_gradients.keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert torch.allclose(found_gradients[key], gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max())), key


def test_gradients_are_exact_in_float64() -> None:
    net, size = network("resnet")
    net.double()
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(net.forward_features(images).square().mean(), list(net.body.parameters())))

    expected = gradients()
    with folded_norms(net, size) as count:
        assert count == FOLDED["resnet"]
        found = gradients()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_layers_run_no_batch_norm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, size = network(name)
    calls: list[Any] = []
    original = torch.batch_norm
    monkeypatch.setattr(torch, "batch_norm", lambda *rest: (calls.append(1), original(*rest))[1])
    outputs_and_gradients(net, size)
    before = len(calls)
    with folded_norms(net, size) as count:
        calls.clear()
        outputs_and_gradients(net, size)
    assert before - len(calls) == count > 0


def test_convolutions_that_change_their_filters_are_not_folded() -> None:
    net, size = network("resnet")
    conv = next(module for module in net.modules() if isinstance(module, nn.Conv2d))

    class Standardized(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            weight = self.weight / self.weight.abs().max()
            return nn.functional.conv2d(input, weight, None, self.stride, self.padding)

    conv.__class__ = Standardized
    expected, _ = outputs_and_gradients(net, size)
    with folded_norms(net, size) as count:
        assert count == FOLDED["resnet"] - 1
        assert torch.allclose(outputs_and_gradients(net, size)[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [64, 63, 50])
def test_frozen_depthwise_convolutions_do_not_copy_their_input_to_pad_it(size: int) -> None:
    net, traced = network("lite0")
    net.requires_grad_(False)
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))
    expected = net.forward_features(images)
    with folded_norms(net, traced), torch.profiler.profile(record_shapes=True) as profiled:
        found = net.forward_features(images)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    padded = [event.input_shapes[0] for event in profiled.events() if event.name == "aten::constant_pad_nd"]
    assert {shape[1] for shape in padded} <= {1, 3}, "only the images, and filters"


def test_leaving_restores_the_network() -> None:
    net, size = network("resnet")
    expected, _ = outputs_and_gradients(net, size)
    with folded_norms(net, size):
        pass
    assert not any("forward" in vars(module) for module in net.modules())
    assert torch.equal(outputs_and_gradients(net, size)[0], expected)


def test_a_copy_refers_to_its_own_layers() -> None:
    net, size = network("resnet")
    expected, _ = outputs_and_gradients(net, size)
    with folded_norms(net, size):
        copied = copy.deepcopy(net)
    with torch.no_grad():
        for value in net.parameters():
            value.zero_()
    assert torch.allclose(outputs_and_gradients(copied, size)[0], expected, rtol=1e-3, atol=1e-3)


def test_training_mode_normalizes_by_the_batch_as_before() -> None:
    net, size = network("resnet")
    other = copy.deepcopy(net)
    net.train()
    other.train()
    expected, _ = outputs_and_gradients(net, size)
    with folded_norms(other, size):
        found, _ = outputs_and_gradients(other, size)
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), other.buffers(), strict=True))


class Branching(nn.Module):
    """A convolution whose output also bypasses its BatchNorm, one that is normalized twice, and a plain pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.twice, self.plain = (nn.BatchNorm2d(3) for _ in range(3))

    def forward_features(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        maps = self.norm(maps) + maps
        maps = self.twice(self.twice(self.second(maps)))
        found: Tensor = self.plain(self.third(maps))
        return found


def test_only_exclusive_pairs_are_folded() -> None:
    net = Branching()
    assert foldable_pairs(net, 8) == [(net.third, net.plain)]  # type: ignore[arg-type]
