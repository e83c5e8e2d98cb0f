"""Progressive freezing: the first layers stop training before the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from thirtytwo.config.optimization import FreezeStage, ScheduleSettings
from thirtytwo.errors import RecipeError
from thirtytwo.models.base import Network, build_network
from thirtytwo.training.freezing import trained_until
from thirtytwo.training.module import ClassifierModule

STAGES = [{"layers": 2, "until": 0.5}, {"layers": 3, "until": 0.8}]
FREEZE = tuple(FreezeStage.model_validate(stage) for stage in STAGES)


def by_name(net: Network, found: dict[nn.Parameter, float]) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return {names[id(parameter)]: until for parameter, until in found.items()}


def three_groups(tiny: SimpleNamespace, **changes: Any) -> Any:
    groups = [{"width": width, "body": []} for width in (8, 8, 16)]
    return tiny.recipe(model__options__groups=groups, data__image_size=16, **changes)


def test_each_layer_has_the_first_stage_that_names_it(tiny: SimpleNamespace) -> None:
    net = build_network(three_groups(tiny), 3)
    found = by_name(net, trained_until(net, ScheduleSettings(freeze=FREEZE, stem_bias_until=1.0)))
    assert found == {
        "stem.bias": 0.5,
        "groups.0.widen.weight": 0.5,
        "groups.0.norm.bias": 0.5,
        "groups.1.widen.weight": 0.8,
        "groups.1.norm.bias": 0.8,
    }


@pytest.mark.parametrize(("stem", "expected"), [(0.3, 0.3), (0.6, 0.5)])
def test_the_stem_s_bias_stops_at_the_earlier_end(stem: float, expected: float, tiny: SimpleNamespace) -> None:
    net = build_network(three_groups(tiny), 3)
    found = by_name(net, trained_until(net, ScheduleSettings(freeze=FREEZE, stem_bias_until=stem)))
    assert found["stem.bias"] == expected
    assert by_name(net, trained_until(net, ScheduleSettings(stem_bias_until=stem))) == {"stem.bias": stem}


def test_more_layers_than_there_are(tiny: SimpleNamespace) -> None:
    net = build_network(three_groups(tiny), 3)
    with pytest.raises(RecipeError, match="names 5 layers, but the network has 4 before its head") as found:
        trained_until(net, ScheduleSettings(freeze=(FreezeStage(layers=5, until=0.5),)))
    assert "Write at most layers = 4." in str(found.value)


@pytest.mark.parametrize("key", ["layers", "until"])
def test_stages_out_of_order(key: str) -> None:
    stages: list[dict[str, float]] = [{"layers": 1, "until": 0.5}, {"layers": 2, "until": 0.8}]
    stages[1][key] = stages[0][key]
    value = stages[0][key]
    with pytest.raises(
        ValidationError, match=f"freeze stages must have increasing '{key}' values, found {value}, {value}"
    ):
        ScheduleSettings.model_validate({"freeze": stages})


def test_not_with_pretrained_weights(tiny: SimpleNamespace) -> None:
    with pytest.raises((RecipeError, ValidationError), match="schedule.freeze is for training from scratch"):
        three_groups(tiny, schedule__freeze=STAGES, transfer__pretrained="somewhere")


@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adamw"])
def test_frozen_layers_stay_as_they_are(optimizer: str, train: Any, tiny: SimpleNamespace) -> None:
    """In each step of training, exactly the layers that are not frozen yet change."""
    recipe = three_groups(
        tiny, optimizer__name=optimizer, optimizer__lr=0.01, schedule__freeze=STAGES, schedule__stem_bias_until=1.0
    )
    changed: dict[int, set[str]] = {}

    class Watched(ClassifierModule):
        def optimizer_step(self, *args: Any, **options: Any) -> None:
            before = {name: value.detach().clone() for name, value in self.net.named_parameters()}
            step = self.global_step
            super().optimizer_step(*args, **options)
            after = dict(self.net.named_parameters())
            changed[step] = {name for name, value in before.items() if not torch.equal(value, after[name])}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("thirtytwo.training.fit.ClassifierModule", Watched)
        train("run", recipe, val=False)
    steps = len(changed)
    assert steps == 9
    stem, first, second = {"stem.bias"}, {"groups.0.widen.weight"}, {"groups.1.widen.weight"}
    for step, names in changed.items():
        assert "head.weight" in names or step == steps - 1
        assert (stem | first <= names) == (step < 0.5 * steps), step
        assert bool((stem | first) & names) == (step < 0.5 * steps), step
        assert (second <= names) == (step < 0.8 * steps), step
        assert "groups.2.widen.weight" in names
