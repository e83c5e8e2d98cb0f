"""The max-pool with little memory equals PyTorch's, forward and backward."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from thirtytwo import tensors
from thirtytwo.models.fastnet import FilterConv
from thirtytwo.models.pooling import convolve_and_pool, max_pool_2x2, pool_globally

COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]


def saved_bytes(maps: Tensor, pool: str) -> tuple[int, Tensor, Tensor]:
    """Bytes kept for the backward pass, the result, and the gradient of a weighted sum of it."""
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    maps = maps.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        pooled = max_pool_2x2(maps, training=True) if pool == "ours" else F.max_pool2d(maps, 2)
    weights = torch.linspace(-1, 1, pooled.numel()).to(pooled.dtype).view(pooled.shape)
    (gradient,) = torch.autograd.grad(pooled, maps, weights)
    return sum(kept), pooled, gradient


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [8, 31])
def test_equal_to_pytorch_with_less_memory(side: int, precision: torch.dtype, layout: torch.memory_format) -> None:
    maps = torch.randn((11, 16, side, side), generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    maps = maps.to(precision).contiguous(memory_format=layout)
    ours, theirs = (saved_bytes(maps, pool) for pool in ("ours", "theirs"))
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], theirs[2])
    assert ours[2].stride() == theirs[2].stride()
    assert ours[0] < theirs[0] / 5


def test_large_maps_and_evaluation_use_pytorchs() -> None:
    large = torch.randn((1, 1, 4, 2**14)).requires_grad_()
    assert "MaxPool2DWithIndices" in type(max_pool_2x2(large, training=True).grad_fn).__name__
    small = torch.randn((1, 1, 4, 4)).requires_grad_()
    assert "MaxPool2DWithIndices" in type(max_pool_2x2(small, training=False).grad_fn).__name__
    assert "MaxPool2DWithIndices" not in type(max_pool_2x2(small, training=True).grad_fn).__name__


def test_second_derivatives_are_refused() -> None:
    maps = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(max_pool_2x2(maps, training=True).pow(2).sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three images of 8 channels and 8×8 pixels in float32."""
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 3 * 8 * 8 * 8 * 4)


def channels_last(shape: tuple[int, ...], seed: int, precision: torch.dtype = torch.float64) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(precision).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "padding", "side"), [(3, 1, 8), (3, 1, 11), (3, 0, 9), (1, 0, 8), (5, 2, 8), (2, 0, 9)]
)
def test_convolution_in_parts_equals_the_whole(
    kernel: int, padding: int, side: int, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # sums of small whole numbers are exact in every precision, whatever their order
    maps, filters = (
        channels_last(shape, seed).detach().round().to(precision).requires_grad_()
        for seed, shape in enumerate([(8, 5, side, side), (8, 5, kernel, kernel)])
    )
    convolved = F.conv2d(maps, filters, padding=padding)
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 3 * convolved[0].nbytes)
    ours = convolve_and_pool(maps, filters, padding, training=True)
    assert ours is not None
    whole = F.max_pool2d(convolved, 2)
    torch.testing.assert_close(ours, whole)
    weights = torch.linspace(-1, 1, whole.numel()).to(precision).view(whole.shape)
    found, expected = (torch.autograd.grad(one, (maps, filters), weights) for one in (ours, whole))
    torch.testing.assert_close(found[0], expected[0])
    rtol, atol = {torch.bfloat16: (0.02, 0.2), torch.float32: (1e-4, 1e-4), torch.float64: (1e-7, 1e-7)}[precision]
    torch.testing.assert_close(found[1], expected[1], rtol=rtol, atol=atol)
    assert found[0].stride() == expected[0].stride()
    assert found[1].is_contiguous(memory_format=torch.channels_last)


