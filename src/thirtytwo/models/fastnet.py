"""FastNet: a whitening stem and a few VGG-like groups, the network of the `fast` recipe.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498), whose network is the default
shape here, and D. Page, "How to train your ResNet" (2018), for whitening and residual groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.models.base import MAX_WIDTH, MODELS, Network, NetworkBuilder, takes_options
from thirtytwo.models.norm_activation import norm_and_activation
from thirtytwo.models.pooling import convolve_and_pool, max_pool_2x2, pool_globally
from thirtytwo.models.tiny_maps import convolve

WHITENING_CHUNK = 250
"""Images whose patches are in memory at the same time."""
PATCH = 2
EIGENVALUE_FLOOR = 5e-4
EMPTY_DIRECTION = 1e-6
NORM_EPS = 1e-5


class GroupSettings(Settings):
    """One group: a convolution that widens, a 2×2 max-pool, then the body at half the resolution."""

    width: int = Field(ge=8, le=MAX_WIDTH)
    """Output channels of the group."""
    kernel: int = Field(3, ge=1, le=5)
    """Side of the widening convolution's filters; an even side shrinks the map by one."""
    body: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (3,)
    """Sides of the body's filters, one per convolution."""
    body_width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] | None = None
    """Channels between the body's convolutions; the group's width by default."""
    residual: bool = False
    """Add the body's input to its output."""

    @model_validator(mode="after")
    def _sum_fits(self) -> GroupSettings:
        if self.residual and any(kernel % 2 == 0 for kernel in self.body):
            raise ValueError("a residual body needs odd filter sides, since an even one shrinks the map")
        return self


class FastNetSettings(Settings):
    """Shape of a FastNet."""

    groups: tuple[GroupSettings, ...] = (
        GroupSettings(width=64),
        GroupSettings(width=256),
        GroupSettings(width=256),
    )
    """Groups in order; each halves the resolution."""
    activation: Literal["gelu", "silu"] = "gelu"
    """Activation function of all layers."""
    pooling: Literal["max", "max+mean"] = "max"
    """Pooling of the last maps to features."""
    norm_momentum: float = Field(0.4, gt=0, le=1)
    """Share of each batch in BatchNorm's running statistics."""
    logit_scale: float | None = Field(None, gt=0)
    """Factor on the logits; 1 / (16 √width) by default, so that learning rates suit any width."""


