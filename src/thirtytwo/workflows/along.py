"""The processes of a training besides the first: they train along with it, and neither write nor evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import Precision, Recipe
from thirtytwo.errors import DataError, RunError
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.training.processes import current
from thirtytwo.training.tracking import Trackers
from thirtytwo.workflows.prepare import Plan, prepare


@dataclass(frozen=True)
class RunDescription:
    """What process 0 sends to the others: they train with the same resolved settings.

    Attributes:
        source: the recipe that it was resolved from.
        changes: values that replaced those of the recipe.
        recipe: the resolved recipe.
        precision: the precision of training.
        fingerprint: hash of the data.
        path: the absolute path of the run directory.
        resumed: whether the run is continued.
    """

    source: str
    changes: Mapping[str, Any]
    recipe: Recipe
    precision: Precision
    fingerprint: str
    path: str
    resumed: bool


def describe_run(
    plan: Plan, source: str | Path, changes: Mapping[str, Any], directory: RunDir, resumed: bool
) -> RunDescription:
    """What the other processes need to know of a run that is ready to train."""
    path = str(directory.path.absolute())
    source = str(source.absolute() if isinstance(source, Path) else source)
    precision, fingerprint = plan.recipe.train.precision, plan.dataset.fingerprint
    return RunDescription(source, dict(changes), plan.recipe, precision, fingerprint, path, resumed)


def train_along(data: str, device: str, data_root: Path | None, advice: Callable[[RunDir], str]) -> None:
    """Train along with process 0.

    Args:
        data: the data.
        device: device to compute on.
        data_root: directory searched first for known data sets.
        advice: says what to do if a process is lost.

    Raises:
        SystemExit: process 0 or another process has an error.
    """
    processes = current()
    processes.on_first(lambda: None)
    described: RunDescription | None = processes.from_first(None)
    if described is None:  # the run is finished already
        return
    directory = RunDir(Path(described.path))
    processes.advice = lambda: advice(directory)
    plan = processes.on_others(lambda: _prepare_along(described, data, device, data_root))
    assert plan is not None
    options: dict[str, Any] = {"initialized": plan.initialized, "trackers": Trackers(), "show": False}
    fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, resume=described.resumed, **options)


def _prepare_along(described: RunDescription, data: str, device: str, data_root: Path | None) -> Plan:
    """Read the same data as process 0, divide it likewise, and build the same network.

    Raises:
        DataError: the data differ.
        RunError: the run to continue is not visible here.
    """
    existing = None
    if described.resumed:
        if not Path(described.path).is_dir():
            raise RunError(
                f"The run directory {described.path} does not exist on this machine.",
                "Resume on several machines from a folder that all of them share.",
            )
        existing = RunDir.open(described.path)
    plan = prepare(data, described.source, described.changes, device, data_root, described.precision, None, existing)
    if plan.dataset.fingerprint != described.fingerprint:
        raise DataError(
            f"The data here differ from those of process 0 (fingerprints {plan.dataset.fingerprint} and "
            f"{described.fingerprint}).",
            "Copy the same data to all machines.",
        )
    return replace(plan, recipe=described.recipe)
