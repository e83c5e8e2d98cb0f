"""Networks as recipes name them."""

from __future__ import annotations

import torch

from thirtytwo.data.batches import generator_for
from thirtytwo.models import MODELS, Net
from thirtytwo.recipe import Recipe


def build_net(recipe: Recipe, classes: int) -> Net:
    """The recipe's network with weights that depend on its seed alone.

    Raises:
        UnknownNameError: no such model.
        RecipeError: `model.options` do not fit it.
    """
    torch.manual_seed(generator_for(recipe.seed, 0, "weights").initial_seed())
    return MODELS.get(recipe.model.name)(classes, recipe.model.options)
