"""BatchNorm and the activation after it, which need little memory in training on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thirtytwo.tensors import chunks

_ACTIVATIONS: dict[type[nn.Module], tuple[Any, Any]] = {
    nn.SiLU: (torch.ops.aten.silu_, torch.ops.aten.silu_backward),
    nn.GELU: (torch.ops.aten.gelu_, torch.ops.aten.gelu_backward),
}
"""For each activation, the operation in place and the one that computes its gradient."""


def norm_and_activation(norm: Any, activation: nn.Module, maps: Tensor) -> Tensor:
    """`activation(norm(maps))` of maps `(N, C, H, W)`; `norm` is an `nn.BatchNorm2d`.

    In training on a CPU, the normalized maps are computed again in the backward pass, where PyTorch keeps them beside
    `maps`: half of the memory. Outputs, gradients and running statistics are the same, to the last bit. Gradients have
    none of their own.
    """
    trained = norm.training and len(maps) > 1 and maps.requires_grad and norm.affine and norm.momentum is not None
    exact = getattr(activation, "approximate", "none") == "none"  # of GELU
    operations = _ACTIVATIONS.get(type(activation)) if exact else None
    if trained and operations and maps.device.type == "cpu" and not torch.compiler.is_compiling():
        result: Tensor = _NormActivation.apply(maps, norm.weight, norm.bias, norm, *operations)
        return result
    activated: Tensor = activation(norm(maps))
    return activated


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, norm: Any, activate: Any, gradient_of: Any
    ) -> Tensor:
        mean, variance = (norm.running_mean, norm.running_var) if norm.track_running_stats else (None, None)
        if norm.track_running_stats:
            norm.num_batches_tracked.add_(1)
        normalized, mean, inverse_std = torch.native_batch_norm(
            maps, weight, bias, mean, variance, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward(maps, weight, bias, mean, inverse_std)
        ctx.eps, ctx.gradient_of = norm.eps, gradient_of
        result: Tensor = activate(normalized)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, bias, mean, inverse_std = ctx.saved_tensors
        # with fixed statistics, this scale and a variance of 1 normalize as in the forward pass, to the last bit
        fixed = (weight * inverse_std, bias, mean, torch.ones_like(mean), False, 0.0, 0.0)
        inner = torch.empty_like(maps)
        for part in chunks(maps):
            normalized = torch.native_batch_norm(maps[part], *fixed)[0]
            ctx.gradient_of.grad_input(gradient[part], normalized, grad_input=inner[part])
        statistics = (None, None, mean, inverse_std, True, ctx.eps)
        wanted = list(ctx.needs_input_grad[:3])
        gradients = torch.ops.aten.native_batch_norm_backward(inner, maps, weight, *statistics, wanted)
        return *gradients, None, None, None
