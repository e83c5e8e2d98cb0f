"""A 2×2 max-pool that needs little memory in training on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thirtytwo.tensors import chunks

_SIDE = [2, 2]
_MOST_POSITIONS = 2**15


def max_pool_2x2(maps: Tensor, *, training: bool) -> Tensor:
    """2×2 max-pool: `(N, C, H, W)` → `(N, C, H // 2, W // 2)`.

    In training on a CPU, positions of the maxima are kept in 16 bits for the backward pass, where PyTorch keeps them in
    64 bits beside the maps themselves: an eighth of the memory or less. Outputs and gradients are the same; gradients
    have none of their own.
    """
    small = maps.shape[2] * maps.shape[3] <= _MOST_POSITIONS
    if training and small and maps.requires_grad and maps.device.type == "cpu" and not torch.compiler.is_compiling():
        pooled: Tensor = _MaxPool.apply(maps)
        return pooled
    return F.max_pool2d(maps, 2)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        channels_last = maps.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if channels_last else torch.contiguous_format
        ctx.shape = maps.shape
        shape = (*maps.shape[:2], maps.shape[2] // 2, maps.shape[3] // 2)
        pooled = torch.empty(shape, dtype=maps.dtype, memory_format=ctx.layout)
        positions = torch.empty(shape, dtype=torch.int16, memory_format=ctx.layout)
        for part in chunks(maps):
            pooled[part], positions[part] = torch.ops.aten.max_pool2d_with_indices(maps[part], _SIDE, _SIDE)
        ctx.save_for_backward(positions)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positions,) = ctx.saved_tensors
        result = torch.empty(ctx.shape, dtype=gradient.dtype, memory_format=ctx.layout)
        for part in chunks(result):
            into = result[part]  # also in place of the maps, which are an argument for their shape and layout only
            settings = (_SIDE, _SIDE, [0, 0], [1, 1], False, positions[part].long())
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(gradient[part], into, *settings, grad_input=into)
        return result
