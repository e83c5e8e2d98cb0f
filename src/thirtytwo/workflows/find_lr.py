"""The learning rate finder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.training.hardware import preserved
from thirtytwo.training.lr_finder import RangeTest, range_test
from thirtytwo.workflows.records import progress_logger
from thirtytwo.workflows.train import settle


@preserved()
def find_rate(
    data: str,
    *,
    recipe: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    limit_train: int | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> tuple[RangeTest, Recipe]:
    """Train about a hundred steps with a rising learning rate and suggest one; writes nothing.

    Arguments and errors are as in `train`.

    Returns:
        The loss at each learning rate with the suggestion, and the resolved recipe.
    """
    changes = dict(overrides or {})
    named = {"seed": seed, "data.limit_train": limit_train}
    changes |= {key: value for key, value in named.items() if value is not None}
    root = Path(data_root) if data_root is not None else None
    plan = settle(data, recipe or "fast", changes, device, root)
    return range_test(plan.recipe, plan.parts.train, plan.hardware, tell=progress_logger(show)), plan.recipe
