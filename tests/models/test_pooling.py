"""The max-pool with little memory equals PyTorch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.models.pooling import max_pool_2x2


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
