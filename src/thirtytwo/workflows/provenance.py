"""Leakage checks: no validation or test image of a run was used to train a run that it builds on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thirtytwo.config.recipe import TUNED, Recipe
from thirtytwo.config.resolve import format_override
from thirtytwo.config.settings import Choice
from thirtytwo.data.folds import divide_or_fold
from thirtytwo.data.load import load_dataset
from thirtytwo.data.run_data import find_again, recorded_hashes, trained_on
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet
from thirtytwo.doctor.together import kept_together
from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.images.content import Hashes, as_text
from thirtytwo.io import expand_home, is_file
from thirtytwo.rundir import RunDir

DIVIDING = ("split_seed", "val_fraction", "group_by", "keep_together")
"""Keys of `[data]` that decide which images are held out."""


@dataclass(frozen=True)
class Provenance:
    """Runs that a run builds on: hashes of their training images, their paths, and what could not be checked."""

    hashes: Hashes
    runs: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The entry `seen_before` of `split.json`."""
        return {"runs": list(self.runs), "hashes": as_text(self.hashes)}


def check_unseen(spec: str, dataset: DataSet, parts: Parts, recipe: Recipe, data_root: Path | None) -> Provenance:
    """Check that no run that this one builds on was trained on images of its validation or test.

    Runs that those build on count as well, even where they no longer exist, and so does the run in whose directory a
    file of weights lies. For `calibrate_from`, its validation counts too, since it was calibrated on it.

    Raises:
        RecipeError: some were; the message says how many, and how to fix it.
    """
    sources = {
        "starts from": recipe.transfer.pretrained,
        "is distilled from": recipe.train.distill.run,
        "takes its calibration from": recipe.data.calibrate_from if recipe.data.train_on == "all" else "",
    }
    found = {relation: _run_of(named) for relation, named in sources.items() if named}
    runs = {relation: run for relation, run in found.items() if run.recipe.is_file()}
    seen: dict[str, Hashes] = {}
    choices = []
    for relation, run in runs.items():
        theirs = _training_hashes(run, dataset)
        if theirs is None:
            reason = "it recorded no hashes of its images; train it again to check it"
            choices.append(Choice("leakage check", f"not checked for {run.path}", reason))
            continue
        calibrates = "calibration" in relation
        held = recorded_hashes(run, "val") if calibrates else None
        overlap = _overlap(parts, theirs if held is None else np.union1d(theirs, held))
        if overlap:
            raise RecipeError(
                f"This run {relation} {run.path}. That run, or one that it started from, was trained on"
                f"{' or validated with' if calibrates else ''} {overlap} of this run: metrics would be optimistic.",
                _fix(run, spec, dataset, recipe, theirs, data_root),
            )
        if not calibrates:
            seen[str(run.path)] = theirs
    return Provenance(_union(seen.values()), tuple(seen), tuple(choices))


def _run_of(named: str) -> RunDir:
    """The run that a setting names by its directory, or by a file in it, such as its weights."""
    path = expand_home(named)
    return RunDir(path.parent if is_file(path) else path)


def check_members(runs: Iterable[RunDir], dataset: DataSet, parts: Parts) -> Provenance:
    """The same check for runs that are combined.

    Raises:
        RunError: one was trained on images that another one held out.
    """
    seen = {}
    for run in runs:
        theirs = _training_hashes(run, dataset)
        if theirs is None:
            continue
        if overlap := _overlap(parts, theirs):
            raise RunError(
                f"{run.path}, or a run that it started from, was trained on {overlap} of the other members.",
                "Train the members on the same data with the same "
                + ", ".join(f"data.{key}" for key in DIVIDING)
                + ".",
            )
        seen[str(run.path)] = theirs
    return Provenance(_union(seen.values()), tuple(seen))


def _training_hashes(run: RunDir, dataset: DataSet) -> Hashes | None:
    """Hashes of the images that a run and those it builds on were trained on; None where they are unknown."""
    recorded = trained_on(run)
    if recorded is not None or not (run.split.is_file() and run.environment.is_file()):
        return recorded
    try:
        return find_again(run, dataset).parts.train.hashes
    except ThirtytwoError:
        return None


def _overlap(parts: Parts, seen: Hashes) -> str:
    """`3 of 40 test images`, or empty."""
    found = []
    for name, images in (("validation", parts.val), ("test", parts.test)):
        count = 0 if images is None else int(np.isin(images.hashes, seen).sum())
        if images is not None and count:
            found.append(f"{count:,} of {len(images):,} {name} images")
    return " and ".join(found)


def _fix(run: RunDir, spec: str, dataset: DataSet, recipe: Recipe, theirs: Hashes, data_root: Path | None) -> str:
    """How to fix the leakage: split settings of the other run if they help, else training that run again."""
    settings = run.read_recipe().data
    differ = {key: getattr(settings, key) for key in DIVIDING if getattr(settings, key) != getattr(recipe.data, key)}
    if differ:
        changed = recipe.model_copy(update={"data": recipe.data.model_copy(update=differ)})
        try:
            again = load_dataset(
                spec,
                data_root=data_root,
                image_size=int(dataset.train.images.shape[1]),
                resize=recipe.data.resize,
                seed=changed.data.split_seed,
                group_by=changed.data.group_by,
                skip_unreadable=recipe.data.skip_unreadable,
                together=kept_together(spec, changed.data, data_root).together,
                split_test=not changed.data.folds,
            )
            if not _overlap(divide_or_fold(again, changed), theirs):
                return "Split the data as it did: " + _settings(differ)
        except ThirtytwoError:
            pass
    ours = _settings({key: getattr(recipe.data, key) for key in DIVIDING})
    command = f"thirtytwo train {shlex.quote(spec)} --recipe {shlex.quote(str(run.recipe))} {ours}"
    return f"Train that run again with the split of this run, and name the new run: {command}"


def _settings(values: dict[str, object]) -> str:
    return shlex.join(
        word for key, value in values.items() for word in ("--set", format_override(f"data.{key}", value))
    )


def _union(several: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *several]))


def selection_record(chosen: Sequence[str]) -> dict[str, Any]:
    """The entries on this in `calibration` and `conformal` of `metrics.json`."""
    return {"selected_on_validation": bool(chosen), "validation_chose": list(chosen)}


def selections(recipe: Recipe, environment: Mapping[str, Any], builders: frozenset[Path] = frozenset()) -> list[str]:
    """What was chosen on validation, each as a phrase; empty where validation served for monitoring only.

    Choices of runs that it starts from, is distilled from, is combined from or takes its calibration from count as its
    own where those runs can still be read: they held out the same images. A run that one of the `builders` starts from
    is not read again: at its path may be a run now that was made from it.
    """
    found = [] if environment.get("members") else _own(recipe)
    if any(choice["what"] == "soup" for choice in environment.get("choices") or ()):
        found.append("which runs are in the soup")
    origins = [recipe.transfer.pretrained, recipe.train.distill.run, recipe.data.calibrate_from]
    origins = [str(member["run"]) for member in environment.get("members") or ()] or origins
    fingerprint = (environment.get("data") or {}).get("fingerprint")
    for named in filter(None, origins):
        run = _run_of(named)
        place = run.path.resolve()
        if place not in builders and run.recipe.is_file() and run.environment.is_file():
            theirs = run.read_json(run.environment)
            if (theirs.get("data") or {}).get("fingerprint") == fingerprint:
                found += selections(run.read_recipe(), theirs, builders | {place})
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
