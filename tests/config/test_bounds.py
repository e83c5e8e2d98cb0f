"""Extreme values of a recipe are refused by its check, or training copes with them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import ThirtytwoError
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import choose_hardware

CASES = 200
EXTREMES: tuple[Any, ...] = (2**63, 2**31, 10**30, -1, 0, 1, 1e308, 1e-308, 1e-45, 1e30, 1e3, 0.999999, 1.0, 2, 1000)
SIZES = frozenset({"schedule.epochs", "data.limit_train", "data.image_size", "transfer.views"})
"""Keys whose large values only take long."""


def numeric_keys(table: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of a recipe whose default is a number."""
    keys: list[str] = []
    for key, value in table.items():
        if isinstance(value, dict):
            keys += numeric_keys(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            keys.append(prefix + key)
    return keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.threads", 2**63),
        ("optimizer.lr_head", 1e308),
        ("optimizer.lr", 1e308),
        ("seed", 2**64),
        ("data.split_seed", 2**64),
        ("schedule.batch_size", 2**63),
        ("augment.mixup", 1e308),
        ("train.distill.temperature", 1e-308),
        ("transfer.rate", 1e308),
        ("train.class_weights", {"class 0": 1e308}),
        ("schedule.resolution", [{"size": 10**9, "until": 0.5}]),
    ],
)
def test_refused(key: str, value: Any, tiny: SimpleNamespace) -> None:
    with pytest.raises(ThirtytwoError) as caught:
        tiny.recipe(**{key.replace(".", "__"): value})
    assert key.split(".")[-1] in str(caught.value)


@pytest.mark.long
def test_extremes_never_trace_back(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Seeded: one numeric key at an extreme value, checked and trained for an epoch; only our own errors may end it."""
    random = np.random.default_rng(0)
    images = tiny.images(24, size=8)
    keys = [*numeric_keys(Recipe(name="x", model={"name": "fastnet"}).model_dump()), "train.threads"]  # type: ignore[arg-type]
    trained = 0
    for case in range(CASES):
        key, value = keys[int(random.integers(len(keys)))], EXTREMES[int(random.integers(len(EXTREMES)))]
        changes = {"schedule__epochs": 1, "schedule__batch_size": 8, key.replace(".", "__"): value}
        with suppress(ThirtytwoError), preserve_torch_state():
            recipe = tiny.recipe(**changes)
            if key in SIZES or recipe.schedule.batch_size == 1:  # which a workflow refuses before it calls fit
                continue
            run = RunDir.create(tmp_path / str(case))
            fit(recipe, images, images, run, choose_hardware(recipe.train, "cpu"), show=False)
            trained += 1
    assert trained > CASES // 10
