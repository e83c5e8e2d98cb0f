"""Tune a recipe: train trials with sampled settings, compare them on validation, and write the best recipe."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from thirtytwo.arguments import check_text, given_path, optional_path, optional_source
from thirtytwo.config.recipe import TUNED, Precision, Recipe
from thirtytwo.config.recipe import Monitor as Metric
from thirtytwo.config.resolve import read_recipe, read_recipe_values
from thirtytwo.data.load import spec_of
from thirtytwo.errors import RecipeError, RunError, UnknownNameError, check_least, did_you_mean
from thirtytwo.io import write_text
from thirtytwo.report.tuning import Trial, Tuning, write_trials, write_tuning_figures
from thirtytwo.run_paths import default_path
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import preserve_torch_state
from thirtytwo.text import counted
from thirtytwo.workflows.choose import choose_recipe
from thirtytwo.workflows.prepare import Plan, prepare
from thirtytwo.workflows.records import progress_logger
from thirtytwo.workflows.search_space import Space, default_space, label, parse_space, read_space
from thirtytwo.workflows.study import (
    TuningRequest,
    base_recipe,
    check_study,
    close,
    create_study,
    open_study,
    quiet_optuna,
)
from thirtytwo.workflows.train import with_settings
from thirtytwo.workflows.trial import Tuner, run_trial

if TYPE_CHECKING:
    import optuna

Pruner = Literal["median", "asha", "hyperband", "none"]
Search: TypeAlias = Callable[[Tuner, Recipe, int], None]
"""Trains a number of trials, asks for each with `ask`, and calls `write_results` after each."""
THREADS = "threads"
"""Attribute of the study: the number of CPU threads of the last session."""
TRIES = "tries"
"""Attribute of a trial: how often its settings were tried, with those that did not end."""
MOST_TRIES = 3
STARTUP = 3
"""Completed trials before the median pruner prunes any."""
ASHA_FACTOR = 3
"""One of this many trials is continued at each step of successive halving."""
IMPORTANCE_TRIALS = 4
"""Minimum number of completed trials to estimate the importance of keys."""


@dataclass(frozen=True)
class Tuned:
    """A finished tuning: its directory, the tuned metric, all trials, the best one, and its recipe file."""

    path: Path
    metric: str
    trials: tuple[Trial, ...]
    best: Trial
    recipe: Path


@preserve_torch_state()
def tune(
    data: str | Path,
    *,
    recipe: str | Path | None = None,
    trials: int = 20,
    metric: Metric | None = None,
    space: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    resume: bool = False,
    limit_train: int | None = None,
    pruner: Pruner | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
    search: Search | None = None,
) -> Tuned:
    """Train `trials` times with settings sampled from `space`, and write the best recipe to `best.toml`.

    The recipe itself is the first trial where the space contains it. Settings are sampled by a tree-structured Parzen
    estimator (Bergstra et al., NeurIPS 2011). Trials are compared on validation only; test is never used.

    Args:
        data: the data, as in `train`.
        recipe: name of a recipe, or path of a recipe file; chosen by the data by default, and the earlier one with
            `resume`.
        trials: number of trials to train, at least 1; with `resume` in addition to the earlier ones.
        metric: validation metric to optimize; `val_accuracy` by default.
        space: path of a TOML file, or a mapping from dotted recipe keys to a range or choices; by default learning
            rates, weight decay, label smoothing and augmentation around the recipe.
        overrides: values that replace those of the recipe, by dotted key.
        run: the directory to create, or to continue with `resume`; a new one under `runs/` by default.
        seed: seed of the sampler and of every trial; the recipe's by default.
        epochs: number of epochs of every trial, at least 1; the recipe's by default.
        resume: add trials to those in `run`, with the arguments of the first call.
        limit_train: use at most this many training images; all by default.
        pruner: when to stop weak trials early: `median` (default), `asha`, `hyperband` or `none`.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.
        search: how trials are trained; one after the other in this process by default.

    Returns:
        The directory, all trials, the best one, and the path of its recipe.

    Raises:
        ThirtytwoError: invalid input, or no trial was completed.
        KeyboardInterrupt: interrupted; finished trials are kept, and `resume` adds more.
    """
    data = spec_of(data)
    _check_arguments(trials, metric, pruner)
    check_least("limit_train", limit_train)
    named = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train}
    recipe, root = optional_source("recipe", recipe), optional_path("data_root", data_root)
    run, searched = optional_path("run", run), _read_space(space)
    changes = with_settings(overrides, named)
    source = recipe if recipe is not None or resume else choose_recipe(data, changes, root).value
    call = _Call(
        data,
        source,
        read_recipe_values(source) if source is not None else None,
        changes,
        searched,
        metric,
        pruner,
        device,
        root,
        show,
    )
    with ExitStack() as stack:
        stack.enter_context(quiet_optuna())
        tuner, plan = _resume(call, run, stack) if resume else _start(call, run, stack)
        _log_start(tuner, plan, trials)
        try:
            _ask_again_for_interrupted(tuner)
            (search or _search_here)(tuner, plan.recipe, trials)
            return _finish(tuner, len(plan.parts.val) if plan.parts.val is not None else 0)
        except KeyboardInterrupt:
            write_results(tuner)
            _log_resume_command(tuner)
            raise


@dataclass(frozen=True)
class _Call:
    """The arguments of a call of `tune`; what was not given is None."""

    data: str
    recipe: str | Path | None
    values: dict[str, Any] | None
    """The tables of the recipe."""
    changes: dict[str, Any]
    """Values that replace those of the recipe, by dotted key."""
    space: Space | None
    metric: str | None
    pruner: str | None
    device: str
    data_root: Path | None
    show: bool

    def tuner(self, path: Path, request: TuningRequest, space: Space, study: optuna.Study, recipe: Recipe) -> Tuner:
        log = progress_logger(self.show)
        precision = recipe.train.precision
        return Tuner(path, request, space, study, self.device, self.data_root, self.show, log, precision)


def _read_space(space: str | Path | Mapping[str, Any] | None) -> Space | None:
    if space is None:
        return None
    return parse_space(space) if isinstance(space, Mapping) else read_space(given_path("space", space))


def _start(call: _Call, run: Path | str | None, stack: ExitStack) -> tuple[Tuner, Plan]:
    """Create a tuning directory and a study, with the recipe itself as the first trial; locked until `stack` ends.

    Raises:
        RecipeError: the recipe has no validation images.
        RunError: `run` is not empty, or in use.
    """
    assert call.recipe is not None  # only `_resume` needs none
    assert call.values is not None
    if run is not None:
        RunDir.refuse_used(given_path("run", run))
    plan = prepare(call.data, call.recipe, call.changes, call.device, call.data_root)
    _check_has_validation(plan)
    space = call.space or default_space(plan.recipe)
    request = TuningRequest(
        call.data,
        plan.dataset.fingerprint,
        call.values,
        call.changes,
        call.metric or "val_accuracy",
        call.pruner or "median",
        space.to_dict(),
    )
    path = stack.enter_context(RunDir.create_locked(run, default_path(call.data, Path(call.recipe).stem, "tuned"))).path
    first = space.parameters_of(plan.recipe)
    study = create_study(path, request, {THREADS: plan.hardware.threads}, first)
    stack.callback(close, study)
    write_text(path / "space.toml", space.to_toml())
    tuner = call.tuner(path, request, space, study, plan.recipe)
    if first is None:
        tuner.log("the recipe itself is outside the space, so it is not a trial")
    return tuner, plan


def _resume(call: _Call, run: Path | str | None, stack: ExitStack) -> tuple[Tuner, Plan]:
    """Open the tuning in `run` to add trials; locked until `stack` ends.

    Raises:
        RunError: there is none, the arguments or the data differ from those of the first call, or it is in use.
    """
    if run is None:
        raise RunError("The tuning to resume was not given.", "Name its directory with --run.")
    path = given_path("run", run)
    check_study(path)
    stack.enter_context(RunDir(path).writing())
    study, request = open_study(path)
    stack.callback(close, study)
    request.check_same(path, call.data, call.values, call.changes, call.metric, call.pruner, call.space)
    plan = prepare(call.data, base_recipe(path), request.changes, call.device, call.data_root, _earlier_precision(path))
    request.check_data(path, plan.dataset.fingerprint)
    tuner = call.tuner(path, request, parse_space(request.space), study, plan.recipe)
    _warn_about_threads(tuner, plan)
    return tuner, plan


def _warn_about_threads(tuner: Tuner, plan: Plan) -> None:
    """Log that this session uses another number of CPU threads than the one before, and record it."""
    before, now = tuner.study.user_attrs.get(THREADS), plan.hardware.threads
    if before is not None and before != now:
        tuner.log(
            f"warning: trials can differ from those of uninterrupted tuning: CPU threads (was {before}, now {now}); "
            f"to continue with as many, set OMP_NUM_THREADS={before}"
        )
    tuner.study.set_user_attr(THREADS, now)


def _log_resume_command(tuner: Tuner) -> None:
    words = ["thirtytwo", "tune", tuner.request.data, "--resume", "--run", str(tuner.path)]
    words += ["--data-root", str(tuner.data_root)] if tuner.data_root is not None else []
    done = len(_tuning(tuner).done)
    tuner.log(f"interrupted; {done} completed trials are kept. Resume with: {shlex.join(words)}")


def _earlier_precision(path: Path) -> Precision | None:
    """The precision of earlier trials, if there are any."""
    recipes = sorted((path / "trials").glob("*/recipe.toml"))
    return read_recipe(recipes[0]).train.precision if recipes else None


def _check_arguments(trials: int, metric: str | None, pruner: str | None) -> None:
    check_least("trials", trials, optional=False)
    for what, name, known in (("metric", metric, get_args(Metric)), ("pruner", pruner, get_args(Pruner))):
        check_text(what, name, optional=True)
        if name is not None and name not in known:
            raise UnknownNameError(f"Unknown {what} {name!r}.", did_you_mean(name, known))


def _check_has_validation(plan: Plan) -> None:
    if plan.parts.val is None:
        raise RecipeError(
            "Tuning compares trials on validation, and this recipe has no validation images.",
            'Set data.val_fraction above 0, and data.train_on = "train".',
        )


def _log_start(tuner: Tuner, plan: Plan, trials: int) -> None:
    held = len(plan.parts.val) if plan.parts.val is not None else 0
    before = len(_started_trials(tuner.study))
    tuner.log(
        f"{plan.dataset.name}: {len(plan.parts.train):,} images for training; trials are compared by "
        f"{tuner.request.metric} on {held:,} validation images; test is not used"
    )
    planned = f"{counted(trials, 'trial')}{f' after {before}' if before else ''}"
    tuner.log(f"{planned} over {', '.join(tuner.space.axes)}; {tuner.path}")
    if "schedule.epochs" in tuner.space.axes and tuner.request.pruner != "none":
        tuner.log("pruning is off: trials with different numbers of epochs cannot be compared before they end")


def _ask_again_for_interrupted(tuner: Tuner) -> None:
    """Queue the settings of trials that were interrupted; not those which ended the process each time."""
    import optuna

    keys = tuner.space.axes.keys()
    for stale in tuner.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        tuner.study.tell(stale.number, state=optuna.trial.TrialState.FAIL)
        tries = int(stale.user_attrs.get(TRIES, 1))
        if stale.params.keys() == keys and tries < MOST_TRIES:
            tuner.study.enqueue_trial(stale.params, user_attrs={TRIES: tries + 1})
        elif tries >= MOST_TRIES:
            tuner.log(f"trial {stale.number} did not end {tries} times: its settings are not tried again")


def ask(tuner: Tuner, recipe: Recipe) -> optuna.Trial:
    """A new trial of the study with sampled settings."""
    import optuna

    # One seed for each trial, so that resumed tuning samples the same settings as uninterrupted tuning.
    sampler_seed = np.random.SeedSequence([recipe.seed, len(_started_trials(tuner.study))]).generate_state(1)
    tuner.study.sampler = optuna.samplers.TPESampler(seed=int(sampler_seed[0]))
    return tuner.study.ask(tuner.space.distributions())


def _search_here(tuner: Tuner, recipe: Recipe, trials: int) -> None:
    """Train trials in this process, one after the other."""
    tuner.study.pruner = _pruner(tuner, recipe.schedule.epochs)
    for _ in range(trials):
        run_trial(tuner, ask(tuner, recipe))
        write_results(tuner)


def is_pruned(tuner: Tuner) -> bool:
    """Whether weak trials are stopped early; not where trials differ in their numbers of epochs."""
    return tuner.request.pruner != "none" and "schedule.epochs" not in tuner.space.axes


def _pruner(tuner: Tuner, epochs: int) -> Any:
    import optuna

    if not is_pruned(tuner):
        return optuna.pruners.NopPruner()
    if tuner.request.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=ASHA_FACTOR)
    if tuner.request.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP)


def _started_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Every trial that was started."""
    from optuna.trial import TrialState

    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]


