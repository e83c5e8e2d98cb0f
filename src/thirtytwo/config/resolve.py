"""Reading recipes, overriding their values, resolving them for the data, and formatting overrides."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import parse_settings
from thirtytwo.errors import RecipeError, UnknownNameError, did_you_mean
from thirtytwo.io import expand_home, is_directory, is_file


def recipe_names() -> list[str]:
    """Names of the bundled recipes, sorted."""
    return sorted(
        entry.name.removesuffix(".toml")
        for entry in resources.files("thirtytwo.config.recipes").iterdir()
        if entry.name.endswith(".toml")
    )


def read_recipe_values(name_or_file: str | Path) -> dict[str, Any]:
    """Read the TOML tables of a recipe without validating them.

    Args:
        name_or_file: name of a bundled recipe, a TOML file, or a run directory (its recipe).

    Raises:
        UnknownNameError: neither a bundled recipe nor a file.
        RecipeError: the file is not valid TOML.
    """
    text, where = _recipe_text(name_or_file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{where} is not valid TOML: {error}.", "Fix that line.") from None


def seed_of(name_or_file: str | Path, changes: Mapping[str, Any]) -> int:
    """The seed of a recipe with these changes; 0 where it has none, or an invalid one (reported on validation)."""
    seed = changes.get("seed", read_recipe_values(name_or_file).get("seed", 0))
    return seed if isinstance(seed, int) else 0


def read_recipe(name_or_file: str | Path) -> Recipe:
    """Read and validate a bundled recipe, a file or a run directory's recipe.

    Raises:
        UnknownNameError: neither a bundled recipe nor a file.
        RecipeError: not valid TOML, or it does not fit the schema.
    """
    return parse_settings(Recipe, read_recipe_values(name_or_file), f"Recipe {str(name_or_file)!r}")


def resolve_recipe(
    values: Mapping[str, Any], overrides: Mapping[str, Any], *, classes: int, rows: int, where: str = "Recipe"
) -> Recipe:
    """The recipe as it will run: the `when` rows that match the data are applied first, then `overrides`.

    Args:
        values: tables of the recipe, as `read_recipe_values` returns them.
        overrides: values by dotted key.
        classes: number of classes.
        rows: number of training images.
        where: name of the recipe in error messages.

    Raises:
        RecipeError: the result does not fit the schema.
    """
    checked = parse_settings(Recipe, values, where)
    merged = {key: value for key, value in values.items() if key != "when"}
    for number, row in enumerate(checked.when, start=1):
        changed = with_overrides(merged, row.set)
        # Validated even where its conditions are not met, so that mistakes do not depend on the data.
        parse_settings(Recipe, changed, f"{where}, 'when' row {number}")
        if row.holds(classes, rows):
            merged = changed
    return parse_settings(Recipe, with_overrides(merged, overrides), where)


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested tables `values` with the values of dotted keys replaced.

    Raises:
        RecipeError: a prefix of a dotted key names something other than a table.
    """
    merged = copy.deepcopy(dict(values))
    for dotted, value in overrides.items():
        *tables, key = dotted.split(".")
        table = merged
        for step in tables:
            inner = table.setdefault(step, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{dotted!r} cannot be set: {step!r} is {inner!r}, not a table.")
            table = inner
        table[key] = copy.deepcopy(value)  # a later key may be below it
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested tables by dotted key; the opposite of `with_overrides({}, …)`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Parse `--set` assignments such as `["schedule.epochs=4", "augment.flip=none"]` into values by dotted key.

    A value that is not valid TOML is taken as text.

    Raises:
        RecipeError: an assignment without `=` or with an empty key.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise RecipeError(
                f"--set {assignment!r} is not of the form key=value.", "Write, for example, --set schedule.epochs=4"
            )
        try:
            overrides[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key] = text.strip()
    return overrides


def format_override(key: str, value: Any) -> str:
    """The assignment that `parse_overrides` reads back as this key and value: `schedule.epochs=4`."""
    return f"{key}={_inline(value)}"


def _inline(value: Any) -> str:
    """A TOML value on one line."""
    import tomlkit

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_inline_key(key)} = {_inline(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return str(tomlkit.item(value).as_string())


def _inline_key(key: str) -> str:
    import tomlkit

    return tomlkit.key(key).as_string()


def _recipe_text(name_or_file: str | Path) -> tuple[str, str]:
    name = str(name_or_file)
    if not name:
        raise UnknownNameError("Unknown recipe ''.", "Check whether a variable is unset.")
    path = expand_home(name)
    if name in recipe_names():  # before files, so that a file `fast` in this folder does not hide the recipe
        return resources.files("thirtytwo.config.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"), name
    if is_directory(path) and is_file(path / "recipe.toml"):
        path = path / "recipe.toml"
    if is_file(path):
        try:
            return path.read_text(encoding="utf-8-sig"), str(path)  # also as Windows writes it
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"Recipe {path} could not be read: {error}.") from None
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise UnknownNameError(f"There is no recipe file {name!r}.", "Bundled recipes: " + ", ".join(recipe_names()))
    raise UnknownNameError(f"Unknown recipe {name!r}.", did_you_mean(name, recipe_names()))
