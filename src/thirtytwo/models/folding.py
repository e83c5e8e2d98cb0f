"""Frozen BatchNorm folded into the convolution before it, which saves time and memory in training.

With fixed statistics, BatchNorm is a scale and a shift of each channel. The scale can be applied to the convolution's
filters, and the shift can be its bias: same function, same parameters, same gradients up to rounding, without
BatchNorm's own passes over the maps and the copies that it keeps for the backward pass.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.models import Network
from thirtytwo.models.base import preserve_modes
from thirtytwo.models.fastnet import FilterConv

LIMITS: dict[type, tuple[float, float]] = {nn.ReLU: (0.0, math.inf), nn.ReLU6: (0.0, 6.0)}
"""Activations that clamp, and their limits."""

TAKE_FILTERS_AND_BIAS = {nn.Conv2d.forward, Conv2dSame.forward, FilterConv.forward}
"""Forward passes that use filters and bias as they are; others, such as of standardized filters, cannot be folded."""


@contextmanager
def folded_norms(net: Network, size: int) -> Iterator[int]:
    """Fold each BatchNorm that directly follows a convolution into it, wherever BatchNorm is in evaluation mode.

    Parameters, buffers and their names stay as they are; a BatchNorm in training mode works as before. Yields the
    number of folded layers, and restores the network on exit.

    Args:
        net: the network, which is modified.
        size: side of the images that it takes, in pixels.
    """
    pairs = foldable_pairs(net, size)
    for conv, norm in pairs:
        vars(conv)["forward"] = _FoldedConvolution(conv, norm)
        vars(norm)["forward"] = _Activation(conv, norm)
    try:
        yield len(pairs)
    finally:
        for module in (module for pair in pairs for module in pair):
            del vars(module)["forward"]


def foldable_pairs(net: Network, size: int) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes to one BatchNorm and nowhere else, with that BatchNorm."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d, Any]] = []
    calls: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Conv2d, inputs: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        made[id(output)] = (module, output)  # keeping the output keeps its id unique

    def before_norm(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        conv, output = made.get(id(inputs[0]), (None, None))
        if conv is not None and output is not None:
            pairs.append((conv, module, output.grad_fn))

    hooks = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and type(module).forward in TAKE_FILTERS_AND_BIAS:
            hooks.append(module.register_forward_hook(after_convolution))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_var is not None:
            hooks.append(module.register_forward_pre_hook(before_norm))
    parameter = next(net.parameters())
    try:
        with preserve_modes(net), torch.enable_grad():
            images = torch.zeros((1, 3, size, size), device=parameter.device, dtype=parameter.dtype, requires_grad=True)
            maps = net.eval().forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    uses = _uses(maps.grad_fn)
    return [(conv, norm) for conv, norm, node in pairs if calls[conv] == calls[norm] == 1 and uses.get(node) == 1]


def _uses(node: Any) -> dict[Any, int]:
    """How often the output of each node of the graph below `node` is used."""
    uses: dict[Any, int] = {}
    waiting = [node]
    while waiting:
        for used, _ in waiting.pop().next_functions:
            if used is not None:
                if used not in uses:
                    waiting.append(used)
                uses[used] = uses.get(used, 0) + 1
    return uses


class _FoldedConvolution:
    """Forward pass of a convolution with the scale and the shift of the BatchNorm after it.

    The shift's gradient is left to `_Activation`. An object rather than a function, so that a copy of the network
    refers to the copied modules.
    """

    def __init__(self, conv: Any, norm: Any) -> None:
        self._conv, self._norm = conv, norm

    def __call__(self, maps: Tensor) -> Tensor:
        conv: Any = self._conv
        if not self._norm.training:
            weight = conv.weight * _scale(self._norm)[:, None, None, None]
            shift = _shift(conv, self._norm).detach()
            if _pads_only_the_end(conv, maps):
                return _convolution_without_copy(conv, weight, shift, maps)
            conv = copy.copy(conv)  # of the same class, since timm's convolutions pad in their forward pass
            vars(conv)["_parameters"] = {"weight": weight, "bias": shift}
        result: Tensor = type(conv).forward(conv, maps)
        return result


class _Activation:
    """Forward pass of a folded BatchNorm: the gradient of its shift, and its activation."""

    def __init__(self, conv: Any, norm: Any) -> None:
        self._conv, self._norm = conv, norm

    def __call__(self, maps: Tensor) -> Tensor:
        norm = self._norm
        if norm.training:
            result: Tensor = type(norm).forward(norm, maps)
            return result
        activation = norm.act if isinstance(norm, BatchNormAct2d) and isinstance(norm.drop, nn.Identity) else None
        limits = LIMITS.get(type(activation))
        shifted: Tensor = _ClampShifted.apply(maps, _shift(self._conv, norm), *(limits or (-math.inf, math.inf)))
        if limits is None and isinstance(norm, BatchNormAct2d):
            shifted = norm.act(norm.drop(shifted))
        return shifted


def _pads_only_the_end(conv: Any, maps: Tensor) -> bool:
    """Whether this frozen depthwise convolution on a CPU would copy its input to pad it, as TensorFlow does.

    Other convolutions do not gain from `_convolution_without_copy`: wider filters cost more than the copy.
    """
    depthwise = conv.groups == conv.in_channels and tuple(conv.dilation) == (1, 1)
    return isinstance(conv, Conv2dSame) and depthwise and not conv.weight.requires_grad and maps.device.type == "cpu"


def _convolution_without_copy(conv: Any, weight: Tensor, bias: Tensor, maps: Tensor) -> Tensor:
    """`conv` with the filters `weight` and a bias, padded by the convolution itself, which pads both ends alike.

    A row and a column of zeros before the filters make up for the padding that the start has too much.
    """
    left, right, top, bottom = pad_same_arg(list(maps.shape[-2:]), list(weight.shape[-2:]), conv.stride)
    wide = F.pad(weight, (right - left, 0, bottom - top, 0))
    return F.conv2d(maps, wide, bias, conv.stride, (bottom, right), groups=conv.groups)


def _scale(norm: Any) -> Tensor:
    """Factor of each channel `(C,)` with fixed statistics."""
    scale: Tensor = torch.rsqrt(norm.running_var + norm.eps)
    return scale if norm.weight is None else scale * norm.weight  # None: BatchNorm without parameters


def _shift(conv: Any, norm: Any) -> Tensor:
    """Shift of each channel `(C,)` with fixed statistics, including the convolution's own bias."""
    mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
    return -mean * _scale(norm) if norm.bias is None else torch.addcmul(norm.bias, mean, _scale(norm), value=-1)


