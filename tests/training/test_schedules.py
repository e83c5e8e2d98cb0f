"""Learning-rate schedules by hand and against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from thirtytwo.config.optimization import ScheduleSettings
from thirtytwo.training.schedules import Plateau, lr_factor


@pytest.mark.parametrize(
    ("schedule", "role", "factors"),
    [
        ({}, "filters", {0: 1.0, 5: 0.5, 9: 0.1}),
        ({"final": 0.2}, "head", {0: 1.0, 5: 0.6, 9: 0.28}),
        ({"warmup": 0.2}, "rest", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 6: 0.5, 9: 0.125}),
        ({"warmup": 0.2, "final": 0.5}, "filters", {1: 2 / 3, 2: 1.0, 6: 0.75}),
        ({"stem_bias_until": 0.5}, "stem_bias", {0: 1.0, 1: 0.8, 4: 0.2, 5: 0.0, 9: 0.0}),
        ({"stem_bias_until": 0.0}, "stem_bias", {0: 0.0, 9: 0.0}),
        ({"stem_bias_until": 1.0, "final": 0.5, "warmup": 0.2}, "stem_bias", {0: 1.0, 9: 0.1}),
        ({"name": "constant", "final": 0.3}, "head", {0: 1.0, 5: 1.0, 9: 1.0}),
        ({"name": "constant", "warmup": 0.2}, "head", {0: 1 / 3, 1: 2 / 3, 2: 1.0, 9: 1.0}),
        ({"name": "step"}, "rest", {0: 1.0, 4: 1.0, 5: 0.1, 7: 0.1, 8: 0.01, 9: 0.01}),
        ({"name": "step", "milestones": (0.3,), "drop": 0.5, "warmup": 0.1}, "rest", {0: 0.5, 1: 1.0, 3: 0.5, 9: 0.5}),
        ({"name": "step", "final": 0.05}, "rest", {5: 0.1, 9: 0.05}),
        ({"name": "cosine"}, "filters", {0: 1.0, 5: 0.5, 10: 0.0}),
        ({"name": "cosine", "warmup": 0.2, "final": 0.2}, "filters", {0: 1 / 3, 2: 1.0, 6: 0.6, 10: 0.2}),
        ({"name": "plateau", "warmup": 0.2}, "filters", {0: 1 / 3, 2: 1.0, 9: 1.0}),
        ({"name": "one-cycle", "warmup": 0.5}, "filters", {0: 0.04, 2: 0.52, 4: 1.0, 9: 0.0, 10: 0.0}),
    ],
)
def test_rates_by_hand(schedule: dict[str, Any], role: str, factors: dict[int, float]) -> None:
    settings = ScheduleSettings(**schedule)
    found = {step: lr_factor(settings, role, step, 10) for step in factors}
    assert found == pytest.approx(factors)


@pytest.mark.parametrize("name", ["linear", "constant", "step", "cosine", "one-cycle"])
def test_a_group_that_stops_early_has_the_whole_schedule(name: Any) -> None:
    settings = ScheduleSettings(name=name, warmup=0.3, final=0.1)
    found = [lr_factor(settings, "filters", step, 20, until=0.5) for step in range(20)]
    assert found == [lr_factor(settings, "filters", step, 10) for step in range(10)] + [0.0] * 10


@pytest.mark.parametrize("name", ["linear", "constant", "step", "cosine", "one-cycle", "plateau"])
def test_a_single_step_and_none_at_all(name: Any) -> None:
    settings = ScheduleSettings(name=name, warmup=0.3 if name == "one-cycle" else 0)
    assert lr_factor(settings, "filters", 0, 0) == 1.0
    assert lr_factor(settings, "filters", 0, 1) == 1.0
    assert 0 <= lr_factor(settings, "filters", 1, 1) <= 1


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"resolution": [{"size": 24, "until": 0.5}, {"size": 32, "until": 0.2}]}, "0.5, 0.2"),
        ({"milestones": [0.75, 0.5]}, "0.75, 0.5"),
    ],
)
def test_values_out_of_order(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError, match=f"found {found}"):
        ScheduleSettings.model_validate(settings)


def torchs(make: Any, steps: int, lr: float = 0.5) -> list[float]:
    """Factors of torch's schedule for each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"] / lr)
        optimizer.step()
        schedule.step()
    return rates


REFERENCES: dict[str, tuple[dict[str, Any], Any]] = {
    "cosine": ({"final": 0.1}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.05)),
    "linear": ({"final": 0.1}, lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 40)),
    "step": ({"drop": 0.2}, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [20, 30], 0.2)),
    "one-cycle": (
        {"warmup": 0.3, "final": 0.04 / 100},
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 0.5, total_steps=40, pct_start=0.3, div_factor=25, final_div_factor=100, cycle_momentum=False
        ),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_schedules_equal_torch(name: Any) -> None:
    settings, reference = REFERENCES[name]
    steps = 39 if name == "one-cycle" else 40
    ours = [lr_factor(ScheduleSettings(name=name, **settings), "filters", step, 40) for step in range(steps)]
    assert ours == pytest.approx(torchs(reference, steps))


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("final", [0.0, 0.05])
def test_plateau_equals_torch(monitor: str, final: float) -> None:
    losses = [5, 4, 4, 4.5, 3, 3.1, 3.2, 3.05, 3.3, 2.9, 3, 3, 3, 3, 3, 3, 3, 3, 3]
    values = losses if monitor == "val_loss" else [-loss for loss in losses]
    settings = ScheduleSettings(name="plateau", patience=3, drop=0.2, final=final)
    ours = Plateau(settings, monitor)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min" if monitor == "val_loss" else "max", factor=0.2, patience=2, threshold=0, min_lr=final, eps=0
    )
    scale = 1.0
    for number, value in enumerate(values):
        if number == 7:  # what a resumed run does
            saved, ours = ours.state_dict(), Plateau(settings, monitor)
            ours.load_state_dict(saved)
        scale *= ours.update(value)
        reference.step(value)
        assert ours.scale == pytest.approx(optimizer.param_groups[0]["lr"])
        assert scale == pytest.approx(ours.scale)
    assert ours.scale < 0.2, "the learning rate dropped more than once"
