"""The learning-rate finder: steepest fall of the loss, and divergence."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thirtytwo.training.hardware import choose_hardware
from thirtytwo.training.lr_finder import MAX_LR, MIN_LR, run_lr_finder, suggest_lr


def test_suggest_lr_by_hand() -> None:
    rates = [10.0**power for power in range(-20, 0)]
    losses = [2.0] * 14 + [1.9, 1.5, 0.9, 0.8, 0.8, 3.0]
    # central differences: the largest fall over two steps is around the 16th, from 1.9 to 0.9
    assert suggest_lr(rates, losses) == rates[15]
    assert suggest_lr(rates, [1.0 + 0.1 * place for place in range(20)]) is None
    assert suggest_lr(rates[:5], losses[:5]) is None


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer__name": "timm_sgd"},
        {"optimizer__name": "adamw", "optimizer__lr": 0.05, "optimizer__sam": 0.05, "train__clip": 1.0},
        {"schedule__accumulate": 2, "schedule__resolution": [{"size": 8, "until": 1.0}]},
    ],
)
def test_learning_rates_rise_and_losses_fall_first(changes: dict[str, Any], tiny: SimpleNamespace) -> None:
    recipe = tiny.recipe(**changes)
    hardware = choose_hardware(recipe.train, "cpu")
    found = run_lr_finder(recipe, tiny.images(48), hardware)
    assert len(found.rates) == len(found.losses) <= 100
    assert found.rates[0] == MIN_LR
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(MAX_LR / MIN_LR) / 99)
    assert found.suggestion is not None
    assert MIN_LR < found.suggestion <= MAX_LR * 1.0001
    assert min(found.losses) < 0.8 * found.losses[0]
    again = run_lr_finder(recipe, tiny.images(48), hardware)
    assert again == found, "depends only on the seed"


def test_lr_finder_stops_when_the_loss_diverges(tiny: SimpleNamespace, plain_net: str) -> None:
    recipe = tiny.recipe(
        model__name=plain_net, optimizer__name="timm_sgd", optimizer__lr=1e-3, train__label_smoothing=0.3
    )
    data = tiny.images(48)
    logged: list[str] = []
    found = run_lr_finder(recipe, data, choose_hardware(recipe.train, "cpu"), steps=400, log=logged.append)
    assert len(found.rates) < 400
    assert logged[0].startswith("step 20 of 400: lr ")


def test_training_works_at_the_suggestion(tiny: SimpleNamespace, plain_net: str) -> None:
    recipe = tiny.recipe(model__name=plain_net, optimizer__name="adam", optimizer__lr=1e-5)
    hardware = choose_hardware(recipe.train, "cpu")
    found = run_lr_finder(recipe, tiny.images(48), hardware)
    assert found.suggestion is not None
    assert 1e-3 < found.suggestion < 10


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_steps_have_the_precision_of_the_hardware(
    precision: torch.dtype, tiny: SimpleNamespace, plain_net: str
) -> None:
    recipe = tiny.recipe(model__name=plain_net, optimizer__name="adam", optimizer__lr=1e-5)
    hardware = replace(choose_hardware(recipe.train, "cpu"), precision=precision)
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen.add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(note)
    try:
        run_lr_finder(recipe, tiny.images(48), hardware, steps=3)
    finally:
        hook.remove()
    assert seen == {precision}


@pytest.mark.slow
def test_warmup_does_not_change_the_result(tiny: SimpleNamespace) -> None:
    """Reported learning rates are peaks, independent of the schedule's start."""
    plain, warm = tiny.recipe(schedule__warmup=0.0), tiny.recipe(schedule__warmup=0.5)
    cycle = tiny.recipe(schedule__name="one-cycle", schedule__warmup=0.3)
    hardware = choose_hardware(plain.train, "cpu")
    found = [run_lr_finder(recipe, tiny.images(48), hardware, steps=30) for recipe in (plain, warm, cycle)]
    assert found[0] == found[1] == found[2]


def test_random_state_of_the_caller_is_preserved(tiny: SimpleNamespace) -> None:
    recipe = tiny.recipe()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run_lr_finder(recipe, tiny.images(48), choose_hardware(recipe.train, "cpu"), steps=15)
    assert torch.equal(torch.get_rng_state(), before)
