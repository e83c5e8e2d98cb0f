"""Averaged weights, and recomputed BatchNorm statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thirtytwo.models.ensemble import averaged_weights, renew_statistics


def test_mean_of_weights_by_hand() -> None:
    first = {"weight": torch.tensor([1.0, 2.0]), "steps": torch.tensor(7)}
    second = {"weight": torch.tensor([3.0, -2.0]), "steps": torch.tensor(9)}
    mean = averaged_weights([first, second])
    assert mean["weight"].tolist() == [2.0, 0.0]
    assert mean["steps"].item() == 7
    with pytest.raises(ValueError, match="states"):
        averaged_weights([])


def test_statistics_are_recomputed_from_images() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=0.2), nn.Dropout(0.5))
    images = torch.rand((40, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    before = net[0].weight.clone()
    renew_statistics(net, images.split(20))
    with torch.inference_mode():
        seen = [net[0](part) for part in images.split(20)]
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack([part.mean(dim=(0, 2, 3)) for part in seen]).mean(dim=0))
    torch.testing.assert_close(norm.running_var, torch.stack([part.var(dim=(0, 2, 3)) for part in seen]).mean(dim=0))
    assert norm.momentum == 0.2
    assert net.training
    assert torch.equal(net[0].weight, before)


def test_networks_without_batchnorm_read_no_images() -> None:
    def never():
        raise AssertionError("looked")
        yield

    renew_statistics(nn.Linear(3, 2), never())
