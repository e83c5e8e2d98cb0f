"""Members of an ensemble or soup: loading, compatibility checks, and their entry in `environment.json`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from thirtytwo.config.recipe import Recipe
from thirtytwo.errors import RunError
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models import Net
from thirtytwo.rundir import RunDir
from thirtytwo.workflows.scoring import load_net

Soup = Literal["greedy", "uniform"]


@dataclass(frozen=True)
class Member:
    """A finished run that is to be combined with others."""

    run: RunDir
    recipe: Recipe
    net: Net
    info: ModelInfo
    environment: dict[str, Any]
    split: dict[str, Any]


def load_member(path: Path) -> Member:
    """Load the finished run at `path`.

    Raises:
        RunError: it is missing, not finished or damaged.
    """
    run = RunDir.open(path)
    net, info = load_net(run)
    return Member(run, run.read_recipe(), net, info, run.read_json(run.environment), run.read_json(run.split))


def check_compatible(members: Sequence[Member], soup: Soup | None) -> None:
    """Check that runs can be combined.

    Raises:
        RunError: two of them cannot; the message names both and the reason.
    """
    first = members[0]
    for other in members[1:]:
        pair = f"{first.run.path} and {other.run.path}"
        if first.environment["data"]["fingerprint"] != other.environment["data"]["fingerprint"]:
            names = f"{first.environment['data']['spec']} and {other.environment['data']['spec']}"
            raise RunError(f"{pair} were trained on different data: {names}.", "Combine runs on the same data.")
        for what in ("input_size", "resize"):
            ours, theirs = getattr(first.info, what), getattr(other.info, what)
            if ours != theirs:
                key = "data.image_size" if what == "input_size" else "data.resize"
                raise RunError(
                    f"{pair} resize images differently: {key} is {ours} and {theirs}.",
                    f"Train them with the same {key}.",
                )
        for part in ("validation", "test"):
            if _held_out(first, part) != _held_out(other, part):
                raise RunError(
                    f"{pair} have different {part} images, so one may have been trained on those of the other.",
                    "Train them with the same data.split_seed, data.group_by, data.val_fraction, data.train_on and "
                    "data.limit_train.",
                )
        if soup is None:
            continue
        if first.recipe.model != other.recipe.model:
            raise RunError(
                f"{pair} have different networks, so their weights cannot be averaged: {_network(first)} "
                f"and {_network(other)}.",
                "Omit --soup to average their probabilities instead.",
            )
        if (first.info.mean, first.info.std) != (other.info.mean, other.info.std):
            raise RunError(
                f"{pair} normalize images differently, so their weights cannot be averaged.",
                "Omit --soup to average their probabilities instead.",
            )
    if soup == "greedy" and not first.split["n_val"]:
        raise RunError(
            f"{first.run.path} has no validation images, and a greedy soup is chosen on validation.",
            "Use --soup uniform, which needs no validation.",
        )


def _held_out(member: Member, part: str) -> object:
    """The identity of the images that a run held out."""
    key = "val" if part == "validation" else "test"
    return member.split.get(key, {}).get("hashes"), member.split["val_rows"] if key == "val" else None


def _network(member: Member) -> str:
    options = ", ".join(f"{key} {value!r}" for key, value in member.recipe.model.options.items())
    return member.recipe.model.name + (f" ({options})" if options else "")


def member_record(member: Member, kept: bool) -> dict[str, Any]:
    """The entry of a member in the `environment.json` of the combined run."""
    metrics = member.run.read_json(member.run.metrics) if member.run.metrics.is_file() else {}
    environment = member.environment
    return {
        "run": os.fspath(member.run.path),
        "recipe": member.recipe.name,
        "seed": member.recipe.seed,
        "network": member.info.architecture,
        "in_it": kept,
        "accuracy": metrics.get("accuracy") if metrics.get("split") == "test" else None,
        "parameters": environment.get("parameters"),
        "flops": environment.get("flops"),
        "seconds_train": environment["seconds"]["train"],
    }
