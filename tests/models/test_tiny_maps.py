"""Convolution of tiny maps equals PyTorch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.models import tiny_maps
from thirtytwo.models.tiny_maps import convolve


def some(shape: tuple[int, ...], seed: int, precision: torch.dtype) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(precision).contiguous(memory_format=torch.channels_last).requires_grad_()


def run(maps: Tensor, filters: Tensor, padding: int, *, ours: bool) -> tuple[Tensor, ...]:
    """Result and gradients of a weighted sum of it."""
    result = convolve(maps, filters, None, padding, training=ours)
    assert ("_Convolution" in type(result.grad_fn).__name__) is ours
    weights = torch.linspace(-1, 1, result.numel()).to(result.dtype).view(result.shape)
    return result.detach(), *torch.autograd.grad(result, (maps, filters), weights)


SHAPES = [
    (side, padding, height, width)
    for side, padding in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (5, 2)]
    for height, width in [(1, 1), (2, 2), (3, 3), (3, 2), (1, 9)]
    if min(height, width) + 2 * padding >= side
]


@pytest.mark.parametrize(("side", "padding", "height", "width"), SHAPES)
def test_equal_to_pytorch(side: int, padding: int, height: int, width: int) -> None:
    maps, filters = some((4, 6, height, width), 0, torch.float64), some((5, 6, side, side), 1, torch.float64)
    ours, theirs = (run(maps, filters, padding, ours=one) for one in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 9), (4, 4)])
@pytest.mark.parametrize(("side", "padding"), [(2, 0), (4, 1)])
def test_larger_maps_under_filters_with_an_even_side(side: int, padding: int, height: int, width: int) -> None:
    maps, filters = some((4, 6, height, width), 0, torch.float64), some((5, 6, side, side), 1, torch.float64)
    ours, theirs = (run(maps, filters, padding, ours=one) for one in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_bias_is_added() -> None:
    maps, filters = some((4, 6, 2, 2), 0, torch.float64), some((5, 6, 3, 3), 1, torch.float64)
    bias = torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = convolve(maps, filters, bias, 1, training=True)
    torch.testing.assert_close(found, F.conv2d(maps, filters, bias, padding=1))


def test_gradients_are_those_of_the_function() -> None:
    maps, filters = some((2, 3, 2, 3), 0, torch.float64), some((4, 3, 3, 3), 1, torch.float64)
    assert torch.autograd.gradcheck(lambda one, other: tiny_maps._Convolution.apply(one, other, 1), (maps, filters))


def test_autocast_as_in_pytorch() -> None:
    """As close to float64 as PyTorch's own convolution in bfloat16, with gradients in each input's precision."""
    maps, filters = some((64, 48, 3, 3), 0, torch.float32), some((32, 48, 3, 3), 1, torch.float32)
    exact = run(maps.detach().double().requires_grad_(), filters.detach().double().requires_grad_(), 1, ours=False)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (run(maps, filters, 1, ours=one) for one in (True, False))
    for found, other, wanted in zip(ours, theirs, exact, strict=True):
        assert found.dtype == other.dtype
        error, usual = (float((one.double() - wanted).norm() / wanted.norm()) for one in (found, other))
        assert error < 1.1 * usual < 0.02


def test_autocast_leaves_float64_as_in_pytorch() -> None:
    maps, filters = some((2, 3, 3, 3), 0, torch.float64), some((4, 3, 3, 3), 1, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (run(maps, filters, 1, ours=one) for one in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected)


def test_float16_autocast_as_in_pytorch() -> None:
    maps, filters = some((2, 3, 3, 3), 0, torch.float32), some((4, 3, 3, 3), 1, torch.float32)
    with torch.autocast("cpu", torch.float16):
        ours, theirs = (run(maps, filters, 1, ours=one) for one in (True, False))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("side", "padding", "shape"), [(2, 0, (1, 1)), (2, 0, (3, 1)), (5, 1, (2, 2))])
def test_filters_that_are_larger_than_the_maps(side: int, padding: int, shape: tuple[int, int], training: bool) -> None:
    maps, filters = some((2, 3, *shape), 0, torch.float32), some((4, 3, side, side), 1, torch.float32)
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        convolve(maps, filters, None, padding, training=training)


def test_filters_of_another_precision_are_refused_as_in_pytorch() -> None:
    maps, filters = some((2, 3, 2, 2), 0, torch.float32), some((4, 3, 3, 3), 1, torch.float64)
    for training in (True, False):
        with pytest.raises(RuntimeError, match="same"):
            convolve(maps, filters, None, 1, training=training)


def test_second_derivatives_are_refused() -> None:
    maps, filters = some((2, 3, 2, 2), 0, torch.float32), some((4, 3, 3, 3), 1, torch.float32)
    result = convolve(maps, filters, None, 1, training=True)
    (gradient,) = torch.autograd.grad(result.pow(2).sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("kind", ["maps", "filters"])
def test_only_the_gradients_that_are_needed(kind: str) -> None:
    maps, filters = some((2, 3, 2, 2), 0, torch.float32), some((4, 3, 3, 3), 1, torch.float32)
    fixed = filters if kind == "maps" else maps
    result = tiny_maps._Convolution.apply(
        maps if kind == "maps" else maps.detach(), filters if kind == "filters" else filters.detach(), 1
    )
    result.sum().backward()
    assert fixed.grad is None
    wanted = maps if kind == "maps" else filters
    (expected,) = torch.autograd.grad(F.conv2d(maps, filters, padding=1).sum(), wanted)
    torch.testing.assert_close(wanted.grad, expected)


@pytest.mark.parametrize("kind", ["large maps", "even side", "evaluation", "no gradient", "contiguous"])
def test_pytorchs_own_is_used_elsewhere(kind: str) -> None:
    side = {"large maps": 4, "even side": 8}.get(kind, 3)
    filter_side = 2 if kind == "even side" else 3
    maps = some((2, 3, side, side), 0, torch.float32)
    filters = some((4, 3, filter_side, filter_side), 1, torch.float32)
    if kind == "no gradient":
        maps = maps.detach()
    if kind == "contiguous":
        maps = maps.contiguous()
    result = convolve(maps, filters, None, 1, training=kind != "evaluation")
    assert "ConvolutionBackward" in type(result.grad_fn).__name__
    assert "_Convolution" not in type(result.grad_fn).__name__


def convolutions(maps: Tensor, filters: Tensor) -> int:
    """Count the calls of PyTorch's convolution."""
    with FlopCounterMode(display=False) as counter:
        convolve(maps, filters, None, 1, training=False)
    return sum("convolution" in str(operation) for operation in counter.get_flop_counts()["Global"])


def test_many_maps_without_gradients_are_multiplied_too() -> None:
    maps, filters = some((64, 6, 3, 2), 0, torch.float64), some((5, 6, 3, 3), 1, torch.float64)
    assert convolutions(maps, filters) == 1  # in evaluation with gradients, as Grad-CAM needs them
    with torch.inference_mode():
        assert convolutions(maps, filters) == 0
        assert convolutions(maps[:63], filters) == 1
        found = convolve(maps, filters, None, 1, training=False)
        torch.testing.assert_close(found, F.conv2d(maps, filters, padding=1))


def test_an_export_has_a_convolution() -> None:
    class Convolution(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = torch.nn.Parameter(some((5, 6, 3, 3), 1, torch.float32).detach())

        def forward(self, maps: Tensor) -> Tensor:
            return convolve(maps, self.filters, None, 1, training=False)

    maps = some((64, 6, 3, 3), 0, torch.float32).detach()
    with torch.no_grad():
        exported = torch.export.export(Convolution(), (maps,))
    assert any("conv2d" in str(node.target) for node in exported.graph.nodes)
