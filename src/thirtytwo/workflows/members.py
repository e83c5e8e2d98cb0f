"""Finished runs that are to become one: whether they go together, and what is told of them."""

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
class Given:
    """A finished run that is to be a member."""

    run: RunDir
    recipe: Recipe
    net: Net
    info: ModelInfo
    environment: dict[str, Any]
    split: dict[str, Any]


def opened(path: Path) -> Given:
    """The finished run at `path`.

    Raises:
        RunError: it is missing, not finished or damaged.
    """
    run = RunDir.open(path)
    net, info = load_net(run)
    return Given(run, run.read_recipe(), net, info, run.read_json(run.environment), run.read_json(run.split))


def check_alike(given: Sequence[Given], soup: Soup | None) -> None:
    """Look whether runs can be put together.

    Raises:
        RunError: names the two that cannot, and why.
    """
    first = given[0]
    for other in given[1:]:
        pair = f"{first.run.path} and {other.run.path}"
        if first.environment["data"]["fingerprint"] != other.environment["data"]["fingerprint"]:
            names = f"{first.environment['data']['spec']} and {other.environment['data']['spec']}"
            raise RunError(f"{pair} were trained on different data: {names}.", "Put together runs on the same data.")
        for what in ("input_size", "resize"):
            ours, theirs = getattr(first.info, what), getattr(other.info, what)
            if ours != theirs:
                key = "data.image_size" if what == "input_size" else "data.resize"
                raise RunError(
                    f"{pair} see pictures differently: {key} is {ours} and {theirs}.",
                    f"Train them with the same {key}.",
                )
        for part in ("validation", "test"):
            if _held_out(first, part) != _held_out(other, part):
                raise RunError(
                    f"{pair} held out different pictures for {part}: one was trained on what would judge the other.",
                    "Train them with the same data.split_seed, data.group_by, data.val_fraction, data.train_on and "
                    "data.limit_train.",
                )
        if soup is None:
            continue
        if first.recipe.model != other.recipe.model:
            raise RunError(
                f"{pair} have different networks, so their weights cannot be averaged: {_network(first)} "
                f"and {_network(other)}.",
                "Leave out --soup to average what they say.",
            )
        if (first.info.mean, first.info.std) != (other.info.mean, other.info.std):
            raise RunError(
                f"{pair} normalise pictures differently, so their weights do not mean the same.",
                "Leave out --soup to average what they say.",
            )
    if soup == "greedy" and not first.split["n_val"]:
        raise RunError(
            f"{first.run.path} held nothing out, and a greedy soup is chosen on validation.",
            "Take --soup uniform, which chooses nothing.",
        )


def _held_out(one: Given, part: str) -> object:
    """What names the images that a run held out."""
    key = "val" if part == "validation" else "test"
    return one.split.get(key, {}).get("hashes"), one.split["val_rows"] if key == "val" else None


def _network(one: Given) -> str:
    options = ", ".join(f"{key} {value!r}" for key, value in one.recipe.model.options.items())
    return one.recipe.model.name + (f" ({options})" if options else "")


def told(one: Given, kept: bool) -> dict[str, Any]:
    """What the ensemble's `environment.json` says of a member."""
    metrics = one.run.read_json(one.run.metrics) if one.run.metrics.is_file() else {}
    environment = one.environment
    return {
        "run": os.fspath(one.run.path),
        "recipe": one.recipe.name,
        "seed": one.recipe.seed,
        "network": one.info.architecture,
        "in_it": kept,
        "accuracy": metrics.get("accuracy") if metrics.get("split") == "test" else None,
        "parameters": environment.get("parameters"),
        "flops": environment.get("flops"),
        "seconds_train": environment["seconds"]["train"],
    }