def _tuning(tuner: Tuner, importance: Mapping[str, float] | None = None) -> Tuning:
    trials = []
    for trial in _started_trials(tuner.study):
        attributes = trial.user_attrs
        metrics = attributes.get("figures", {})
        trials.append(
            Trial(
                trial.number,
                attributes.get("outcome", "stopped"),
                trial.params,
                metrics,
                metrics.get(tuner.request.metric),
                int(attributes.get("epochs", 0)),
                float(attributes.get("seconds", 0.0)),
                attributes.get("reason", ""),
            )
        )
    logarithmic = frozenset(key for key, axis in tuner.space.axes.items() if axis.log)
    choices = {
        key: [label(choice) for choice in axis.choices]
        for key, axis in tuner.space.axes.items()
        if axis.choices is not None
    }
    return Tuning(tuner.request.metric, trials, tuple(tuner.space.axes), importance or {}, logarithmic, choices)


def write_results(tuner: Tuner) -> None:
    """Write the table of trials and the best recipe so far."""
    tuning = _tuning(tuner)
    write_trials(tuner.path / "trials.csv", tuning)
    best = tuning.best
    if best is None:
        return
    recipe = read_recipe(tuner.path / "trials" / f"{best.number:04d}" / "recipe.toml")
    request = tuner.request
    head = (
        f"The best of {len(tuning.trials)} trials by {request.metric}: {best.value:.4f}, trial {best.number}.",
        "The validation metric is an optimistic estimate, because it was used to select this trial.",
        "The test split was not used.",
        f"  thirtytwo train {shlex.quote(request.data)} --recipe {shlex.quote(str(tuner.path / 'best.toml'))}",
    )
    comment = "".join(f"# {line}\n" for line in head)
    name = recipe.name.removesuffix(TUNED) + TUNED
    write_text(tuner.path / "best.toml", comment + recipe.model_copy(update={"name": name}).to_toml())


def _finish(tuner: Tuner, held_out: int) -> Tuned:
    tuning = _tuning(tuner, _importance(tuner))
    write_tuning_figures(tuner.path / "figures", tuning)
    best = tuning.best
    if best is None:
        reason = next((f" First reason: {trial.reason}" for trial in tuning.trials if trial.reason), "")
        raise RunError(
            f"None of {len(tuning.trials)} trials was completed; see {tuner.path / 'trials.csv'}.{reason}",
            "Narrow the space, or add trials with --resume.",
        )
    tuner.log(f"best: trial {best.number}, {tuning.metric} {best.value:.4f} on {held_out:,} validation images")
    return Tuned(tuner.path, tuning.metric, tuple(tuning.trials), best, tuner.path / "best.toml")


def _importance(tuner: Tuner) -> dict[str, float]:
    """Importance of each key by functional ANOVA (Hutter et al., ICML 2014); empty with too few trials."""
    import optuna

    values = {trial.value for trial in _tuning(tuner).done}
    if len(_tuning(tuner).done) < IMPORTANCE_TRIALS or len(values) < 2 or len(tuner.space.axes) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(tuner.study, evaluator=evaluator))
