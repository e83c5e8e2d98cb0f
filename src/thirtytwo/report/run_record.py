"""The files of a run, read once for reports; missing files leave empty fields."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import flatten, with_overrides
from thirtytwo.data.split import SPLIT_NAMES
from thirtytwo.errors import RunError
from thirtytwo.evaluation.evaluators import Evaluator, Results, evaluators
from thirtytwo.evaluation.metrics import compute_metrics
from thirtytwo.evaluation.sections import Section
from thirtytwo.io import expand_home
from thirtytwo.predictions import Predictions
from thirtytwo.rundir import RunDir
from thirtytwo.text import first_line

_PLAN = "data.fix_plan"
_BUILT_ON = ("transfer.pretrained", "train.distill.run", "data.calibrate_from")
"""Settings that name a run or a file of this machine, if they are not empty; the first may also name known weights."""
_DATA_ROOT = "--data-root"


@dataclass(frozen=True)
class RunRecord:
    """The content of a run directory, as report and model card use it.

    `metrics` and `predictions` are None without an evaluation on the split; `files` holds what evaluators stored in
    files of their own, by key; `history` holds finite numbers only; `out_of_sample` holds predictions on images that
    were not trained on, by split; `environment` and `splits` are empty where the run ended before they were written.
    """

    run: RunDir
    split: str
    recipe: Recipe
    history: list[dict[str, float]]
    environment: dict[str, Any]
    splits: dict[str, Any]
    metrics: dict[str, Any] | None
    predictions: Predictions | None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    out_of_sample: Mapping[str, Predictions] = field(default_factory=dict)
    passed_on: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def data(self) -> dict[str, Any]:
        """The entry `data` of `environment.json`."""
        return dict(self.environment.get("data") or {})

    @property
    def dataset(self) -> str:
        """The data set's name, as far as it is known."""
        named = (self.metrics or {}).get("dataset") or self.data.get("name") or self.data.get("spec")
        return str(named or "an unnamed data set")

    @property
    def source(self) -> str:
        """The data set as it was given; for others, without the folder that it lies in."""
        given = str(self.data.get("spec") or self.dataset)
        return without_folder(given) if self.passed_on else given

    @property
    def recipe_text(self) -> str:
        """The resolved recipe as TOML text."""
        if not self.remarks:
            return self.run.recipe.read_text(encoding="utf-8")
        return "".join(f"# {line}\n" for line in self.remarks) + self.recipe.to_toml()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices; empty where they are not recorded."""
        if self.predictions is not None:
            return self.predictions.classes
        if self.metrics is not None:
            return tuple(row["class"] for row in self.metrics["per_class"])
        listed = self.data.get("classes")
        return tuple(listed) if isinstance(listed, list) else ()

    @property
    def superclasses(self) -> dict[str, str]:
        """Superclass of each class; empty unless the data has one for every class."""
        known = self.data.get("superclasses")
        if not isinstance(known, Mapping) or any(name not in known for name in self.classes):
            return {}
        return {str(name): str(group) for name, group in known.items()}

    @property
    def origins(self) -> list[tuple[str, str]]:
        """Weights and runs that this run builds on, as (relation, name in its recipe)."""
        if self.environment.get("members"):
            return []
        start, named = self.recipe.transfer.pretrained, self.recipe.model.options.get("architecture")
        if start in ("imagenet", "timm") and isinstance(named, str):
            start = f"{start} weights of {named}"
        found = [("Started from", start), ("Distilled from", self.recipe.train.distill.run)]
        return [(relation, named) for relation, named in found if named]

    @cached_property
    def sections(self) -> list[tuple[Evaluator, Section]]:
        """What each evaluator measured, described; evaluators without a result are left out."""
        results = Results(self.split, self.metrics or {}, self.files, self.out_of_sample, self.split_names)
        found = []
        for one in evaluators():
            try:
                if record := one.read(results):
                    found.append((one, one.describe(record, self.split)))
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                file = self.run.metrics if one.store == "metrics" else self.run.evaluation_on(one.key, self.split)
                raise RunError(
                    f"{file} is damaged: what it holds of {one.key!r} cannot be read ({first_line(error)}).",
                    "Move it away and write it again with: "
                    + shlex.join(["thirtytwo", "evaluate", str(self.run.path)]),
                ) from error
        return found

    @property
    def split_names(self) -> dict[str, str]:
        """Displayed names of splits."""
        return SPLIT_NAMES

    @property
    def interrupted(self) -> bool:
        """Whether the run ended before it was finished."""
        return bool(self.environment.get("interrupted")) or (self.metrics is None and self.predictions is None)

    def command_with(self, recipe: str) -> str:
        """The command that repeats this run from its resolved recipe at `recipe`, or from its members."""
        if self.environment.get("members"):
            return str(self.environment["command"])
        return f"thirtytwo train {shlex.quote(self.source)} --recipe {shlex.quote(recipe)}"


def typed_commands(run: RunDir, builders: frozenset[Path] = frozenset()) -> list[str]:
    """The commands of the runs that this run builds on, in order, then its own.

    Runs that no longer exist are left out; empty where the run has no record of its command. So is what stands at the
    path of a run now that builds on this one: of the `builders`, or this run itself.
    """
    builders |= {run.path.resolve()}
    words = run.read_json(run.environment).get("command") if run.environment.is_file() else None
    if words is None:
        return []
    recipe, found = run.read_recipe(), []
    for named in (recipe.transfer.pretrained, recipe.train.distill.run):
        origin = RunDir(Path(named))
        known = not named or origin.path.resolve() in builders or not origin.recipe.is_file()
        if not known and (typed := typed_commands(origin, builders)):
            found += [*typed[:-1], f"{typed[-1]} --run {shlex.quote(str(named))}"]
    return list(dict.fromkeys([*found, str(words)]))


def read_run_record(run: RunDir, split: str = "test") -> RunRecord:
    """Read a run.

    Metrics come from `metrics.json` if it is about this split, else from the predictions on this split.

    Raises:
        RunError: there is no run, or one of its files is damaged.
    """
    environment = run.read_json(run.environment) if run.environment.is_file() else {}
    splits = run.read_json(run.split) if run.split.is_file() else {}
    predictions = run.read_predictions(split) if run.predictions(split).is_file() else None
    metrics = run.read_json(run.metrics) if run.metrics.is_file() else None
    record = RunRecord(
        run=run,
        split=split,
        recipe=run.read_recipe(),
        history=[_finite(row) for row in run.read_history()],
        environment=environment,
        splits=splits,
        metrics=None,
        predictions=predictions,
        files=_evaluator_files(run, split),
        out_of_sample=_out_of_sample(run, split, predictions, splits),
    )
    if metrics is not None and metrics.get("split") != split:
        metrics = None
    if metrics is None and predictions is not None:
        metrics = compute_metrics(
            predictions,
            dataset=record.dataset,
            split=split,
            superclasses=record.superclasses or None,
            test_evaluations=int(splits.get("test_evaluations") or 0),
        )
    return replace(record, metrics=metrics)


def without_folder(spec: str) -> str:
    """The name of a data set without the folder that it lies in: `pets?label=breed` of `/home/me/pets?label=breed`."""
    place, mark, options = spec.partition("?")
    return spec if place.startswith("hf:") else f"{PurePath(place).name or place}{mark}{options}"


def for_others(record: RunRecord) -> RunRecord:
    """The record for readers on other machines: its recipe, data, files and choices name no folders of this one.

    Of runs and files that these name, the last part of the path is kept; the plan of fixes is left out. `remarks` are
    sentences about what the recipe therefore lacks.
    """
    if record.passed_on:
        return record
    values = record.recipe.model_dump(mode="json", exclude_none=True)
    given = {key: str(value) for key, value in flatten(values).items() if key in (*_BUILT_ON, _PLAN) and value}
    local = [key for key in _BUILT_ON if key in given and (key != _BUILT_ON[0] or _is_place(given[key]))]
    changes = {key: PurePath(given[key]).name for key in local} | ({_PLAN: ""} if _PLAN in given else {})
    remarks = []
    if local:
        settings = " and ".join(f"{key} ({changes[key]})" for key in local)
        remarks.append(f"The recipe only names what this run was built on: set {settings} to your own copy.")
    if _PLAN in given:
        remarks.append(f"The plan of fixes that was applied to the data ({_PLAN}) is not part of the recipe.")
    recipe = Recipe.model_validate(with_overrides(values, changes)) if changes else record.recipe
    named = [given[key] for key in (*local, _PLAN) if key in given]
    return replace(
        record,
        recipe=recipe,
        environment=_without_places(record, named),
        predictions=None if record.predictions is None else _without_root(record.predictions),
        out_of_sample={split: _without_root(found) for split, found in record.out_of_sample.items()},
        passed_on=True,
        remarks=tuple(remarks),
    )


def without_files(record: RunRecord) -> RunRecord:
    """The record without the names of the data's files: images are named by their rows, notes on the data left out."""
    predictions = None if record.predictions is None else replace(record.predictions, files=None)
    out_of_sample = {split: replace(found, files=None) for split, found in record.out_of_sample.items()}
    environment = record.environment | ({"data": record.data | {"skipped": []}} if record.data else {})
    return replace(record, predictions=predictions, out_of_sample=out_of_sample, environment=environment)


