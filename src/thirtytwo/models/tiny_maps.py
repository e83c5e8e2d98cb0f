"""Convolution of tiny maps, which is fast in training on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.tensors import chunks

_MOST_POSITIONS = 9


def convolve(maps: Tensor, filters: Tensor, bias: Tensor | None, padding: int, *, training: bool) -> Tensor:
    """Convolution of maps `(N, C, H, W)` with `filters` `(O, C, K, K)` and a `bias` `(O,)` → `(N, O, H', W')`.

    The `padding` is less than K.

    In training on a CPU, maps of up to 3×3 pixels in channels-last layout are multiplied by the filters as one matrix.
    PyTorch's convolution works row by row, and rows this short take it 1.3 to 16 times as long (512 and 768 channels,
    PyTorch 2.15, with AMX, AVX512-BF16 and AVX2). Results differ by rounding only.
    """
    trained = training and maps.requires_grad and maps.device.type == "cpu" and not torch.compiler.is_compiling()
    tiny = maps.shape[2] * maps.shape[3] <= _MOST_POSITIONS and maps.is_contiguous(memory_format=torch.channels_last)
    if not (trained and tiny):
        return F.conv2d(maps, filters, bias, padding=padding)
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else maps.dtype
    result: Tensor = _Convolution.apply(maps.to(precision), filters.to(precision), padding)
    return result if bias is None else result + bias.to(precision)[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, filters: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(maps, filters)
        ctx.padding = padding
        return _product(maps, filters.permute(0, 2, 3, 1).flatten(1).T, filters.shape[2], padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, filters = ctx.saved_tensors
        width, channels, side, _ = filters.shape
        of_maps = of_filters = None
        if ctx.needs_input_grad[1]:
            precise = torch.promote_types(filters.dtype, torch.float32)
            total = filters.new_zeros((width, side * side * channels), dtype=precise)
            for part in chunks(maps):
                rows = gradient[part].permute(0, 2, 3, 1).reshape(-1, width)
                total += rows.T @ _windows(maps[part], side, ctx.padding)
            of_filters = total.to(filters.dtype).view(width, side, side, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            mirrored = filters.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, channels)
            of_maps = _product(gradient, mirrored, side, side - 1 - ctx.padding)
        return of_maps, of_filters, None


def _product(maps: Tensor, matrix: Tensor, side: int, padding: int) -> Tensor:
    """Convolution as the product of windows with a `matrix` `(K·K·C, O)`, in channels-last layout."""
    height, width = (length + 2 * padding - side + 1 for length in maps.shape[2:])
    shape = (len(maps), matrix.shape[1], height, width)
    result = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)  # no view: BatchNorm may change it
    for part in chunks(maps):
        torch.mm(_windows(maps[part], side, padding), matrix, out=result[part].permute(0, 2, 3, 1).view(-1, shape[1]))
    return result


def _windows(maps: Tensor, side: int, padding: int) -> Tensor:
    """The window of each position of maps `(N, C, H, W)` as rows, `(N·H'·W', K·K·C)`."""
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4))
    windows = padded.unfold(1, side, 1).unfold(2, side, 1)  # (N, H', W', C, K, K)
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
