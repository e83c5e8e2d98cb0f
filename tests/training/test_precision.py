"""The precision on a CPU is that of the faster step, and timing preserves all state."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.models import Network
from thirtytwo.models.base import build_network
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.hardware import Hardware, choose_hardware
from thirtytwo.training.precision import FEW, MAX_GROWTHS, REPEATS, StepTimes, _is_clear, _shown, timed_precision

NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {"model__options": {"groups": [{"width": 8}, {"width": 16}]}},
    "depthwise": {
        "model__name": "timm",
        "model__options": {
            "architecture": "mobilenetv2_050",
            "drop_path_rate": 0.5,
            "head": [8],
            "head_dropout": 0.5,
        },
    },
}
REASON = re.compile(r"a step of (\d+) images takes ([\d.]+)\s(ms|s) in float32 and ([\d.]+)\s(ms|s) in bfloat16")


@pytest.mark.parametrize(("seconds", "expected"), [(0.0123, "12.3 ms"), (6.5659, "6.6 s"), (75.0, "1 min 15 s")])
def test_times_of_steps_are_readable(seconds, expected):
    assert _shown(seconds).replace("\u00a0", " ") == expected


@pytest.fixture
def machine(tiny: SimpleNamespace) -> Hardware:
    """A CPU that reports bfloat16; every CPU can emulate it."""
    chosen = choose_hardware(tiny.recipe().train, "cpu")
    return replace(chosen, device=torch.device("cpu"), precision=torch.bfloat16)


def counted(net: Network) -> list[int]:
    """Number of images of every further step of this network and its copies."""
    seen: list[int] = []

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(len(given[0]))

    net.register_forward_pre_hook(look)
    return seen


def open_recipe(tiny: SimpleNamespace, network: str, **changes: Any) -> Recipe:
    return tiny.recipe(train__precision="auto", **NETWORKS[network], **changes)


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
def test_faster_precision_is_chosen_with_both_times(network: str, tiny: SimpleNamespace, machine: Hardware) -> None:
    recipe = open_recipe(tiny, network, schedule__batch_size=24, train__label_smoothing=0.1)
    net = build_network(recipe, 3)
    seen = counted(net)
    found = timed_precision(net, recipe, 32, 3, machine)
    (logged,) = [choice for choice in found.choices if choice.what == "precision"]
    match = REASON.match(logged.reason)
    assert match, logged.reason
    whole, half = (float(match[place]) * {"s": 1000, "ms": 1}[match[place + 1]] for place in (2, 4))
    assert logged.value == str(found.precision).removeprefix("torch.")
    assert {"float32": whole, "bfloat16": half}[logged.value] == min(whole, half)
    assert 2 <= int(match[1]) <= 24
    growths, warmups, timed = 2 + MAX_GROWTHS, 2, 2 * REPEATS
    assert len(seen) <= growths + warmups + timed
    assert max(seen) <= 24
    others = [choice for choice in machine.choices if choice.what != "precision"]
    assert [choice for choice in found.choices if choice.what != "precision"] == others


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
def test_timing_restores_all_state(network: str, tiny: SimpleNamespace, machine: Hardware) -> None:
    recipe = open_recipe(tiny, network)
    net = build_network(recipe, 3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    torch.manual_seed(11)
    random = torch.get_rng_state()
    timed_precision(net, recipe, 32, 3, machine)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())


def test_training_keeps_its_threads_after_the_timing(tiny: SimpleNamespace, machine: Hardware) -> None:
    recipe = open_recipe(tiny, "dense")
    with preserve_torch_state():  # as around every training
        torch.set_num_threads(2)
        timed_precision(build_network(recipe, 3), recipe, 8, 3, machine)
        assert torch.get_num_threads() == 2


def test_a_frozen_base_is_timed_as_it_is_trained(
    tiny: SimpleNamespace, machine: Hardware, pretrain: Callable[..., Any]
) -> None:
    recipe = open_recipe(tiny, "dense")
    path, _ = pretrain(recipe.model, ("a", "b"))
    for head_until in (0.3, 1.0):
        settings = {"transfer__pretrained": str(path), "transfer__head_until": head_until}
        started = open_recipe(tiny, "dense", **settings)
        found = timed_precision(build_network(started, 3), started, 16, 3, machine)
        assert any(REASON.match(choice.reason) for choice in found.choices)


@pytest.mark.parametrize(
    ("precision", "changes"),
    [
        ("float32", {}),
        ("bfloat16", {}),
        ("auto", {"precision": torch.float32}),
        ("auto", {"device": torch.device("cuda", 0)}),
        ("auto", {"device": torch.device("cuda", 0), "precision": torch.float16}),
    ],
)
def test_nothing_is_timed_without_a_choice(
    precision: str, changes: dict[str, Any], tiny: SimpleNamespace, machine: Hardware
) -> None:
    recipe = tiny.recipe(train__precision=precision)
    net = build_network(recipe, 3)
    seen = counted(net)
    hardware = replace(machine, **changes)
    assert timed_precision(net, recipe, 16, 3, hardware) is hardware
    assert not seen


def test_faster() -> None:
    assert StepTimes(0.634, 0.748, 64).faster == torch.float32
    assert StepTimes(0.748, 0.634, 64).faster == torch.bfloat16
    assert StepTimes(0.5, 0.5, 64).faster == torch.float32


@pytest.mark.parametrize(("batch", "most"), [(24, 24), (FEW, FEW), (400, 200)])
def test_a_representative_share_of_the_batch_is_timed(
    batch: int, most: int, tiny: SimpleNamespace, machine: Hardware
) -> None:
    recipe = open_recipe(tiny, "dense", schedule__batch_size=batch)
    net = build_network(recipe, 3)
    seen = counted(net)
    found = timed_precision(net, recipe, 8, 3, machine)
    (logged,) = [choice for choice in found.choices if choice.what == "precision"]
    match = REASON.match(logged.reason)
    assert match
    assert max(seen) == int(match[1]) <= most
    assert int(match[1]) > most // 4, "tiny steps are fast"


@pytest.mark.parametrize(
    ("first", "second", "clear"),
    [
        ([1.0], [5.0], False),
        ([1.0, 1.1], [1.7, 1.8], True),
        ([1.7, 1.8], [1.0, 1.1], True),
        ([1.0, 4.0], [1.7, 1.8], False),
        ([1.0, 1.0], [1.4, 1.4], False),
    ],
)
def test_two_rounds_decide_only_where_all_steps_agree(first: list[float], second: list[float], clear: bool) -> None:
    assert _is_clear(first, second) is clear
