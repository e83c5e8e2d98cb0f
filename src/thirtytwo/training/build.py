"""Build the network of a recipe, with fresh weights or those of a finished run."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.batches import generator_for
from thirtytwo.errors import RunError
from thirtytwo.models import MODELS, Net
from thirtytwo.rundir import RunDir
from thirtytwo.training.hardware import preserved_random


def build_net(recipe: Recipe, classes: int) -> Net:
    """Build the recipe's network with weights that depend only on its seed.

    Raises:
        UnknownNameError: the model is not registered.
        RecipeError: `model.options` do not fit it.
    """
    torch.manual_seed(generator_for(recipe.seed, 0, "weights").initial_seed())
    return MODELS.get(recipe.model.name)(classes, recipe.model.options)


def trained_net(run: RunDir, classes: int) -> Net:
    """Load the network of a run with its final weights, in evaluation mode.

    Raises:
        RunError: the weights are missing, damaged, or do not fit the run's recipe.
    """
    if not run.weights.is_file():
        raise RunError(
            f"{run.path} has no {run.weights.name}: its training did not finish.",
            f"Continue it with: thirtytwo train DATA --resume --run {run.path}",
        )
    with preserved_random():
        net = build_net(run.read_recipe(), classes)
    try:
        net.load_state_dict(load_file(run.weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(
            f"{run.weights} does not fit the run's recipe or is damaged: {str(error).splitlines()[0]}.",
            "Train the run again.",
        ) from None
    return net.eval()
