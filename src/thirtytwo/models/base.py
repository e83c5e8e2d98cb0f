"""What every network here offers, and the table of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from thirtytwo.registry import Registry


@dataclass(frozen=True)
class Choice:
    """One thing that a network decided for itself, and why."""

    what: str
    value: str
    reason: str


class Net(nn.Module):
    """A network as three steps, so that features and heatmaps need no hooks.

    `maps` float `(N, 3, H, W)` → `(N, D, h, w)`; `pool` → `(N, D)`; `classify` → logits `(N, C)`. Images come in
    normalised by the data's mean and standard deviation.
    """

    has_heatmaps: bool = True
    """Whether class evidence can be read off the last maps (`heatmaps`)."""
    choices: tuple[Choice, ...] = ()
    """What was left to the network to choose, for the log."""
    settled: Mapping[str, Any] = MappingProxyType({})
    """What each `auto` of its options came to, for the recipe that is saved."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation that images must be normalised by, where weights from elsewhere ask for it."""
    scores_known: bool = False
    """Whether the network itself tells how known an image looks (`known_score`); else class means do."""
    head_modules: tuple[str, ...] = ("head",)
    """Names of the parts that make logits of what the base gives; everything else is the base."""

    def maps(self, images: Tensor) -> Tensor:
        """Last feature maps, `(N, D, h, w)`."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """What the last linear layer sees, `(N, D)`."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Logits, `(N, C)`."""
        raise NotImplementedError

    def class_weights(self) -> Tensor:
        """Weights of the last linear layer, `(C, D)`."""
        raise NotImplementedError

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps `(N, h, w)` of `classes` int64 `(N,)`.

        The last maps weighted by the class's own row of the last layer (Zhou et al. 2016, arXiv 1512.04150).
        """
        weights = self.class_weights()[classes].to(maps.dtype)  # (N, D)
        return torch.einsum("ndhw,nd->nhw", maps, weights)

    def known_score(self, features: Tensor) -> Tensor:
        """How much speaks for any of the classes, `(N,)`, from features `(N, D)`; larger for images that look known."""
        raise NotImplementedError

    def tapped(self, images: Tensor, tap: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits `(N, C)`, computed through the maps `(N, D, h, w)` that Grad-CAM looks at.

        `tap` sees those maps on the way and gives them back. They are the last maps, except where the logits do not
        depend on each of their places.
        """
        return self.classify(self.pool(tap(self.maps(images))))

    def forward(self, images: Tensor) -> Tensor:
        """Logits, `(N, C)`."""
        return self.classify(self.pool(self.maps(images)))

    def embed(self, images: Tensor) -> Tensor:
        """What the base gives the head, `(N, F)`."""
        return self.pool(self.maps(images))

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(N, C)` of what `embed` gives."""
        return self.classify(features)

    def layers(self) -> list[list[str]]:
        """Names of the base's parameters, layer by layer from the input on.

        A layer is a part of the network, or one member of a list of them; a normalisation belongs to what it follows.
        """
        named = [
            (name, value) for name, value in self.named_parameters() if name.split(".")[0] not in self.head_modules
        ]
        return layers_of(self, named)

    def prepare(self, images: Tensor) -> None:
        """Set whatever is taken from the data before training; `images` are normalised, `(N, 3, H, W)`."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by role: `filters` (matrices that Muon may move), `stem_bias`, `rest`, `head`."""
        raise NotImplementedError


@contextmanager
def modes_kept(net: nn.Module) -> Iterator[None]:
    """Afterwards each part of `net` is in the mode it was in: frozen parts of one that is trained are not."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def layers_of(module: nn.Module, named: Iterable[tuple[str, nn.Parameter]]) -> list[list[str]]:
    """The names of `module`'s parameters by its parts, in their order."""
    found: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, value in named:
        part, *rest = name.split(".")
        listed = isinstance(getattr(module, part), nn.Sequential | nn.ModuleList)
        found.setdefault(f"{part}.{rest[0]}" if listed else part, []).append((name, value))
    layers: list[list[str]] = []
    for members in found.values():
        names = [name for name, _ in members]
        if layers and all(value.ndim < 2 for _, value in members):
            layers[-1] += names
        else:
            layers.append(names)
    return layers


def roles_by_kind(net: nn.Module, head: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trained parameters by role where there is no whitening stem.

    Weights of convolutions and linear layers are `filters`, the last layer is `head`, all else (biases, normalisation,
    tokens, tables of positions) is `rest`.
    """
    in_head = {id(parameter) for parameter in head.parameters()}
    matrices = {id(layer.weight) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    roles: dict[str, list[nn.Parameter]] = {"filters": [], "stem_bias": [], "rest": [], "head": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            role = "head" if id(parameter) in in_head else "filters" if id(parameter) in matrices else "rest"
            roles[role].append(parameter)
    return roles


NetBuilder = Callable[[int, Mapping[str, Any]], Net]
"""From the number of classes and `model.options` to a network with fresh weights."""

MODELS: Registry[NetBuilder] = Registry("model")
"""Every network by name."""


def bent_logits(logits: Tensor, curvature: float) -> Tensor:
    """Logits `(N, C)` with their curvature taken off: what calibration divides by the temperature.

    The same as `evaluation.calibration.Calibration.logits`, for graphs and networks.
    """
    return logits - curvature * torch.log_softmax(logits, dim=1) ** 2 if curvature else logits
