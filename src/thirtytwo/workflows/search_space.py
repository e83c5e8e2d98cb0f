"""Search spaces for tuning: keys of a recipe, each with a range or a list of choices."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from thirtytwo.config.optimization import ADAPTIVE, ADAPTIVE_RATE
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.errors import RecipeError, did_you_mean, require
from thirtytwo.io import expand_home, is_file

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

NOT_TUNABLE = (
    "name",
    "description",
    "seed",
    "when",
    "data.val_fraction",
    "data.split_seed",
    "data.group_by",
    "data.keep_together",
    "data.folds",
    "data.fold",
    "data.train_on",
    "data.fix_plan",
)
"""Keys that only change seed variance, or the images that trials are compared on."""
RANGE = "a range, such as { low = 0.1, high = 1.0, log = true }, or { choices = [1, 2] }"


class Axis(Settings):
    """The values of one key: from `low` to `high`, or one of `choices`."""

    low: int | float | None = None
    """Smallest value."""
    high: int | float | None = None
    """Largest value, inclusive."""
    log: bool = False
    """Sample on a logarithmic scale, as for learning rates."""
    step: Annotated[int | float, Field(gt=0)] | None = None
    """Distance between values, starting at `low`; continuous by default."""
    choices: tuple[Any, ...] | None = None
    """Values to choose from."""

    @model_validator(mode="after")
    def _check_range_or_choices(self) -> Axis:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices cannot be combined with low, high, log or step")
            if len({label(choice) for choice in self.choices}) != len(self.choices) or len(self.choices) < 2:
                raise ValueError("choices must be two or more different values")
            return self
        if self.low is None or self.high is None:
            raise ValueError("low and high, or choices, are required")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low:g} and {self.high:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0, found {self.low:g}")
        if self.step is not None and (Decimal(str(self.high)) - Decimal(str(self.low))) % Decimal(str(self.step)):
            raise ValueError(f"high must be a whole number of steps of {self.step:g} above low")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def distribution(self) -> BaseDistribution:
        """The Optuna distribution; choices are represented by their `label`."""
        kinds = require("optuna", "train").distributions
        if self.choices is not None:
            found: BaseDistribution = kinds.CategoricalDistribution([label(choice) for choice in self.choices])
        elif isinstance(self.low, int):
            found = kinds.IntDistribution(self.low, self.high, log=self.log, step=self.step or 1)
        else:
            found = kinds.FloatDistribution(self.low, self.high, log=self.log, step=self.step)
        return found

    def contains(self, value: Any) -> bool:
        """Whether `value` can be sampled."""
        if self.choices is not None:
            return label(value) in {label(choice) for choice in self.choices}
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        assert self.low is not None
        assert self.high is not None
        on_grid = self.step is None or not (Decimal(str(value)) - Decimal(str(self.low))) % Decimal(str(self.step))
        return self.low <= value <= self.high and on_grid


@dataclass(frozen=True)
class Space:
    """The keys to search, and the values of each."""

    axes: Mapping[str, Axis]

    def distributions(self) -> dict[str, BaseDistribution]:
        """The Optuna distribution of each key."""
        return {key: axis.distribution() for key, axis in self.axes.items()}

    def values(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the recipe for the parameters that Optuna sampled."""
        return {key: self._value(self.axes[key], value) for key, value in sampled.items()}

    def parameters_of(self, recipe: Recipe) -> dict[str, Any] | None:
        """The Optuna parameters that give `recipe` itself; None where it lies outside the space."""
        sampled = {}
        for key, axis in self.axes.items():
            value = value_at(recipe, key)
            if not axis.contains(value):
                return None
            sampled[key] = label(value) if axis.choices is not None else value
        return sampled

    def to_dict(self) -> dict[str, Any]:
        """Keys and their tables, for JSON and TOML."""
        return {key: axis.model_dump(mode="json", exclude_unset=True) for key, axis in self.axes.items()}

    def to_toml(self) -> str:
        """TOML text that `read_space` reads back unchanged."""
        import tomlkit

        return tomlkit.dumps(self.to_dict())

    def _value(self, axis: Axis, sampled: Any) -> Any:
        if axis.choices is None:
            return sampled
        return next(choice for choice in axis.choices if label(choice) == sampled)


