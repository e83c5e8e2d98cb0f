"""An ensemble averages the probabilities of its members."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.models import MODELS
from thirtytwo.models.base import Network
from thirtytwo.models.ensemble import Ensemble, EnsembleSettings, MemberSettings

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class ChannelMeans(Network):
    """The mean of each channel, halved in size `halvings` times, weighted by a matrix."""

    def __init__(self, weights: list[list[float]], halvings: int = 0) -> None:
        super().__init__()
        self.head = nn.Linear(3, len(weights), bias=False)
        self.head.weight.data = torch.tensor(weights)
        self.halvings = halvings

    def forward_features(self, images: Tensor) -> Tensor:
        for _ in range(self.halvings):
            images = nn.functional.avg_pool2d(images, 2)
        return images

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight


FIRST = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
SECOND = [[0.0, 0.0, 3.0], [1.0, 1.0, 0.0]]


def member(**settings: Any) -> MemberSettings:
    """A member without normalisation and calibration, unless `settings` have them."""
    return MemberSettings(**{"name": "colours", "mean": ZERO, "std": ONE, **settings})


@pytest.mark.parametrize("halvings", [0, 1])
def test_mean_of_calibrated_probabilities(halvings: int) -> None:
    members = (
        member(temperature=2.0),
        member(mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5), curvature=0.1),
    )
    nets = [ChannelMeans(FIRST), ChannelMeans(SECOND, halvings)]
    ensemble = Ensemble(nets, EnsembleSettings(members=members, size=4))
    images = torch.rand((5, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    colours = images.mean(dim=(2, 3))
    one = torch.softmax(colours @ torch.tensor(FIRST).T / 2, dim=1)
    normal = (colours - 0.5) / torch.tensor([0.5, 0.25, 0.5])
    logits = normal @ torch.tensor(SECOND).T
    other = torch.softmax(logits - 0.1 * torch.log_softmax(logits, dim=1) ** 2, dim=1)
    with torch.inference_mode():
        said = ensemble(images)
    torch.testing.assert_close(said.exp(), (one + other) / 2)
    torch.testing.assert_close(torch.softmax(said, dim=1), (one + other) / 2)
    assert ensemble.has_heatmaps is (halvings == 0)


def test_heatmaps_are_the_mean_of_the_members_over_their_temperatures() -> None:
    members = (member(), member(temperature=2.0))
    ensemble = Ensemble([ChannelMeans(FIRST), ChannelMeans(SECOND)], EnsembleSettings(members=members, size=4))
    images = torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        heat = ensemble.heatmaps(ensemble.forward_features(images), torch.tensor([0]))
    red, blue = images[0, 0], images[0, 2]
    torch.testing.assert_close(heat[0], (red + 3 * blue / 2) / 2)


def test_number_of_networks_must_match_members() -> None:
    with pytest.raises(ValueError, match=r"\b1\b.*\b0\b"):
        Ensemble([], EnsembleSettings(members=(member(),), size=4))


def test_ensemble_needs_a_member() -> None:
    with pytest.raises(ValueError, match="members"):
        EnsembleSettings(members=(), size=4)


def test_heatmaps_of_different_sizes_are_not_averaged() -> None:
    textbook = MODELS.get("textbook")(2, {"widths": [8], "dense": [], "places": 2})  # heatmaps of 2×2 cells
    nets, images = [textbook, ChannelMeans(FIRST, halvings=1)], torch.zeros((1, 3, 8, 8))
    settings = EnsembleSettings(members=(member(), member()), size=8)
    assert [net.eval().forward_features(images).shape[2:] for net in nets] == [(4, 4)] * 2
    assert all(net.has_heatmaps for net in nets)
    assert not Ensemble(nets, settings).has_heatmaps
    assert Ensemble(nets[:1] * 2, settings).has_heatmaps
