"""The runs that are to be combined: loading them, checking that they fit together, and recording them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thirtytwo.errors import RunError
from thirtytwo.workflows.loading import LoadedRun

Soup = Literal["greedy", "uniform"]


def check_compatible(members: Sequence[LoadedRun], soup: Soup | None) -> None:
    """Check that runs can be combined.

    Raises:
        RunError: two of them cannot; the message names both and the reason.
    """
    first = members[0]
    for member in members:
        if "epochs" not in member.environment or "train" not in (member.environment.get("seconds") or {}):
            raise RunError(f"The training of {member.directory.path} did not finish.", member.directory.resume_hint())
    for other in members[1:]:
        for rule in _RULES if soup is None else (*_RULES, *_SOUP_RULES):
            before, now = rule.value(first), rule.value(other)
            if before != now:
                shown = rule.shown or rule.value
                problem = rule.problem.format(first=shown(first), other=shown(other))
                raise RunError(f"{first.directory.path} and {other.directory.path} {problem}.", rule.fix)
    if soup == "greedy" and not first.split["n_val"]:
        raise RunError(
            f"{first.directory.path} has no validation images, and a greedy soup is chosen on validation.",
            "Use --soup uniform, which needs no validation.",
        )


@dataclass(frozen=True)
class _Rule:
    """Something that must be equal in all members, and the error where it is not."""

    value: Callable[[LoadedRun], object]
    problem: str
    """What two members do, with `{first}` and `{other}` for what is `shown` of each."""
    fix: str
    shown: Callable[[LoadedRun], object] | None = None
    """What the error shows of a member; `value` where None."""


def _held_out(member: LoadedRun, part: str) -> object:
    """The identity of the images that a run held out."""
    key = "val" if part == "validation" else "test"
    return member.split.get(key, {}).get("hashes"), member.split["val_rows"] if key == "val" else None


def _network(member: LoadedRun) -> str:
    options = ", ".join(f"{key} {value!r}" for key, value in member.recipe.model.options.items())
    return member.recipe.model.name + (f" ({options})" if options else "")


_DIFFERENT_SPLIT = "have different {} images, so one may have been trained on those of the other"
_SAME_SPLIT = (
    "Train them with the same data.split_seed, data.group_by, data.keep_together, data.val_fraction, "
    "data.train_on and data.limit_train."
)
_AVERAGE_PROBABILITIES = "Omit --soup to average their probabilities instead."
_RULES = (
    _Rule(
        lambda member: member.environment["data"]["fingerprint"],
        "were trained on different data: {first} and {other}",
        "Combine runs on the same data.",
        lambda member: member.environment["data"]["spec"],
    ),
    _Rule(
        lambda member: member.info.input_size,
        "resize images differently: data.image_size is {first} and {other}",
        "Train them with the same data.image_size.",
    ),
    _Rule(
        lambda member: member.info.resize,
        "resize images differently: data.resize is {first} and {other}",
        "Train them with the same data.resize.",
    ),
    _Rule(lambda member: _held_out(member, "validation"), _DIFFERENT_SPLIT.format("validation"), _SAME_SPLIT),
    _Rule(lambda member: _held_out(member, "test"), _DIFFERENT_SPLIT.format("test"), _SAME_SPLIT),
)
_SOUP_RULES = (
    _Rule(
        lambda member: member.recipe.model,
        "have different networks, so their weights cannot be averaged: {first} and {other}",
        _AVERAGE_PROBABILITIES,
        _network,
    ),
    _Rule(
        lambda member: (member.info.mean, member.info.std),
        "normalize images differently, so their weights cannot be averaged",
        _AVERAGE_PROBABILITIES,
    ),
)


def member_record(member: LoadedRun, kept: bool) -> dict[str, Any]:
    """The entry of a member in the `environment.json` of the combined run."""
    metrics = member.directory.read_json(member.directory.metrics) if member.directory.metrics.is_file() else {}
    environment = member.environment
    return {
        "run": os.fspath(member.directory.path),
        "recipe": member.recipe.name,
        "seed": member.recipe.seed,
        "network": member.info.architecture,
        "in_it": kept,
        "accuracy": metrics.get("accuracy") if metrics.get("split") == "test" else None,
        "parameters": environment.get("parameters"),
        "flops": environment.get("flops"),
        "seconds_train": (environment.get("seconds") or {}).get("train"),
    }