class LargestBatch(TorchDispatchMode):
    """Remembers the largest number of maps of 8 channels and 8×8 pixels that an operation returns."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple) else (result,):
            if isinstance(one, Tensor) and one.shape[1:] == (8, 8, 8):
                self.found = max(self.found, len(one))
        return result


@pytest.mark.usefixtures("small_parts")
def test_maps_between_convolution_and_pool_are_not_kept() -> None:
    conv = FilterConv(5, 8, 3).to(memory_format=torch.channels_last)
    maps = channels_last((40, 5, 8, 8), 0, torch.float32)
    with LargestBatch() as batch:
        conv.pooled(maps).sum().backward()
    assert batch.found == 3
    assert conv.weight.grad is not None
    conv.eval()
    with LargestBatch() as batch, torch.no_grad():
        pooled = conv.pooled(maps)
    assert batch.found == 3
    torch.testing.assert_close(pooled, F.max_pool2d(F.conv2d(maps, conv.weight, padding=1), 2))


@pytest.mark.usefixtures("small_parts")
def test_filters_are_trained_where_the_layers_before_are_frozen() -> None:
    conv = FilterConv(5, 8, 3).to(memory_format=torch.channels_last)
    maps = channels_last((40, 5, 8, 8), 0, torch.float32).detach()
    with LargestBatch() as batch:
        conv.pooled(maps).sum().backward()
    assert batch.found == 3
    expected = F.max_pool2d(F.conv2d(maps, conv.weight, padding=1), 2)
    (whole,) = torch.autograd.grad(expected.sum(), conv.weight)
    torch.testing.assert_close(conv.weight.grad, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_parts")
def test_a_replaced_forward_is_used() -> None:
    conv = FilterConv(5, 8, 3).to(memory_format=torch.channels_last)
    maps = channels_last((8, 5, 8, 8), 0, torch.float32)
    vars(conv)["forward"] = lambda given: F.conv2d(given, conv.weight + 1, padding=1)
    torch.testing.assert_close(conv.pooled(maps), F.max_pool2d(F.conv2d(maps, conv.weight + 1, padding=1), 2))


@pytest.mark.usefixtures("small_parts")
def test_frozen_filters_get_no_gradient() -> None:
    maps, filters = channels_last((8, 5, 8, 8), 0), channels_last((8, 5, 3, 3), 1).detach()
    ours = convolve_and_pool(maps, filters, 1, training=True)
    assert ours is not None
    expected = F.max_pool2d(F.conv2d(maps, filters, padding=1), 2)
    torch.testing.assert_close(*(torch.autograd.grad(one.sum(), maps)[0] for one in (ours, expected)))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("case", ["evaluation", "few images", "contiguous", "tiny maps", "hooks", "bias"])
def test_where_parts_have_no_advantage(case: str) -> None:
    conv = FilterConv(5, 8, 3).to(memory_format=torch.channels_last)
    count, side = 3 if case == "few images" else 8, 3 if case == "tiny maps" else 8
    maps = channels_last((count, 5, side, side), 0, torch.float32)
    seen: list[int] = []
    if case == "evaluation":
        conv.eval()
    elif case == "contiguous":
        maps = maps.detach().contiguous(memory_format=torch.contiguous_format).requires_grad_()
    elif case == "hooks":
        conv.register_forward_hook(lambda module, inputs, result: seen.append(len(result)))
    elif case == "bias":
        conv.bias = torch.nn.Parameter(torch.linspace(-1, 1, 8))
    pooled = conv.pooled(maps)
    assert "ConvolveAndPool" not in type(pooled.grad_fn).__name__
    torch.testing.assert_close(pooled, F.max_pool2d(F.conv2d(maps, conv.weight, conv.bias, padding=1), 2))
    assert seen == ([count] if case == "hooks" else [])


@pytest.mark.usefixtures("small_parts")
def test_autocast_computes_in_its_precision() -> None:
    conv = FilterConv(5, 8, 3).to(memory_format=torch.channels_last)
    maps = channels_last((9, 5, 8, 8), 0, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = conv.pooled(maps)
        expected = F.max_pool2d(F.conv2d(maps, conv.weight, padding=1), 2)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, expected)
    pooled.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("with_mean", [True, False])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_global_pooling_equals_pytorchs(
    layout: torch.memory_format, precision: torch.dtype, with_mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn((7, 4, 3, 3), generator=torch.Generator().manual_seed(0)).round()  # with equal maxima
    maps = values.to(precision).contiguous(memory_format=layout).requires_grad_()
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 3 * maps[0].nbytes)
    ours = pool_globally(maps, with_mean=with_mean, training=True)
    theirs = maps.amax(dim=(2, 3)) + (maps.mean(dim=(2, 3)) if with_mean else 0)
    torch.testing.assert_close(ours, theirs)
    weights = torch.linspace(-1, 1, theirs.numel()).to(precision).view(theirs.shape)
    found, expected = (torch.autograd.grad(one, maps, weights)[0] for one in (ours, theirs))
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous(memory_format=layout)
    assert ("GlobalPool" in type(ours.grad_fn).__name__) is (layout == torch.channels_last)
    assert "GlobalPool" not in type(pool_globally(maps, with_mean=with_mean, training=False).grad_fn).__name__


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason="torch.compile needs a C++ compiler on a CPU: g++ or clang++")
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_compiled_training(layout: torch.memory_format) -> None:
    def pooled(maps: Tensor) -> Tensor:
        return pool_globally(F.silu(maps), with_mean=True, training=True)

    maps = torch.randn((64, 32, 3, 3), generator=torch.Generator().manual_seed(0)).bfloat16()
    gradients = []
    for function in (pooled, torch.compile(pooled, dynamic=False)):
        given = maps.contiguous(memory_format=layout).requires_grad_()
        function(given).float().square().sum().backward()
        assert given.grad is not None
        gradients.append(given.grad.float())
    plain, compiled = gradients
    assert compiled.isfinite().all()
    assert F.cosine_similarity(plain.flatten(), compiled.flatten(), dim=0) > 0.98  # equal maxima share the plain one
