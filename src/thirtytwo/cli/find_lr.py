"""`thirtytwo train --find-lr`: losses at rising rates, and what to set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import say, show, show_table
from thirtytwo.errors import ThirtytwoError

if TYPE_CHECKING:
    from thirtytwo.config.recipe import Recipe

ROWS = 15


def find_rate(data: str, **settings: Any) -> None:
    """Print losses at rising rates, and the settings of the rate at which the loss fell fastest last.

    Raises:
        ThirtytwoError: the loss fell at no rate.
    """
    from thirtytwo.workflows.find_lr import find_rate

    found, recipe = find_rate(data, **settings)
    every = max(1, len(found.rates) // ROWS)
    pairs = list(zip(found.rates, found.losses, strict=True))
    show_table(["optimizer.lr", "loss"], [(f"{rate:.2g}", f"{loss:.4f}") for rate, loss in pairs[::every]])
    if found.suggestion is None:
        raise ThirtytwoError(
            "The loss fell at no rate, so there is none to suggest.",
            "Give it more pictures a batch (schedule.batch_size), or look at the data with: thirtytwo data doctor",
        )
    say(f"the loss fell fastest at {found.suggestion:.2g}; set:")
    show(" ".join(f"--set {key}={value:.2g}" for key, value in rates_of(recipe, found.suggestion).items()))


def rates_of(recipe: Recipe, rate: float) -> dict[str, float]:
    """Every rate of the recipe, moved in proportion to `optimizer.lr`."""
    keys = ("lr", "lr_rest", "lr_head") if recipe.optimizer.per_picture else ("lr",)
    return {f"optimizer.{key}": getattr(recipe.optimizer, key) * rate / recipe.optimizer.lr for key in keys}