class FilterConv(nn.Conv2d):
    """Convolution initialized as a partial identity (Dirac), without bias unless BatchNorm is folded into it."""

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        padding = kernel // 2 if kernel % 2 else 0
        super().__init__(width_in, width_out, kernel, padding=padding, bias=False)
        with torch.no_grad():
            same = min(width_in, width_out)
            nn.init.dirac_(self.weight[:same])

    def forward(self, maps: Tensor) -> Tensor:
        return convolve(maps, self.weight, self.bias, int(self.padding[0]), training=self.training)

    def pooled(self, maps: Tensor, make_maps: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The convolution of maps `(N, I, H, W)`, max-pooled to half their sides.

        `make_maps`, if given, makes the maps, without gradients, from an input that has as many images.
        """
        plain = self.bias is None and not _has_hooks(self)
        plain = plain and "forward" not in vars(self)  # which `models.folding` replaces
        if plain:
            padding = int(self.padding[0])
            pooled = convolve_and_pool(maps, self.weight, padding, training=self.training, make_maps=make_maps)
            if pooled is not None:
                return pooled
        if make_maps is not None:
            return self.pooled(make_maps(maps))
        return max_pool_2x2(self(maps), training=self.training)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _norm(width: int, momentum: float) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, eps=NORM_EPS, momentum=momentum)
    norm.weight.requires_grad_(False)
    return norm


class Group(nn.Module):
    """Convolution, 2×2 max-pool, BatchNorm, activation, body. `(N, I, H, W)` → `(N, O, H/2, W/2)`."""

    def __init__(self, width_in: int, settings: GroupSettings, activation: nn.Module, momentum: float) -> None:
        super().__init__()
        width, inner = settings.width, settings.body_width or settings.width
        self.widen = FilterConv(width_in, width, settings.kernel)
        self.norm = _norm(width, momentum)
        widths = [width, *[inner] * (len(settings.body) - 1), width]
        self.body = nn.ModuleList(
            FilterConv(before, after, kernel)
            for kernel, before, after in zip(settings.body, widths, widths[1:], strict=False)
        )
        self.body_norms = nn.ModuleList(_norm(after, momentum) for after in widths[1 : len(settings.body) + 1])
        self.activation = activation
        self.residual = settings.residual

    def forward(self, maps: Tensor, make_maps: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        skip = maps = norm_and_activation(self.norm, self.activation, self.widen.pooled(maps, make_maps))
        for conv, norm in zip(self.body, self.body_norms, strict=True):
            maps = norm_and_activation(norm, self.activation, conv(maps))
        return maps + skip if self.residual else maps


def _patch_covariance(images: Tensor) -> Tensor:
    """Covariance of the 2×2 patches of images `(N, 3, H, W)`, float64 `(12, 12)`, over a few images at a time."""
    parts = [images[start : start + WHITENING_CHUNK] for start in range(0, len(images), WHITENING_CHUNK)]
    count = len(images) * (images.shape[2] - PATCH + 1) * (images.shape[3] - PATCH + 1)
    mean = torch.stack([_patches(part).double().sum(dim=0) for part in parts]).sum(dim=0) / count
    centered = (_patches(part).double() - mean for part in parts)
    return torch.stack([patches.T @ patches for patches in centered]).sum(dim=0) / count


def _patches(images: Tensor) -> Tensor:
    """All 2×2 patches of images `(N, 3, H, W)`, as rows of 12 values."""
    patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, 3, h, w, 2, 2)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * PATCH**2)


class FastNet(Network):
    """The network of the `fast` recipe."""

    can_be_recorded = True

    def __init__(self, classes: int, settings: FastNetSettings) -> None:
        super().__init__()
        activation: nn.Module = nn.GELU() if settings.activation == "gelu" else nn.SiLU()
        stem_width = 2 * 3 * PATCH**2
        self.stem = nn.Conv2d(3, stem_width, PATCH, bias=True)
        self.stem.weight.requires_grad_(False)
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]
        widths = [stem_width, *(group.width for group in settings.groups)]
        self.groups = nn.ModuleList(
            Group(before, group, activation, settings.norm_momentum)
            for before, group in zip(widths, settings.groups, strict=False)
        )
        self.activation = activation
        self.head = nn.Linear(widths[-1], classes, bias=False)
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())
        self.pooling = settings.pooling
        self.logit_scale = settings.logit_scale or 1 / (16 * math.sqrt(widths[-1]))

    def forward_features(self, images: Tensor) -> Tensor:
        if self._stem_can_be_in_parts(images):
            first, *others = self.groups
            maps: Tensor = first(images, self._stem_maps)
        else:
            maps, others = self._stem_maps(images), list(self.groups)
        for group in others:
            maps = group(maps)
        return maps

    def _stem_can_be_in_parts(self, images: Tensor) -> bool:
        """Whether the first group may compute the stem for a few images at a time: without gradients, unobserved."""
        needed = [images, *self.stem.parameters()] if torch.is_grad_enabled() else []
        if any(one.requires_grad for one in needed) or not self.groups:
            return False
        return not any(_has_hooks(module) for module in (self.stem, self.activation, self.groups[0]))

    def _stem_maps(self, images: Tensor) -> Tensor:
        maps: Tensor = self.activation(self.stem(images))
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        return pool_globally(maps, with_mean=self.pooling == "max+mean", training=self.training)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features) * self.logit_scale
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight * self.logit_scale

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the stem to whiten 2×2 patches: scaled eigenvectors of their covariance, and their negatives."""
        if images.device.type == "mps":  # Apple's GPUs have no float64
            images = images.cpu()
        values, vectors = torch.linalg.eigh(_patch_covariance(images))
        # gray images vary in only 4 of 12 directions; repeat those, since the others would be channels without variance
        live = int((values > EMPTY_DIRECTION * values.max()).sum())
        order = [len(values) - 1 - index % max(live, 1) for index in range(len(values))]
        filters = (vectors * torch.rsqrt(values.clamp(min=0) + EIGENVALUE_FLOOR)).T[order]
        filters = filters.reshape(-1, 3, PATCH, PATCH)
        # the sign of eigenvectors depends on the library: fix it, so that a seed gives the same network
        signs = filters.flatten(1).gather(1, filters.flatten(1).abs().argmax(dim=1, keepdim=True)).sign()
        filters = filters * signs.view(-1, 1, 1, 1)
        self.stem.weight.copy_(torch.cat([filters, -filters]).to(self.stem.weight.dtype))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        roles: dict[str, list[nn.Parameter]] = {"filters": [], "stem_bias": [], "rest": [], "head": []}
        for name, parameter in self.named_parameters():
            if name.startswith("stem."):
                role = "stem_bias" if name == "stem.bias" else None
            elif name.startswith("head."):
                role = "head"
            else:
                role = "filters" if parameter.ndim > 1 else "rest"
            if role and (role != "rest" or parameter.requires_grad):
                roles[role].append(parameter)
        return roles


@MODELS.register("fastnet")
@takes_options(partial(parse_settings, FastNetSettings, where="model.options of fastnet"))
def fastnet(classes: int, settings: FastNetSettings) -> FastNet:
    """FastNet with a whitening stem and groups of convolutions; widths and depths are options."""
    return FastNet(classes, settings)


SIZES: dict[str, FastNetSettings] = {
    "s": FastNetSettings(),
    "m": FastNetSettings(groups=(GroupSettings(width=128), GroupSettings(width=384), GroupSettings(width=384))),
    "l": FastNetSettings(
        groups=(
            GroupSettings(width=128, body=(3, 3), residual=True),
            GroupSettings(width=512, body=(3, 3), residual=True),
            GroupSettings(width=512, body=(3, 3), residual=True),
        )
    ),
}
"""The widths and depths of arXiv 2404.00498 for 94, 95 and 96 % on CIFAR-10."""


def _sized(size: str) -> NetworkBuilder:
    def parse(options: Mapping[str, Any]) -> FastNetSettings:
        whole = SIZES[size].model_dump(exclude_unset=True) | dict(options)
        return parse_settings(FastNetSettings, whole, f"model.options of fastnet-{size}")

    def build(classes: int, settings: FastNetSettings) -> FastNet:
        return FastNet(classes, settings)

    widths = ", ".join(str(group.width) for group in SIZES[size].groups)
    build.__doc__ = f"FastNet with groups of {widths} channels" + (
        ", residual." if any(group.residual for group in SIZES[size].groups) else "."
    )
    return takes_options(parse)(build)


for _size in SIZES:
    MODELS.register(f"fastnet-{_size}")(_sized(_size))
