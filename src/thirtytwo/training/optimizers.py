"""Muon for filters with Nesterov SGD for everything else as one optimizer, and timm's optimizers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from timm.optim import create_optimizer_v2, list_optimizers  # type: ignore[attr-defined]
from torch import Tensor, nn

from thirtytwo.config.optimization import OptimizerSettings
from thirtytwo.errors import RecipeError, UnknownNameError, did_you_mean
from thirtytwo.training.cuda_graphs import RecordedUpdate
from thirtytwo.training.orthogonalization import orthogonalize

ROLES = ("filters", "stem_bias", "rest", "head")
DECAYED = ("filters", "head")
"""Roles whose matrices have weight decay by default; matrices of other roles are embeddings."""
TIMM_PREFIX = "timm_"
NORM_FLOOR = 1e-12  # some networks have filters that start at zero


class MuonSGD(torch.optim.Optimizer):
    """Orthogonalized momentum for groups marked `muon`, Nesterov SGD with L2 decay for the others.

    Muon after K. Jordan (2024, https://kellerjordan.github.io/posts/muon/); `renormalise` keeps each filter bank at
    norm √out-channels as in arXiv 2404.00498's code for CIFAR-10.
    """

    def __init__(
        self, groups: list[dict[str, Any]], arithmetic: torch.dtype = torch.float32, *, record: bool = False
    ) -> None:
        """Set up the groups.

        Args:
            groups: parameters with their settings, as for torch's optimizers.
            arithmetic: dtype of the Newton–Schulz iteration; bfloat16 is precise enough.
            record: whether to run steps on a GPU as CUDA graphs.
        """
        defaults = {"lr": 0.1, "momentum": 0.85, "weight_decay": 0.0, "muon": False, "renormalise": False}
        super().__init__(groups, defaults)
        self._arithmetic = arithmetic
        self._recorded = RecordedUpdate() if record else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` is called first, as torch's optimizers do."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rates = [group["lr"] for group in self.param_groups]
        moved = [one for group in self.param_groups for one in group["params"] if one.grad is not None]
        if self._recorded is None or not moved:
            self._update(rates)
        else:
            self._recorded(self._update, moved, rates, self._fixed(moved))
        return loss

    def release_graphs(self) -> None:
        """Free the memory of CUDA graphs; later steps are recorded again."""
        if self._recorded is not None:
            self._recorded = RecordedUpdate()

    def _fixed(self, moved: list[Tensor]) -> Hashable:
        """What a step depends on, beside learning rates, parameters and gradients."""
        numbers = [tuple(group[name] for name in _FIXED) for group in self.param_groups]
        buffers = [self.state[one]["momentum"].data_ptr() if self.state[one] else 0 for one in moved]
        return (*numbers, *buffers)

    def _update(self, rates: Sequence[float] | Tensor) -> None:
        """Move every parameter that has a gradient; `rates` are the learning rates of the groups, `(G,)`."""
        for group, rate in zip(self.param_groups, rates, strict=True):
            move = self._move_filters if group["muon"] else self._move_plain
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, group, rate)

    def _momentum(self, parameter: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead direction; the buffer sums gradients, as in torch's SGD."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = state["momentum"]
        buffer.mul_(momentum).add_(gradient)
        return gradient.add(buffer, alpha=momentum)

    def _move_filters(self, parameter: Tensor, group: dict[str, Any], rate: float | Tensor) -> None:
        assert parameter.grad is not None
        direction = self._momentum(parameter, parameter.grad, group["momentum"])
        if group["renormalise"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm().clamp(min=NORM_FLOOR))
        rows = direction.movedim(1, -1)  # (out, kernel, kernel, in): as channels-last filters lie in memory
        flat = rows.reshape(len(rows), -1)  # the order of columns does not change the result
        step = orthogonalize(flat, self._arithmetic)
        _subtract(parameter, step.reshape(rows.shape).movedim(-1, 1).to(parameter.dtype), rate)

    def _move_plain(self, parameter: Tensor, group: dict[str, Any], rate: float | Tensor) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        _subtract(parameter, self._momentum(parameter, gradient, group["momentum"]), rate)


_FIXED = ("momentum", "weight_decay", "muon", "renormalise")


def _subtract(parameter: Tensor, direction: Tensor, rate: float | Tensor) -> None:
    """Subtract `rate` times `direction`; a `rate` that is a tensor `()` stays on the GPU."""
    if isinstance(rate, Tensor):
        parameter.addcmul_(direction, rate, value=-1)
    else:
        parameter.add_(direction, alpha=-rate)


def build_optimizer(
    roles: Mapping[str, list[nn.Parameter]],
    settings: OptimizerSettings,
    batch_size: int,
    arithmetic: torch.dtype = torch.float32,
    scales: Mapping[nn.Parameter, float] | None = None,
    until: Mapping[nn.Parameter, float] | None = None,
    *,
    record: bool = False,
) -> torch.optim.Optimizer:
    """Build the optimizer of a network's `parameter_groups`.

    Args:
        roles: trained parameters by role.
        settings: the recipe's `[optimizer]`; if `settings.per_image`, the loss must be summed over the batch.
        batch_size: images per step.
        arithmetic: dtype of Muon's matrix products.
        scales: factors on the learning rates of single parameters, 1 by default; stored as `scale` of each group.
        until: fractions of all steps up to which single parameters are trained, 1 by default; stored as `until`.
        record: whether `MuonSGD` runs its steps as CUDA graphs.

    Raises:
        UnknownNameError: the optimizer is not known.
        RecipeError: `optimizer.options` do not fit it, or it cannot be used here.
    """
    parts: dict[_Part, list[nn.Parameter]] = {}
    for role in ROLES:
        for parameter in roles.get(role, []):
            part = _Part(role, (scales or {}).get(parameter, 1.0), (until or {}).get(parameter, 1.0))
            parts.setdefault(part, []).append(parameter)
    if not settings.per_image:
        return _timm_optimizer(parts, settings)
    groups = [_own_group(part, params, settings, batch_size) for part, params in parts.items()]
    return MuonSGD(groups, arithmetic, record=record)


class _Part(NamedTuple):
    """What the parameters of a group have in common: role, factor on the learning rate, and when they stop."""

    role: str
    scale: float
    until: float


def _own_group(
    part: _Part, parameters: list[nn.Parameter], settings: OptimizerSettings, batch_size: int
) -> dict[str, Any]:
    filters, muon = part.role == "filters", settings.name == "muon" and part.role == "filters"
    lr = settings.lr if filters else settings.lr_head if part.role == "head" else settings.lr_rest
    group = part._asdict() | {"params": parameters, "lr": lr * part.scale, "muon": muon}
    group["momentum"] = settings.momentum if filters else settings.momentum_rest
    if muon:
        return group | {"renormalise": settings.renormalise}
    # at peak learning rate and without momentum, a step subtracts the share `settings.weight_decay` for each image
    return group | {"weight_decay": settings.weight_decay * batch_size / lr}


def _timm_optimizer(parts: Mapping[_Part, list[nn.Parameter]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build an optimizer of timm; only matrices and filters have weight decay, as in timm's own default."""
    name = settings.name.removeprefix(TIMM_PREFIX)
    if name not in timm_names():
        known = ["muon", "sgd", *(known for known in timm_names() if known not in ("muon", "sgd"))]
        raise UnknownNameError(f"Unknown optimizer {settings.name!r}.", did_you_mean(settings.name, known))
    groups: list[dict[str, Any]] = []
    for part, params in parts.items():
        group = part._asdict() | {"lr": settings.lr * part.scale, "use_fallback": part.role != "filters"}
        matrices = [param for param in params if settings.decay_all or (param.ndim > 1 and part.role in DECAYED)]
        others = [param for param in params if not any(param is matrix for matrix in matrices)]
        groups += [group | {"params": matrices, "weight_decay": settings.weight_decay}] if matrices else []
        groups += [group | {"params": others, "weight_decay": 0.0}] if others else []
    options = settings.options
    if name in FUSED and not {"fused", "foreach"} & options.keys() and _on_cpu(parts):
        options = {"fused": True, **options}
    try:
        return create_optimizer_v2(groups, opt=name, lr=settings.lr, **options)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise RecipeError(
            f"The optimizer {settings.name!r} cannot be built with these options: {error}.", "Change optimizer.options."
        ) from None


FUSED = ("adam", "adamw")
"""Optimizers that PyTorch runs on a CPU as one operation; on a GPU, Lightning could not clip float16 gradients."""


def _on_cpu(parts: Mapping[_Part, list[nn.Parameter]]) -> bool:
    return all(param.device.type == "cpu" for params in parts.values() for param in params)


@cache
def timm_names() -> tuple[str, ...]:
    """Names of timm's optimizers that need neither a specific GPU nor second derivatives."""
    return tuple(str(name) for name in list_optimizers(exclude_filters=["bnb*", "fused*", "kron*", "adahessian"]))
