"""Average the weights of several networks (model soups)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from thirtytwo.models.base import modes_kept


def averaged_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of each tensor over networks of one architecture: a uniform soup (Wortsman et al. 2022, arXiv 2203.05482).

    Integer tensors, which count steps, are taken from the first network.
    """
    if not states:
        raise ValueError("states must contain at least one state dict")
    mean = {}
    for name, first in states[0].items():
        same = [state[name] for state in states]
        mean[name] = torch.stack(same).mean(dim=0) if first.is_floating_point() else first.clone()
    return mean


def renew_statistics(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute BatchNorm's mean and variance over `batches` of normalized images float `(N, 3, H, W)`.

    The activations of averaged weights differ from those of their networks (Izmailov et al. 2018, arXiv 1803.05407).
    Unlike `torch.optim.swa_utils.update_bn`, all other modules, such as dropout, stay in evaluation mode.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with modes_kept(net), torch.inference_mode():
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean over batches
            norm.train()
        for images in batches if norms else ():
            net(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
