"""Mistakes in a recipe that can be told before the first step."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import RecipeError
from thirtytwo.training.distillation import read_teacher
from thirtytwo.training.losses import class_weights
from thirtytwo.training.optimizers import build_optimizer


def check_optimizer(recipe: Recipe) -> None:
    """There is such an optimiser, and it takes these options.

    Raises:
        UnknownNameError: there is none.
        RecipeError: it does not take them.
    """
    shapes = {"filters": (4, 3, 3, 3), "rest": (4,), "head": (2, 4)}
    roles = {role: [nn.Parameter(torch.zeros(shape))] for role, shape in shapes.items()}
    build_optimizer(roles, recipe.optimizer, recipe.schedule.batch_size)


def check_training(recipe: Recipe, classes: tuple[str, ...], held_out: bool) -> None:
    """Schedule, class weights and teacher fit data with these classes; `held_out` tells whether there is validation.

    Raises:
        RecipeError: what does not.
        RunError: the teacher's run cannot be used.
    """
    if recipe.schedule.name == "plateau" and not held_out:
        raise RecipeError(
            "schedule.name is 'plateau', which watches validation, but nothing is held out.",
            "Choose another schedule, or set data.val_fraction above 0 and data.train_on to 'train'.",
        )
    class_weights(recipe.train.class_weights, np.ones(len(classes), dtype=np.int64), classes)
    if recipe.train.distill.run:
        read_teacher(recipe.train.distill.run, classes, (0.0,) * 3, (1.0,) * 3, torch.device("cpu"))
