"""What the validation images of a run were used to choose, besides its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import TUNED, Recipe
from thirtytwo.rundir import RunDir


def selection_record(chosen: Sequence[str]) -> dict[str, Any]:
    """The entries on this in `calibration` and `conformal` of `metrics.json`."""
    return {"selected_on_validation": bool(chosen), "validation_chose": list(chosen)}


def selections(recipe: Recipe, environment: Mapping[str, Any]) -> list[str]:
    """What was chosen on validation, each as a phrase; empty where validation served for monitoring only.

    Choices of runs that it starts from, is distilled from, is combined from or takes its calibration from count as its
    own where those runs can still be read: they held out the same images.
    """
    found = [] if environment.get("members") else _own(recipe)
    if any(choice["what"] == "soup" for choice in environment.get("choices") or ()):
        found.append("which runs are in the soup")
    origins = [recipe.transfer.pretrained, recipe.train.distill.run, recipe.data.calibrate_from]
    origins = [str(member["run"]) for member in environment.get("members") or ()] or origins
    fingerprint = (environment.get("data") or {}).get("fingerprint")
    for named in filter(None, origins):
        run = RunDir(Path(named))
        if run.recipe.is_file() and run.environment.is_file():
            theirs = run.read_json(run.environment)
            if (theirs.get("data") or {}).get("fingerprint") == fingerprint:
                found += selections(run.read_recipe(), theirs)
    return list(dict.fromkeys(found))


def _own(recipe: Recipe) -> list[str]:
    settings = recipe.train
    decided = {
        "the best epoch (train.keep)": settings.keep == "best",
        "when to stop (train.patience)": settings.patience > 0,
        "when to lower the learning rate (schedule.name)": recipe.schedule.name == "plateau",
        "the settings of the recipe (thirtytwo tune)": recipe.name.endswith(TUNED),
    }
    return [what for what, is_so in decided.items() if is_so and recipe.data.train_on != "all"]
