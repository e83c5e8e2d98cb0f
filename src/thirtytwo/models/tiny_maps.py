"""Convolution of tiny maps, which is fast on a CPU in training and of many images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_MOST_POSITIONS = 9
_MOST_POSITIONS_EVEN = 49
"""For filters with an even side, for which PyTorch's convolution is slower."""
_MANY_IMAGES = 64
"""From this many on, products are faster without gradients too, for filters with an odd side."""


def convolve(maps: Tensor, filters: Tensor, bias: Tensor | None, padding: int, *, training: bool) -> Tensor:
    """Convolution of maps `(N, C, H, W)` with `filters` `(O, C, K, K)` and a `bias` `(O,)` → `(N, O, H', W')`.

    The `padding` is less than K.

    On a CPU, maps of up to 3×3 pixels in channels-last layout, in training up to 7×7 for filters with an even side, are
    multiplied by the filters position by position, without those parts of the filters that lie on the padding: in
    training, and without gradients from 64 maps on. PyTorch's convolution works row by row and multiplies the padding
    too: it takes 1.5 to 30 times as long (512 and 768 channels, PyTorch 2.15, with AMX), with gradients or without.
    Results differ by rounding only. Gradients have none of their own.
    """
    multiplied = is_multiplied(maps, filters.shape[2], padding, training=training)
    if not (multiplied and maps.device.type == "cpu" and maps.is_contiguous(memory_format=torch.channels_last)):
        return F.conv2d(maps, filters, bias, padding=padding)
    if torch.is_autocast_enabled("cpu"):
        maps, filters = (autocast(one) for one in (maps, filters))
    result: Tensor = _Convolution.apply(maps, filters, padding)
    return result if bias is None else result + bias.to(result.dtype)[:, None, None]


def is_multiplied(maps: Tensor, side: int, padding: int, *, training: bool) -> bool:
    """Whether products are faster for maps `(N, C, H, W)` of this size under filters of this side.

    Not if the filters are larger than the padded maps, which is an error of PyTorch's.
    """
    if torch.compiler.is_compiling() or min(maps.shape[2:]) + 2 * padding < side:
        return False
    count, odd = maps.shape[2] * maps.shape[3], side % 2 == 1
    if torch.is_grad_enabled():
        return training and maps.requires_grad and count <= (_MOST_POSITIONS if odd else _MOST_POSITIONS_EVEN)
    return odd and side > 1 and count <= _MOST_POSITIONS and len(maps) >= _MANY_IMAGES


def autocast(values: Tensor) -> Tensor:
    """What autocast makes of an input of a convolution: float64 stays."""
    return values if values.dtype == torch.float64 else values.to(torch.get_autocast_dtype("cpu"))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, filters: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(maps, filters)
        ctx.padding = padding
        return _product(maps, filters, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, filters = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_maps = of_filters = None
        if ctx.needs_input_grad[1]:
            of_filters = _gradient_of_filters(gradient, maps, filters.shape[2], ctx.padding)
        if ctx.needs_input_grad[0]:
            mirrored = filters.flip(2, 3).transpose(0, 1)
            of_maps = _product(gradient, mirrored, filters.shape[2] - 1 - ctx.padding)
        return of_maps, of_filters, None


class _Overlap(NamedTuple):
    """Where the filters lie on the maps, along one side."""

    place: int
    """Position of the filters in the result."""
    maps: slice
    """Positions of the maps under them."""
    filters: slice
    """Parts of the filters that are not on the padding."""


def _overlaps(length: int, side: int, padding: int) -> Iterator[_Overlap]:
    for place in range(length + 2 * padding - side + 1):
        start, stop = max(0, place - padding), min(length, place - padding + side)
        yield _Overlap(place, slice(start, stop), slice(start - place + padding, stop - place + padding))


def _product(maps: Tensor, filters: Tensor, padding: int) -> Tensor:
    """Convolution of maps `(N, C, H, W)` with `filters` `(O, C, K, K)`."""
    width, _, side, _ = filters.shape
    rows, columns = (list(_overlaps(length, side, padding)) for length in maps.shape[2:])
    shape = (len(maps), width, len(rows), len(columns))
    result = torch.empty(shape, dtype=maps.dtype, memory_format=torch.channels_last)  # no view: BatchNorm may change it
    inputs, outputs = maps.permute(0, 2, 3, 1), result.permute(0, 2, 3, 1)
    for row in rows:
        for column in columns:
            windows = inputs[:, row.maps, column.maps].flatten(1)
            matrix = _matrix(filters[:, :, row.filters, column.filters])
            torch.mm(windows, matrix, out=outputs[:, row.place, column.place])
    return result


def _matrix(filters: Tensor) -> Tensor:
    """Filters `(O, C, h, w)` as a matrix `(h·w·C, O)`; the values that are next to each other in memory remain so."""
    if filters.stride(1) == 1:
        return filters.permute(0, 2, 3, 1).flatten(1).T
    return filters.permute(2, 3, 1, 0).flatten(0, 2)


def _gradient_of_filters(gradient: Tensor, maps: Tensor, side: int, padding: int) -> Tensor:
    """Gradient `(O, C, K, K)` from that of the result, part by part of the filters."""
    outputs, inputs = gradient.permute(0, 2, 3, 1), maps.permute(0, 2, 3, 1)
    result = gradient.new_zeros((gradient.shape[1], side, side, maps.shape[1]))
    rows, columns = (
        [_under(part, *lengths, padding) for part in range(side)]
        for lengths in zip(maps.shape[2:], gradient.shape[2:], strict=True)
    )
    for row, (maps_row, output_row) in enumerate(rows):
        for column, (maps_column, output_column) in enumerate(columns):
            under = inputs[:, maps_row, maps_column].flatten(0, 2)
            if len(under):
                torch.mm(outputs[:, output_row, output_column].flatten(0, 2).T, under, out=result[:, row, column])
    return result.permute(0, 3, 1, 2)


def _under(part: int, length: int, length_of_result: int, padding: int) -> tuple[slice, slice]:
    """Positions of the maps that one part of the filters is multiplied by, and those of the results."""
    start, stop = max(0, padding - part), min(length_of_result, length + padding - part)
    stop = max(start, stop)
    return slice(start + part - padding, stop + part - padding), slice(start, stop)
