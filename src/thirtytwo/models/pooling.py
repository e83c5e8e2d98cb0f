"""Pooling that needs little memory in training on a CPU: 2×2 max-pool, also after a convolution, and global pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from thirtytwo.models.tiny_maps import autocast, is_multiplied
from thirtytwo.tensors import chunks, chunks_of

_SIDE = [2, 2]
_BACKWARD_SETTINGS = (_SIDE, _SIDE, [0, 0], [1, 1], False)
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
        pooled, positions = _blank_pooled(maps, maps.shape, ctx.layout)
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
            _spread(gradient[part], positions[part], result[part])
        return result


def _blank_pooled(like: Tensor, shape: Sequence[int], layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Empty results of pooling maps of `shape` `(N, C, H, W)`, of the dtype of `like`, and positions of the maxima."""
    pooled = torch.empty((*shape[:2], shape[2] // 2, shape[3] // 2), dtype=like.dtype, memory_format=layout)
    return pooled, torch.empty_like(pooled, dtype=torch.int16)


def _spread(gradient: Tensor, positions: Tensor, into: Tensor) -> None:
    """Write the gradient of pooled maps to the positions of their maxima."""
    # `into` is also in place of the maps, which are an argument for their shape and layout only
    wide = positions.long()
    torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
        gradient, into, *_BACKWARD_SETTINGS, wide, grad_input=into
    )


def convolve_and_pool(
    maps: Tensor, filters: Tensor, padding: int, *, training: bool, make_maps: Callable[[Tensor], Tensor] | None = None
) -> Tensor | None:
    """`max_pool2d(conv2d(maps, filters), 2)` of a few images at a time; None where that has no advantage.

    It has one on a CPU, in training or without gradients, for channels-last maps `(N, C, H, W)` whose convolution is
    larger than a part (`CHUNK_BYTES`): the maps between convolution and pool, the largest of a network, are never in
    memory as a whole, nor are their gradients. `filters` are `(O, C, K, K)` with K > `padding`. Outputs and gradients
    are the same up to rounding; the gradient of `filters` is summed over the parts in float32. Gradients have none of
    their own.

    With `make_maps`, `maps` is what it makes the maps from, for a few images at a time: without gradients, and again in
    the backward pass, until which its parameters must not change. The layout is then that of its input.
    """
    recorded = torch.is_grad_enabled() and (maps.requires_grad or filters.requires_grad)
    if torch.compiler.is_compiling() or maps.device.type != "cpu" or (recorded and not training):
        return None
    if len(maps) < 2 or not maps.is_contiguous(memory_format=torch.channels_last):
        return None
    sides = maps.shape[2:] if make_maps is None else make_maps(maps[:1]).shape[2:]
    height, width = (side + 2 * padding - filters.shape[2] + 1 for side in sides)
    if min(height, width) < min(_SIDE) or (recorded and height * width > _MOST_POSITIONS):
        return None
    if make_maps is None and is_multiplied(maps, filters.shape[2], padding, training=training):
        return None
    if torch.is_autocast_enabled("cpu"):
        filters = autocast(filters)
        maps = autocast(maps) if make_maps is None else maps
    size = len(maps) * len(filters) * height * width * filters.element_size()
    parts = list(chunks_of(len(maps), size))
    if len(parts) < 2:
        return None
    if recorded:
        trained: Tensor = _ConvolveAndPool.apply(maps, filters, padding, (height, width), parts, make_maps)
        return trained
    shape = (len(maps), len(filters), height // 2, width // 2)
    pooled = torch.empty(shape, dtype=filters.dtype, memory_format=torch.channels_last)
    for part in parts:
        inputs = _maps_of(maps[part], make_maps)
        pooled[part] = F.max_pool2d(F.conv2d(inputs, filters, padding=padding), 2)
    return pooled


def _maps_of(images: Tensor, make_maps: Callable[[Tensor], Tensor] | None) -> Tensor:
    return images if make_maps is None else make_maps(images)


class _ConvolveAndPool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        maps: Tensor,
        filters: Tensor,
        padding: int,
        sides: tuple[int, int],
        parts: list[slice],
        make_maps: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        ctx.padding, ctx.sides, ctx.parts, ctx.make_maps = padding, sides, parts, make_maps
        # so that `make_maps` computes the same in the backward pass
        ctx.precision = {"dtype": torch.get_autocast_dtype("cpu"), "enabled": torch.is_autocast_enabled("cpu")}
        pooled, positions = _blank_pooled(filters, (len(maps), len(filters), *sides), torch.channels_last)
        for part in parts:
            inputs = _maps_of(maps[part], make_maps)
            convolved = F.conv2d(inputs, filters, padding=padding)
            pooled[part], positions[part] = torch.ops.aten.max_pool2d_with_indices(convolved, _SIDE, _SIDE)
        ctx.save_for_backward(maps, filters, positions)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, filters, positions = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        of_maps = torch.empty_like(maps) if wanted[0] else None
        of_filters = torch.zeros_like(filters, dtype=torch.promote_types(filters.dtype, torch.float32))
        settings = ([1, 1], [ctx.padding] * 2, [1, 1], False, [0, 0], 1)
        for part in ctx.parts:
            with torch.autocast("cpu", **ctx.precision):
                inputs = _maps_of(maps[part], ctx.make_maps)
            shape = (len(inputs), len(filters), *ctx.sides)
            inner = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
            _spread(gradient[part], positions[part], inner)
            found = torch.ops.aten.convolution_backward(inner, inputs, filters, None, *settings, wanted)
            if of_maps is not None:
                of_maps[part] = found[0]
            if wanted[1]:
                of_filters += found[1]
        return of_maps, of_filters.to(filters.dtype) if wanted[1] else None, None, None, None, None


def pool_globally(maps: Tensor, *, with_mean: bool, training: bool) -> Tensor:
    """Maximum of each channel of maps `(N, C, H, W)` → `(N, C)`; `with_mean` adds the mean.

    In training on a CPU, for channels-last maps, the backward pass works on a few images at a time, where PyTorch
    counts the maxima of all maps in 64 bits. Outputs and gradients, which equal maxima share, are the same up to
    rounding. Gradients have none of their own. In compiled training, one of equal maxima has the whole gradient.
    """
    if training and torch.compiler.is_compiling():
        # not amax: its gradient compares the maxima with maps that are computed again without rounding them to
        # bfloat16, and where none is equal, it divides by zero (PyTorch 2.15)
        features = maps.flatten(2).max(dim=2).values
        return features + maps.mean(dim=(2, 3)) if with_mean else features
    if not (training and maps.is_contiguous(memory_format=torch.channels_last)):
        features = maps.amax(dim=(2, 3))
        return features + maps.mean(dim=(2, 3)) if with_mean else features
    # gradients of this view are channels-last too; others would slow down the backward pass of the layers before
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    if rows.requires_grad and rows.device.type == "cpu":
        pooled: Tensor = _GlobalPool.apply(rows, with_mean)
        return pooled
    features = rows.amax(dim=1)
    return features + rows.mean(dim=1) if with_mean else features


class _GlobalPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, with_mean: bool) -> Tensor:
        largest = rows.amax(dim=1)
        ctx.save_for_backward(rows, largest)
        ctx.with_mean = with_mean
        return largest + rows.mean(dim=1) if with_mean else largest.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, largest = ctx.saved_tensors
        result = torch.empty_like(rows)
        for part in chunks(rows):
            maxima = (rows[part] == largest[part, None]).to(gradient.dtype)
            share = gradient[part] / maxima.sum(dim=1)
            torch.mul(maxima, share[:, None], out=result[part])
            if ctx.with_mean:
                result[part] += (gradient[part] / rows.shape[1])[:, None]
        return result, None
