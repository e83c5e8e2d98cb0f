"""Several trained networks as one: the mean of their calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thirtytwo.models.net import Net, roles_by_kind


@dataclass(frozen=True)
class Member:
    """A trained network, what its images are normalised by, and how its logits become probabilities.

    `order` int `(C,)`: where each class of the ensemble stands among the member's classes.
    """

    net: Net
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float
    curvature: float
    order: tuple[int, ...]


class Ensemble(Net):
    """Members whose calibrated probabilities are averaged; logits are the logarithm of that mean.

    Images float `(N, 3, H, W)` from 0 to 1, not normalised: each member normalises them itself. Features are the
    members' side by side. There are heatmaps where all members have them on maps of one size: their mean.
    `size` is the width and height of the pictures.
    """

    head_modules = ("nets",)
    scale: Tensor
    offset: Tensor
    order: Tensor

    def __init__(self, members: Sequence[Member], size: int) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs a member")
        self.nets = nn.ModuleList(member.net for member in members)
        self.calibration = [(member.temperature, member.curvature) for member in members]
        std = torch.tensor([member.std for member in members])[:, None, :, None, None]  # (M, 1, 3, 1, 1)
        mean = torch.tensor([member.mean for member in members])[:, None, :, None, None]
        self.register_buffer("scale", 1 / std)
        self.register_buffer("offset", -mean / std)
        self.register_buffer("order", torch.tensor([member.order for member in members]))  # (M, C)
        self.eval()
        with torch.inference_mode():
            maps = [net.maps(torch.zeros((1, 3, size, size))) for net in self.members()]
            widths = [net.pool(part).shape[1] for net, part in zip(self.members(), maps, strict=True)]
        self.map_widths, self.widths = [part.shape[1] for part in maps], widths
        self.one_size = len({part.shape[2:] for part in maps}) == 1 and all(part.ndim == 4 for part in maps)
        self.has_heatmaps = self.one_size and all(net.has_heatmaps for net in self.members())

    def members(self) -> list[Net]:
        """The networks, in order."""
        return [net for net in self.nets if isinstance(net, Net)]

    def maps(self, images: Tensor) -> Tensor:
        """The members' last maps side by side; their features as `(N, D, 1, 1)` where the maps differ in size."""
        seen = [net.maps(images * self.scale[at] + self.offset[at]) for at, net in enumerate(self.members())]
        if self.one_size:
            return torch.cat(seen, dim=1)
        return torch.cat([net.pool(part) for net, part in zip(self.members(), seen, strict=True)], dim=1)[
            ..., None, None
        ]

    def pool(self, maps: Tensor) -> Tensor:
        """The members' features side by side, `(N, D)`."""
        if not self.one_size:
            return maps.flatten(1)
        parts = torch.split(maps, self.map_widths, dim=1)
        return torch.cat([net.pool(part) for net, part in zip(self.members(), parts, strict=True)], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """The logarithm of the mean of the members' probabilities, `(N, C)`."""
        logs = []
        for at, part in enumerate(torch.split(features, self.widths, dim=1)):
            temperature, curvature = self.calibration[at]
            logits = self.members()[at].classify(part)
            bent = logits - curvature * torch.log_softmax(logits, dim=1) ** 2
            logs.append(torch.log_softmax(bent / temperature, dim=1)[:, self.order[at]])
        count = torch.tensor(float(len(logs)), device=features.device)
        return torch.logsumexp(torch.stack(logs), dim=0) - count.log()

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """The mean of the members' maps of `classes` int64 `(N,)`, `(N, h, w)`."""
        parts = torch.split(maps, self.map_widths, dim=1)
        seen = [
            net.heatmaps(part, self.order[at][classes])
            for at, (net, part) in enumerate(zip(self.members(), parts, strict=True))
        ]
        return torch.stack(seen).mean(dim=0)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trained parameters by role."""
        return roles_by_kind(self, nn.Identity())
