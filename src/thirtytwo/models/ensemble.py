"""An ensemble of trained networks, which averages their calibrated probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.models.base import MODELS, Network, apply_curvature, features_of, preserve_modes, roles_by_kind

NAME = "ensemble"


class MemberSettings(Settings):
    """A member of the ensemble in a recipe: its network, normalization and calibration."""

    name: str
    """Name of the network."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the network, with resolved values."""
    mean: tuple[float, float, float]
    """Channel means that are subtracted, RGB, for pixels from 0 to 1."""
    std: tuple[float, float, float]
    """Channel standard deviations that images are divided by."""
    temperature: float = Field(1.0, gt=0)
    """Temperature that divides its logits before softmax."""
    curvature: float = Field(0.0, ge=0)
    """Factor on the squared log probability that is subtracted from each logit before that."""


class EnsembleSettings(Settings):
    """The networks whose probabilities are averaged."""

    members: tuple[MemberSettings, ...] = Field(min_length=1)
    """Settings of each member, in order."""
    size: int = Field(ge=1)
    """Width and height of the images, in pixels."""


class Ensemble(Network):
    """Averages the members' calibrated probabilities; logits are the logarithm of the mean.

    Images are float `(N, 3, H, W)` from 0 to 1, not normalized: each member normalizes them itself. Features are the
    members' features concatenated. Heatmaps are available if all members have them, of the same size and on maps of the
    same size.
    `nets` are the networks of the settings' members, in order.
    """

    head_modules = ("nets",)
    scale: Tensor
    offset: Tensor

    def __init__(self, nets: Sequence[Network], settings: EnsembleSettings) -> None:
        super().__init__()
        if len(nets) != len(settings.members):
            raise ValueError(f"expected {len(settings.members)} networks, one per member, found {len(nets)}")
        self.nets = nn.ModuleList(nets)
        self.calibration = [(member.temperature, member.curvature) for member in settings.members]
        std = torch.tensor([member.std for member in settings.members])[:, None, :, None, None]  # (M, 1, 3, 1, 1)
        mean = torch.tensor([member.mean for member in settings.members])[:, None, :, None, None]
        self.register_buffer("scale", 1 / std)
        self.register_buffer("offset", -mean / std)
        self.eval()
        with torch.inference_mode():
            maps = [net.forward_features(torch.zeros((1, 3, settings.size, settings.size))) for net in self.members()]
            widths = [features_of(net, part).shape[1] for net, part in zip(self.members(), maps, strict=True)]
        self.map_widths, self.widths = [part.shape[1] for part in maps], widths
        self.one_size = len({part.shape[2:] for part in maps}) == 1 and all(part.ndim == 4 for part in maps)
        self.has_heatmaps = self.one_size and all(net.has_heatmaps for net in self.members())
        if self.has_heatmaps:
            first = torch.zeros(1, dtype=torch.int64)
            with torch.inference_mode():
                shapes = {net.heatmaps(part, first).shape for net, part in zip(self.members(), maps, strict=True)}
            self.has_heatmaps = len(shapes) == 1

    def members(self) -> list[Network]:
        """The networks, in order."""
        return [net for net in self.nets if isinstance(net, Network)]

    def forward_features(self, images: Tensor) -> Tensor:
        """The members' last maps concatenated; their features as `(N, D, 1, 1)` if the maps differ in size."""
        members = self.members()
        maps = [
            net.forward_features(images * self.scale[index] + self.offset[index]) for index, net in enumerate(members)
        ]
        if self.one_size:
            return torch.cat(maps, dim=1)
        features = torch.cat([features_of(net, part) for net, part in zip(members, maps, strict=True)], dim=1)
        return features[..., None, None]

    def pool(self, maps: Tensor) -> Tensor:
        """The members' features concatenated, `(N, D)`."""
        if not self.one_size:
            return maps.flatten(1)
        parts = torch.split(maps, self.map_widths, dim=1)
        return torch.cat([features_of(net, part) for net, part in zip(self.members(), parts, strict=True)], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """The logarithm of the mean of the members' probabilities, `(N, C)`."""
        logs = []
        for index, part in enumerate(torch.split(features, self.widths, dim=1)):
            temperature, curvature = self.calibration[index]
            logits = self.members()[index].classify(part)
            logs.append(torch.log_softmax(apply_curvature(logits, curvature) / temperature, dim=1))
        count = torch.tensor(float(len(logs)), device=features.device)
        return torch.logsumexp(torch.stack(logs), dim=0) - count.log()

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Mean of the members' heatmaps of `classes` int64 `(N,)`, each divided by its temperature, `(N, h, w)`."""
        parts = torch.split(maps, self.map_widths, dim=1)
        heatmaps = [
            net.heatmaps(part, classes) / self.calibration[index][0]
            for index, (net, part) in enumerate(zip(self.members(), parts, strict=True))
        ]
        return torch.stack(heatmaps).mean(dim=0)

    def class_score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Log odds of each of `classes`: log probabilities have no gradient where a probability is nearly 1."""
        others = logits.scatter(1, classes[:, None], -torch.inf)
        return super().class_score(logits, classes) - others.logsumexp(dim=1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by role."""
        return roles_by_kind(self, nn.Identity())


@MODELS.register(NAME)
def ensemble(classes: int, options: Mapping[str, Any]) -> Ensemble:
    """Average the probabilities of trained networks; created by `thirtytwo ensemble`, not trained."""
    settings = parse_settings(EnsembleSettings, options, "model.options of ensemble")
    return Ensemble([MODELS.get(one.name)(classes, one.options) for one in settings.members], settings)


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
    Unlike `torch.optim.swa_utils.update_bn`, all other modules, such as dropout, stay in evaluation mode. Every batch
    counts the same, so batches must be of about one size, each a sample of all images.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with preserve_modes(net), torch.inference_mode():
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean over batches
            norm.train()
        for images in batches if norms else ():
            net(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