def label(choice: Any) -> str:
    """A choice as text."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def value_at(recipe: Recipe, key: str) -> Any:
    """The value of a recipe at a dotted key; None where an option is not set."""
    value: Any = recipe.model_dump(mode="json")
    for step in key.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def read_space(path: Path | str) -> Space:
    """Read a space from a TOML file: dotted keys of a recipe, each a table of `low` and `high` or of `choices`.

    Raises:
        RecipeError: the file is missing, not TOML, or not a valid space; the message lists every error.
    """
    file = expand_home(path)
    try:
        if not is_file(file):  # also pipes, which would be waited for
            raise FileNotFoundError
        tables = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # also as Windows writes it
    except FileNotFoundError:
        raise RecipeError(
            f"There is no space file {str(path)!r}.", "See docs/tuning.md for how to write one."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Space {path} could not be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Space {path} is not valid TOML: {error}.", "Fix that line.") from None
    return parse_space(tables, f"Space {path}")


def parse_space(tables: Mapping[str, Any], where: str = "Space") -> Space:
    """Parse a space from nested or dotted tables; errors are those of `read_space`."""
    axes: dict[str, Axis] = {}
    errors: list[str] = []
    for key, table in _leaves(tables):
        try:
            axes[key] = _axis(key, table, where)
        except RecipeError as error:
            errors.append(str(error))
    if errors:
        raise RecipeError(" ".join(errors))
    if not axes:
        raise RecipeError(f"{where} has no key to search.", f"Add a key with {RANGE}.")
    return Space(axes)


def default_space(recipe: Recipe) -> Space:
    """Default space around a recipe, which it contains: learning rates, weight decay, label smoothing, augmentation."""
    optimizer, smoothing = recipe.optimizer, recipe.train.label_smoothing
    adaptive = not optimizer.per_image and any(part in optimizer.name for part in ADAPTIVE)
    highest = ADAPTIVE_RATE if adaptive else float("inf")
    tables: dict[str, Any] = {"optimizer.lr": _around(optimizer.lr, 4, highest)}
    if optimizer.per_image:
        tables["optimizer.lr_rest"] = _around(optimizer.lr_rest, 4)
        tables["optimizer.lr_head"] = _around(optimizer.lr_head, 4)
    if optimizer.weight_decay:
        tables["optimizer.weight_decay"] = _around(optimizer.weight_decay, 8)
    else:
        tried = (0.0, 5e-7, 2e-6, 8e-6) if optimizer.per_image else (0.0, 1e-4, 1e-3, 1e-2, 5e-2)
        tables["optimizer.weight_decay"] = {"choices": list(tried)}
    tables["train.label_smoothing"] = {"low": 0.0, "high": max(0.3, smoothing)}
    size = recipe.data.image_size if isinstance(recipe.data.image_size, int) else 32
    tables["augment.translate"] = {"low": 0, "high": max(4, recipe.augment.translate)}
    tables["augment.cutout"] = {"low": 0, "high": max(size // 2, recipe.augment.cutout)}
    if recipe.transfer.pretrained:
        tables["transfer.rate"] = _around(recipe.transfer.rate, 4)
    return parse_space(tables, "The default space")


def _around(value: float, factor: float, highest: float = float("inf")) -> dict[str, Any]:
    """From `value` / factor to `value` × factor, and not above `highest`."""
    return {"low": value / factor, "high": min(value * factor, highest), "log": True}


def _leaves(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in tables.items():
        if isinstance(inner, Mapping) and inner and not inner.keys() & Axis.model_fields.keys():
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _axis(key: str, table: Any, where: str) -> Axis:
    try:
        field = _field(key)
    except KeyError:
        raise RecipeError(f"{where}: unknown key {key!r}. {did_you_mean(key, _known(Recipe))}") from None
    if key in NOT_TUNABLE or key.startswith("evaluate."):
        raise RecipeError(
            f"{where}: {key!r} cannot be tuned: it does not improve the network, or makes trials incomparable."
        )
    if not isinstance(table, Mapping):
        raise RecipeError(f"{where}: {key!r} must be {RANGE}, found {table!r}.")
    axis = parse_settings(Axis, table, f"{where}, {key!r}")
    if axis.choices is None:
        axis = _as_number(key, axis, field, where)
    if field is not None:
        name = key.rpartition(".")[2]
        one: type[Settings] = create_model("Key", __base__=Settings, **{name: (field.annotation, field)})  # type: ignore[call-overload]
        for end in axis.ends:
            parse_settings(one, {name: end}, f"{where}, {key!r}")
    return axis


def _as_number(key: str, axis: Axis, field: FieldInfo | None, where: str) -> Axis:
    """The range with integers or floats, as the key requires."""
    numbers = [value for value in (axis.low, axis.high, axis.step) if value is not None]
    whole = all(isinstance(value, int) for value in numbers)
    kinds = _number_kinds(field.annotation) if field is not None else {int} if whole else {float}
    if not kinds:
        raise RecipeError(f"{where}: {key!r} is not a number.", "Use { choices = [...] }.")
    if float not in kinds and not whole:
        raise RecipeError(f"{where}: {key!r} is an integer, so low, high and step must be integers.")
    if float not in kinds:
        return axis
    return axis.model_copy(
        update={
            name: float(value)
            for name, value in (("low", axis.low), ("high", axis.high), ("step", axis.step))
            if value is not None
        }
    )


def _number_kinds(annotation: Any) -> set[type]:
    if annotation in (int, float):
        return {annotation}
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return set().union(*(_number_kinds(inner) for inner in get_args(annotation)))
    return set()


def _field(key: str) -> FieldInfo | None:
    """The recipe field of a dotted key; None for options of a network or an optimizer, which have no field.

    Raises:
        KeyError: there is no such key, or it is a table.
    """
    table: type[Settings] = Recipe
    steps = key.split(".")
    while steps:
        field = table.model_fields[steps.pop(0)]
        inner = field.annotation
        named = get_origin(inner) is dict
        if named and steps:
            steps.pop(0)  # a name that the user chose
            inner = get_args(inner)[1]
        if isinstance(inner, type) and issubclass(inner, Settings):
            table = inner
        elif named or steps:
            if named and get_args(field.annotation)[1] is Any and (key.count(".") > 1):
                return None
            raise KeyError(key)
        else:
            return field
    raise KeyError(key)


def _known(table: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in table.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from _known(inner, f"{prefix}{name}.")
        else:
            yield prefix + name
