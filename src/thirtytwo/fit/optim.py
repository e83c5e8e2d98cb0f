"""Muon for filters and Nesterov SGD for everything else, in one optimiser; and the rate schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn

from thirtytwo.recipe import OptimizerSettings, ScheduleSettings

NEWTON_SCHULZ_STEPS = 3
NEWTON_SCHULZ_COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]


class MuonSGD(torch.optim.Optimizer):
    """Orthogonalised momentum for groups marked `muon`, Nesterov SGD with L2 decay for the others.

    Muon after K. Jordan (2024, https://kellerjordan.github.io/posts/muon/), with timm's Newton–Schulz iteration;
    `renormalise` keeps each filter bank at norm √out-channels as in arXiv 2404.00498's code for CIFAR-10.
    """

    def __init__(self, groups: list[dict[str, Any]], arithmetic: torch.dtype = torch.float32) -> None:
        """`arithmetic` is what the Newton–Schulz iteration computes in; bfloat16 suffices where it is quick."""
        defaults = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.0, "muon": False, "renormalise": False}
        super().__init__(groups, defaults)
        self._arithmetic = arithmetic

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` is called first, as torch's optimisers do."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            move = self._move_filters if group["muon"] else self._move_plain
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, group)
        return loss

    def _momentum(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead direction; the buffer sums, as torch's SGD does."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = state["momentum"]
        buffer.mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)

    def _move_filters(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        direction = self._momentum(parameter, parameter.grad, group["momentum"])
        if group["renormalise"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
        flat = direction.reshape(len(direction), -1)  # (out, in · kernel²)
        step = zeropower_via_newtonschulz(flat, NEWTON_SCHULZ_STEPS, NEWTON_SCHULZ_COEFFICIENTS, dtype=self._arithmetic)
        parameter.add_(step.reshape(direction.shape).to(parameter.dtype), alpha=-group["lr"])

    def _move_plain(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        parameter.add_(self._momentum(parameter, gradient, group["momentum"]), alpha=-group["lr"])


def build_optimizer(
    roles: dict[str, list[nn.Parameter]],
    settings: OptimizerSettings,
    batch_size: int,
    arithmetic: torch.dtype = torch.float32,
) -> MuonSGD:
    """The optimiser over a network's `parameter_groups`, for a loss that is summed over the batch."""
    muon = settings.name == "muon"
    shrink = settings.weight_decay * batch_size  # part of a weight that a step at peak rate takes off

    def plain(role: str, lr: float) -> dict[str, Any]:
        decay = shrink / lr
        return {
            "role": role,
            "params": roles[role],
            "lr": lr,
            "momentum": settings.momentum_rest,
            "weight_decay": decay,
        }

    filters: dict[str, Any] = {"role": "filters", "params": roles["filters"], "lr": settings.lr}
    filters |= {"momentum": settings.momentum, "muon": muon, "renormalise": muon and settings.renormalise}
    if not muon:
        filters["weight_decay"] = shrink / settings.lr
    groups = [
        filters,
        plain("stem_bias", settings.lr_rest),
        plain("rest", settings.lr_rest),
        plain("head", settings.lr_head),
    ]
    return MuonSGD([group for group in groups if group["params"]], arithmetic)


def rate_factor(schedule: ScheduleSettings, role: str, step: int, total: int) -> float:
    """What part of its peak rate the group `role` has in `step` of `total` steps: linear up, then linear down.

    The stem's bias falls to zero at `stem_bias_until` and stays there.
    """
    progress = step / max(1, total)
    if role == "stem_bias":
        return max(0.0, 1 - progress / schedule.stem_bias_until) if schedule.stem_bias_until else 0.0
    if progress < schedule.warmup:
        return (step + 1) / (schedule.warmup * total + 1)
    left = (1 - progress) / (1 - schedule.warmup)
    return schedule.final + (1 - schedule.final) * left
