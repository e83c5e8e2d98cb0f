"""The guard against leakage: nothing that a run scores was trained on by a run that it starts or learns from."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thirtytwo.config.recipe import Recipe, format_override
from thirtytwo.data.load import load_dataset
from thirtytwo.data.parts import Parts, divide
from thirtytwo.data.run_data import find_again, recorded_hashes, trained_on
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RecipeError, RunError, ThirtytwoError
from thirtytwo.images.content import Hashes, as_text
from thirtytwo.rundir import RunDir
from thirtytwo.training.hardware import Choice

DIVIDING = ("split_seed", "val_fraction", "group_by")
"""Keys of `[data]` that decide which images are held out."""


@dataclass(frozen=True)
class Origins:
    """Runs that a run goes back to: what they were trained on, which they are, and what could not be checked."""

    hashes: Hashes
    runs: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The entry `seen_before` of `split.json`."""
        return {"runs": list(self.runs), "hashes": as_text(self.hashes)}


def check_unseen(spec: str, dataset: DataSet, parts: Parts, recipe: Recipe, data_root: Path | None) -> Origins:
    """No image of validation or test was trained on by a run that this one starts or learns from, or is calibrated by.

    Runs that those go back to in turn count as well, even where they are no longer there. `calibrate_from` must not
    have held our test out either, since it was calibrated on what it held out.

    Raises:
        RecipeError: some were; says how many, and what to do.
    """
    sources = {
        "starts from (transfer.pretrained)": recipe.transfer.pretrained,
        "learns from (train.distill.run)": recipe.train.distill.run,
        "is calibrated by (data.calibrate_from)": recipe.data.calibrate_from if recipe.data.train_on == "all" else "",
    }
    found = {relation: RunDir(Path(named)) for relation, named in sources.items() if named}
    runs = {relation: run for relation, run in found.items() if run.recipe.is_file()}
    seen: dict[str, Hashes] = {}
    choices = []
    for relation, run in runs.items():
        theirs = _seen_by(run, dataset)
        if theirs is None:
            reason = "it recorded no content of its images; train it again to have it checked"
            choices.append(Choice("guard against leakage", f"not checked for {run.path}", reason))
            continue
        calibrates = "calibrate_from" in relation
        held = recorded_hashes(run, "val") if calibrates else None
        overlap = _overlap(parts, theirs if held is None else np.union1d(theirs, held))
        if overlap:
            raise RecipeError(
                f"{overlap} were trained on{' or held out' if calibrates else ''} by {run.path}, or by runs it goes "
                f"back to, which this run {relation}: its metrics would be optimistic.",
                _fix(run, spec, dataset, recipe, theirs, data_root),
            )
        if not calibrates:
            seen[str(run.path)] = theirs
    return Origins(_union(seen.values()), tuple(seen), tuple(choices))


def check_members(runs: Iterable[RunDir], dataset: DataSet, parts: Parts) -> Origins:
    """The same for runs that are put together.

    Raises:
        RunError: one was trained on what another one held out.
    """
    seen = {}
    for run in runs:
        theirs = _seen_by(run, dataset)
        if theirs is None:
            continue
        if overlap := _overlap(parts, theirs):
            raise RunError(
                f"{overlap} were trained on by {run.path}, or by runs it goes back to.",
                "Train the members on the same data with the same "
                + ", ".join(f"data.{key}" for key in DIVIDING)
                + ".",
            )
        seen[str(run.path)] = theirs
    return Origins(_union(seen.values()), tuple(seen))


def _seen_by(run: RunDir, dataset: DataSet) -> Hashes | None:
    """What a run and those it goes back to were trained on; None where that cannot be told."""
    recorded = trained_on(run)
    if recorded is not None or not (run.split.is_file() and run.environment.is_file()):
        return recorded
    try:
        return find_again(run, dataset).parts.train.hashes
    except ThirtytwoError:
        return None


def _overlap(parts: Parts, seen: Hashes) -> str:
    """`3 of 40 test images`, or nothing."""
    found = []
    for name, images in (("validation", parts.val), ("test", parts.test)):
        count = 0 if images is None else int(np.isin(images.hashes, seen).sum())
        if images is not None and count:
            found.append(f"{count:,} of {len(images):,} {name} images")
    return " and ".join(found)


def _fix(run: RunDir, spec: str, dataset: DataSet, recipe: Recipe, theirs: Hashes, data_root: Path | None) -> str:
    """Settings that divide the data as the other run did, if they help; else to train that run anew."""
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
            )
            if not _overlap(divide(again, changed), theirs):
                return "Divide the data as it did: " + _settings(differ)
        except ThirtytwoError:
            pass
    ours = _settings({key: getattr(recipe.data, key) for key in DIVIDING})
    command = f"thirtytwo train {shlex.quote(spec)} --recipe {shlex.quote(str(run.recipe))} {ours}"
    return f"Train that run again on what is trained on here, and name the new run: {command}"


def _settings(values: dict[str, object]) -> str:
    return shlex.join(
        word for key, value in values.items() for word in ("--set", format_override(f"data.{key}", value))
    )


def _union(several: Iterable[Hashes]) -> Hashes:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *several]))
