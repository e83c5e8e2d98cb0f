"""Sharpness-aware minimization (SAM; Foret et al. 2021, arXiv 2010.01412)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def sam_closure(closure: Callable[[], Any], net: nn.Module, rho: float) -> Callable[[], Any]:
    """Wrap `closure` so that it leaves the gradients at the weights perturbed by `rho`.

    Args:
        closure: computes the loss and the gradients of `net` at its current weights.
        net: the network.
        rho: length of the perturbation along the gradient.
    """

    def twice() -> Any:
        closure()
        with perturb_weights(net, rho), preserve_statistics(net):
            return closure()

    return twice


@contextmanager
def perturb_weights(net: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights of `net` by the length `rho` along their gradient; restore them on exit."""
    pairs = [(weight, weight.grad) for weight in net.parameters() if weight.grad is not None]
    before = [weight.detach().clone() for weight, _ in pairs]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for _, gradient in pairs]))
    with torch.no_grad():
        for weight, gradient in pairs:
            weight.add_(gradient * (rho / norm.clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for (weight, _), value in zip(pairs, before, strict=True):
                weight.copy_(value)


@contextmanager
def preserve_statistics(net: nn.Module) -> Iterator[None]:
    """Keep BatchNorm's running statistics unchanged; each batch is still normalized by its own statistics."""
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
