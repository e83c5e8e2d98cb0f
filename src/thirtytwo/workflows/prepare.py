"""Checks of a recipe before training starts."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import RecipeError
from thirtytwo.training.distillation import check_teacher
from thirtytwo.training.losses import class_weights
from thirtytwo.training.optimizers import build_optimizer


def check_optimizer(recipe: Recipe) -> None:
    """Check that the optimizer exists and accepts `optimizer.options`.

    Raises:
        UnknownNameError: the optimizer is not known.
        RecipeError: it does not accept the options.
    """
    shapes = {"filters": (4, 3, 3, 3), "rest": (4,), "head": (2, 4)}
    roles = {role: [nn.Parameter(torch.zeros(shape))] for role, shape in shapes.items()}
    build_optimizer(roles, recipe.optimizer, recipe.schedule.batch_size)


def check_training(recipe: Recipe, classes: tuple[str, ...], held_out: bool) -> None:
    """Check that schedule, class weights and teacher fit data with these classes.

    Args:
        recipe: the recipe.
        classes: class names, in order.
        held_out: whether there are validation images.

    Raises:
        RecipeError: one of them does not fit.
        RunError: the teacher's run cannot be used.
    """
    if recipe.schedule.name == "plateau" and not held_out:
        raise RecipeError(
            "schedule.name is 'plateau', which needs validation images, and none are held out.",
            "Choose another schedule, or set data.val_fraction above 0 and data.train_on to 'train'.",
        )
    class_weights(recipe.train.class_weights, np.ones(len(classes), dtype=np.int64), classes)
    if recipe.train.distill.run:
        check_teacher(recipe.train.distill.run, classes)
