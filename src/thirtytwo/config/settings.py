"""Strict settings: tables that are validated once, with all mistakes reported together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from thirtytwo.errors import RecipeError, did_you_mean
from thirtytwo.text import expected_value, plain_reason


class Settings(BaseModel):
    """Base class of every table of settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


S = TypeVar("S", bound=BaseModel)


def parse_settings(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate `values` against the model `kind` and report all mistakes together, unknown keys with close matches.

    Validation is strict: strings and booleans are not converted to numbers.

    Args:
        kind: settings class to create.
        values: nested tables, as read from TOML.
        where: what error messages begin with, such as `Recipe 'fast'`.

    Raises:
        RecipeError: names `where`, each wrong key, the value found and the value expected.
    """
    try:
        return kind.model_validate_json(json.dumps(plain(values), default=str), strict=True)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + " ".join(_describe(kind, error))) from None


def plain(value: Any) -> Any:
    """A value as TOML and JSON know it: NumPy's scalars as Python's numbers, paths as text; also within tables."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") and not getattr(value, "ndim", 0) else value


def _describe(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One sentence per mistake; the branches of a union are combined into one sentence."""
    sentences: list[str] = []
    expected: dict[str, list[str]] = {}
    found: dict[str, Any] = {}
    for problem in error.errors(include_url=False):
        steps, table = _key(kind, problem["loc"])
        key = ".".join(str(step) for step in steps)
        if problem["type"] == "extra_forbidden":
            sentences.append(
                f"unknown key {key!r}. {did_you_mean(str(steps[-1]), table.model_fields if table else ())}"
            )
        elif problem["type"] == "missing":
            sentences.append(f"{key!r} is missing.")
        elif problem["type"] == "value_error":
            reason = plain_reason(problem)
            sentences.append(f"{key!r}: {reason}." if key else f"{reason}.")
        else:
            expected.setdefault(key, []).append(
                EXPECTED.get(problem["type"]) or expected_value(problem) or problem["msg"]
            )
            found[key] = problem["input"]
    sentences += [f"{key!r} must be {' or '.join(texts)}, found {found[key]!r}." for key, texts in expected.items()]
    return sentences


EXPECTED = {"model_type": "a table", "dict_type": "a table", "tuple_type": "a list in square brackets"}
"""Expected types in TOML's terms, by pydantic's error type, where pydantic's own text would be unclear."""


def _key(kind: type[BaseModel], location: Iterable[Any]) -> tuple[list[Any], type[BaseModel] | None]:
    """The key at pydantic's `location`, without the union branches it adds, and the settings class that holds it."""
    steps: list[Any] = []
    parent: type[BaseModel] | None = None
    table: type[BaseModel] | None = kind
    named = False  # whether the next step is a name chosen by the user
    for step in location:
        if not isinstance(step, int) and not named:
            if table is None:
                break
            parent = table
            field = table.model_fields.get(str(step))
            table = _settings_in(field.annotation) if field else None
            named = field is not None and table is not None and get_origin(field.annotation) is dict
        else:
            named = False
        steps.append(step)
    return steps, parent


def _settings_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _settings_in(inner)
        if found:
            return found
    return None


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen automatically, with its value and the reason, for the log."""

    what: str
    value: str
    reason: str
