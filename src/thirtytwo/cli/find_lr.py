"""`thirtytwo train --find-lr`: run the learning-rate finder and print a suggestion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.errors import ThirtytwoError

if TYPE_CHECKING:
    from thirtytwo.config.recipe import Recipe

MAX_ROWS = 15


def find_learning_rate(data: str, **settings: Any) -> None:
    """Print the loss at increasing learning rates and finally the settings for the suggested learning rate.

    Raises:
        ThirtytwoError: the loss did not decrease at any learning rate.
    """
    from thirtytwo.workflows.find_lr import find_rate

    found, recipe = find_rate(data, **settings)
    every = max(1, len(found.rates) // MAX_ROWS)
    pairs = list(zip(found.rates, found.losses, strict=True))
    show_table(["optimizer.lr", "loss"], [(f"{rate:.2g}", f"{loss:.4f}") for rate, loss in pairs[::every]])
    if found.suggestion is None:
        raise ThirtytwoError(
            "The loss did not decrease at any learning rate, so there is no suggestion.",
            "Increase schedule.batch_size, or check the data with: thirtytwo data doctor",
        )
    log(f"Suggested learning rate: {found.suggestion:.2g} (steepest decrease of the loss). Settings:")
    show(" ".join(f"--set {key}={value:.2g}" for key, value in scaled_learning_rates(recipe, found.suggestion).items()))


def scaled_learning_rates(recipe: Recipe, learning_rate: float) -> dict[str, float]:
    """The recipe's learning rates, scaled so that `optimizer.lr` equals `learning_rate`."""
    keys = ("lr", "lr_rest", "lr_head") if recipe.optimizer.per_picture else ("lr",)
    return {f"optimizer.{key}": getattr(recipe.optimizer, key) * learning_rate / recipe.optimizer.lr for key in keys}