def _without_root(found: Predictions) -> Predictions:
    """Predictions whose files with an absolute path are named from the folder that all of these are in."""
    paths = [_absolute(name) for name in found.files or ()]
    folders = zip(*(path.parts[:-1] for path in paths if path is not None), strict=False)
    root = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, folders))
    files = [
        name if path is None else "/".join(path.parts[root:] if root > 1 else path.parts[-1:])
        for name, path in zip(found.files or (), paths, strict=True)
    ]
    return replace(found, files=tuple(files)) if any(paths) else found


def _absolute(name: str) -> PurePath | None:
    """The file as an absolute path of any system; None where it is a relative one."""
    return next((path for path in (PurePosixPath(name), PureWindowsPath(name)) if path.is_absolute()), None)


def _without_places(record: RunRecord, named: Iterable[str]) -> dict[str, Any]:
    """What pages show of `environment.json`, without the folders of the data, of members and of what `named` names."""
    environment, members = dict(record.environment), record.environment.get("members") or ()
    shown: dict[str, str] = {}
    for place in (*named, *(str(member["run"]) for member in members)):
        shown |= {form: PurePath(place).name for form in (place, str(expand_home(place)))}
    for key in ("path", "spec"):
        place = str(record.data.get(key) or "").partition("?")[0].rstrip("/")
        if "/" in place and not place.startswith("hf:"):
            shown |= {f"{place}/": "", place: PurePath(place).name}

    def cleared(text: object) -> str:
        found = str(text)
        for place in sorted(shown, key=len, reverse=True):
            found = found.replace(place, shown[place])
        return found

    if choices := environment.get("choices"):
        environment["choices"] = [{key: cleared(value) for key, value in choice.items()} for choice in choices]
    if notes := record.data.get("skipped"):
        environment["data"] = record.data | {"skipped": [cleared(note) for note in notes]}
    if members:
        environment["members"] = [member | {"run": cleared(member["run"])} for member in members]
        environment["command"] = cleared(_without_data_root(str(environment.get("command") or "")))
    return environment