class _ClampShifted(torch.autograd.Function):
    """`clamp(maps, low, high)` in the memory of `maps` `(N, C, H, W)`, to which a shift `(C,)` was added before.

    Gives the shift its gradient: a convolution computes that of a bias slowly on a CPU. An in-place ReLU6 would copy
    its input.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, shift: Tensor, low: float, high: float) -> Tensor:
        if low > -math.inf:
            maps.clamp_(low, high)
        ctx.mark_dirty(maps)
        ctx.limits, ctx.dtype = (low, high), shift.dtype
        ctx.save_for_backward(*((maps,) if low > -math.inf else ()))
        return maps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if ctx.saved_tensors:
            gradient = torch.ops.aten.hardtanh_backward(gradient, ctx.saved_tensors[0], *ctx.limits)
        return gradient, _channel_sums(gradient).to(ctx.dtype) if ctx.needs_input_grad[1] else None, None, None


def _channel_sums(maps: Tensor) -> Tensor:
    """Sums `(C,)` of maps `(N, C, H, W)`, as a matrix product where that is faster: in this layout on a CPU."""
    rows = maps.permute(0, 2, 3, 1)
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or not rows.is_contiguous():
        return maps.sum((0, 2, 3))
    rows = rows.reshape(-1, rows.shape[-1])
    return rows.t().mv(rows.new_ones(len(rows)))
