"""The recipe of a training that names none: chosen by the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thirtytwo.config.recommend import PHOTOS, SMALL, WHAT, is_small, recommend_recipe
from thirtytwo.config.resolve import read_recipe
from thirtytwo.config.settings import Choice
from thirtytwo.data.load import survey
from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.models.packaged import check_installed
from thirtytwo.models.pretrained import source_kind
from thirtytwo.workflows.prepare import check_settings

_SETTINGS = "Recipe settings"
"""What messages call settings of a recipe that the user did not name."""


def choose_recipe(data: str, changes: Mapping[str, Any], data_root: Path | None = None) -> Choice:
    """Choose the recipe for `data`: `fast` for small images, `photos` for photographs; `value` is its name.

    Settings that fit only one of them decide first; settings that fit neither are refused before the data is read.

    Args:
        data: the data, as in `train`.
        changes: settings that replace those of the recipe, by dotted key.
        data_root: folder in which known data sets are searched first.

    Raises:
        RecipeError: the settings fit neither recipe.
        RunError: the data are photographs, and the package with the weights that `photos` starts from is missing.
        ThirtytwoError: the data cannot be read.
    """
    found = _choice_by_settings(changes)
    if found is None:
        _check_changes(changes)
        found = _choice_by_data(data, data_root)
    else:
        _check_chosen(found.value, changes)
    if found.value == PHOTOS:
        _check_weights(data, changes, found.reason)
    return found


def _check_changes(changes: Mapping[str, Any]) -> None:
    """Check that the settings fit one of the recipes.

    Raises:
        RecipeError: they fit neither.
    """
    problems: dict[str, ThirtytwoError] = {}
    for name in (SMALL, PHOTOS):
        try:
            check_settings(name, changes)
        except ThirtytwoError as error:
            problems[name] = error
        else:
            return
    small, photos = problems[SMALL], problems[PHOTOS]
    texts = {name: _without_recipe(error, name) for name, error in problems.items()}
    if texts[SMALL] == texts[PHOTOS]:
        raise RecipeError(f"{_SETTINGS}: {texts[SMALL]}", small.fix)
    raise RecipeError(
        f"The settings fit neither recipe {SMALL!r} ({texts[SMALL].rstrip('.')}) nor recipe {PHOTOS!r} "
        f"({texts[PHOTOS].rstrip('.')}).",
        photos.fix or small.fix or "Correct them, or name a recipe with --recipe.",
    )


def _check_chosen(name: str, changes: Mapping[str, Any]) -> None:
    """Check that the settings fit the recipe that they chose, which the user did not name.

    Raises:
        RecipeError: they do not.
    """
    try:
        check_settings(name, changes)
    except RecipeError as error:
        text = _without_recipe(error, name)
        raise RecipeError(error.message if text == error.message else f"{_SETTINGS}: {text}", error.fix) from None


def _without_recipe(error: ThirtytwoError, name: str) -> str:
    return error.message.removeprefix(f"Recipe {name!r}: ")


def _choice_by_settings(changes: Mapping[str, Any]) -> Choice | None:
    name, size, source = (changes.get(key) for key in ("model.name", "data.image_size", "transfer.pretrained"))
    if name is not None:
        return Choice(WHAT, PHOTOS if name == "timm" and source else SMALL, f"model.name is set to {name!r}")
    if isinstance(source, str) and source and source_kind(source) == "run":
        network = read_recipe(source).model.name
        chosen = PHOTOS if network == "timm" else SMALL
        return Choice(WHAT, chosen, f"it starts from {source}, whose network is {network!r}")
    if isinstance(size, int) and is_small(size):
        return Choice(WHAT, SMALL, f"data.image_size is set to {size} pixels")
    return None


def _choice_by_data(data: str, data_root: Path | None) -> Choice:
    found = survey(data, data_root=data_root)
    return recommend_recipe(found.side, found.images, found.classes)


def _check_weights(data: str, changes: Mapping[str, Any], reason: str) -> None:
    """Check that the packaged weights are there, before the data is decoded.

    Raises:
        RunError: they are not.
    """
    recipe = read_recipe(PHOTOS)
    architecture = changes.get("model.options.architecture", recipe.model.options["architecture"])
    source = changes.get("transfer.pretrained", recipe.transfer.pretrained)
    if source != recipe.transfer.pretrained:
        return
    try:
        check_installed(str(architecture))
    except RunError as error:
        raise RunError(
            f"{data} holds {reason}, so the recipe is {PHOTOS!r}. {error.message}",
            f"{error.fix} Or train from scratch at 32 pixels: --recipe {SMALL}",
        ) from None