def _without_data_root(command: str) -> str:
    """The command of a combination of runs, without the folder of known data sets."""
    words = shlex.split(command)
    if _DATA_ROOT in words:
        place = words.index(_DATA_ROOT)
        del words[place : place + 2]
    return shlex.join(words)


def _is_place(pretrained: str) -> bool:
    """Whether pretrained weights are a run or a file, rather than known by their name."""
    path = Path(pretrained)
    return path.name != pretrained or path.suffix == ".safetensors" or path.is_dir()


def _out_of_sample(
    run: RunDir, split: str, predictions: Predictions | None, splits: Mapping[str, Any]
) -> dict[str, Predictions]:
    """Predictions on this split; with test also those on validation if it was not trained on."""
    found = {} if predictions is None else {split: predictions}
    if split == "test" and splits.get("train_on") != "all" and run.predictions("val").is_file():
        found["val"] = run.read_predictions("val")
    return found


def _evaluator_files(run: RunDir, split: str) -> dict[str, dict[str, Any]]:
    """The files of evaluators that do not store their results in `metrics.json`, by key."""
    paths = {one.key: run.evaluation_on(one.key, split) for one in evaluators() if one.store == "file"}
    return {key: run.read_json(path) for key, path in paths.items() if path.is_file()}


def _finite(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if math.isfinite(value)}
