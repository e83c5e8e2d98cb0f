"""Tuning: many short trainings with other settings, judged on validation alone, and the best recipe as a file."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import tomli_w
import torch

from thirtytwo.config.recipe import TUNED, Precision, Recipe, read_recipe, read_recipe_values
from thirtytwo.config.recipe import Monitor as Metric
from thirtytwo.errors import DivergedError, RecipeError, RunError, ThirtytwoError, UnknownNameError, did_you_mean
from thirtytwo.io import write_text
from thirtytwo.report.tuning import FIGURES, Trial, Tuning, write_trials, write_tuning_figures
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.training.hardware import preserved
from thirtytwo.workflows.finish import Plan
from thirtytwo.workflows.records import slug, teller
from thirtytwo.workflows.search_space import Space, default_space, label, parse_space, read_space
from thirtytwo.workflows.study import Asked, begin_study, check_there, close, open_study, quiet_optuna
from thirtytwo.workflows.train import settle

if TYPE_CHECKING:
    import optuna

Pruner = Literal["median", "hyperband", "none"]
STARTUP = 3
"""Trials trained to their end before the median of trials prunes any."""
IMPORTANCE_TRIALS = 4
"""The fewest trials from which keys are weighed."""


@dataclass(frozen=True)
class Tuned:
    """Where tuning lies, what it tuned, every trial of it, the best one, and the recipe file of that."""

    path: Path
    metric: str
    trials: tuple[Trial, ...]
    best: Trial
    recipe: Path


@dataclass(frozen=True)
class _Tuner:
    """What every trial needs."""

    path: Path
    asked: Asked
    space: Space
    study: optuna.Study
    device: str
    data_root: Path | None
    show: bool
    say: Callable[[str], None]
    precision: Precision
    """That of every trial, unless it is searched."""

    @property
    def base(self) -> Path:
        return self.path / "base.toml"


@preserved()
def tune(
    data: str,
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
) -> Tuned:
    """Train `trials` times with settings drawn from `space`, and write the best recipe by `metric` to `best.toml`.

    The recipe as it is comes first, where it lies in the space. Settings are drawn by a tree-structured Parzen
    estimator (Bergstra et al., NeurIPS 2011); trials that fall behind are pruned after an epoch. Only validation is
    looked at, never test. `resume` adds trials to those in `run`, as tuning was called at first. Other arguments are as
    in `train`.

    Raises:
        ThirtytwoError: anything the user can mend; or no trial could be trained to its end.
        KeyboardInterrupt: stopped by hand; finished trials are kept, and `resume` adds more.
    """
    _check(trials, metric, pruner)
    say, root = teller(show), Path(data_root) if data_root is not None else None
    named = {"seed": seed, "schedule.epochs": epochs, "data.limit_train": limit_train}
    changes = dict(overrides or {}) | {key: value for key, value in named.items() if value is not None}
    source = recipe if recipe is not None or resume else "fast"
    values = read_recipe_values(source) if source is not None else None
    wanted = read_space(space) if isinstance(space, (str, Path)) else parse_space(space) if space is not None else None
    with ExitStack() as held:
        held.enter_context(quiet_optuna())
        if resume:
            if run is None:
                raise RunError("Which tuning is to be resumed is not said.", "Name its directory with --run.")
            path = Path(run)
            check_there(path)
            held.enter_context(RunDir(path).writing())
            study, asked = open_study(path)
            asked.check_same(path, data, values, changes, metric, pruner, wanted)
            plan = settle(data, path / "base.toml", asked.changes, device, root, _precision_before(path))
            asked.check_data(path, plan.dataset.fingerprint)
            wanted = parse_space(asked.space)
        else:
            assert source is not None
            assert values is not None
            if run is not None:
                RunDir.refuse_used(Path(run))
            plan = settle(data, source, changes, device, root)
            _check_validated(plan)
            wanted = wanted or default_space(plan.recipe)
            asked = Asked(
                data,
                plan.dataset.fingerprint,
                values,
                changes,
                metric or "val_accuracy",
                pruner or "median",
                wanted.to_dict(),
            )
            path = held.enter_context(RunDir.begun(run, _default_path(data, source))).path
            write_text(path / "base.toml", tomli_w.dumps(values))
            write_text(path / "space.toml", wanted.to_toml())
            study = begin_study(path, asked)
            own = wanted.drawn(plan.recipe)
            if own is not None:
                study.enqueue_trial(own)
            else:
                say("the recipe itself lies outside the space, so it is no trial")
        tuner = _Tuner(path, asked, wanted, study, device, root, show, say, plan.recipe.train.precision)
        _tell_start(tuner, plan, trials)
        try:
            _search(tuner, plan.recipe, trials)
            return _ended(tuner, len(plan.parts.val) if plan.parts.val is not None else 0)
        except KeyboardInterrupt:
            _write(tuner)
            words = ["thirtytwo", "tune", data, "--resume", "--run", str(path)]
            words += ["--data-root", str(data_root)] if data_root is not None else []
            say(f"stopped; {len(_tuning(tuner).done)} finished trials are kept. Go on with: {shlex.join(words)}")
            raise
        finally:
            close(study)


def _precision_before(path: Path) -> Precision | None:
    """The precision of the trials there are."""
    recipes = sorted((path / "trials").glob("*/recipe.toml"))
    return read_recipe(recipes[0]).train.precision if recipes else None


def _check(trials: int, metric: str | None, pruner: str | None) -> None:
    if trials < 1:
        raise RecipeError(f"There must be at least 1 trial; found {trials}.")
    for what, name, known in (("metric", metric, get_args(Metric)), ("pruner", pruner, get_args(Pruner))):
        if name is not None and name not in known:
            raise UnknownNameError(f"Unknown {what} {name!r}.", did_you_mean(name, known))


def _check_validated(plan: Plan) -> None:
    if plan.parts.val is None:
        raise RecipeError(
            "Tuning compares trials on validation, and this recipe holds nothing out.",
            'Set data.val_fraction above 0, and data.train_on = "train".',
        )


def _tell_start(tuner: _Tuner, plan: Plan, trials: int) -> None:
    held = len(plan.parts.val) if plan.parts.val is not None else 0
    before = len(_taken(tuner.study))
    tuner.say(
        f"{plan.dataset.name}: {len(plan.parts.train):,} pictures to train on; trials are compared by "
        f"{tuner.asked.metric} on {held:,} others; test is not looked at"
    )
    tuner.say(f"{trials} trials{f' after {before}' if before else ''} over {', '.join(tuner.space.axes)}; {tuner.path}")
    if "schedule.epochs" in tuner.space.axes and tuner.asked.pruner != "none":
        tuner.say("nothing is pruned: trials of unlike length cannot be compared on the way")


def _search(tuner: _Tuner, recipe: Recipe, trials: int) -> None:
    import optuna

    distributions = tuner.space.distributions()
    tuner.study.pruner = _pruner(tuner, recipe.schedule.epochs)
    for stale in tuner.study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        tuner.study.tell(stale.number, state=optuna.trial.TrialState.FAIL)
        if stale.params.keys() == distributions.keys():
            tuner.study.enqueue_trial(stale.params)
    for _ in range(trials):
        # A seed of its own for each trial, so that resumed tuning draws what uninterrupted tuning would.
        drawn_from = np.random.SeedSequence([recipe.seed, len(_taken(tuner.study))]).generate_state(1)
        tuner.study.sampler = optuna.samplers.TPESampler(seed=int(drawn_from[0]))
        trial = tuner.study.ask(distributions)
        _try(tuner, trial)
        _write(tuner)


def _pruner(tuner: _Tuner, epochs: int) -> Any:
    import optuna

    if tuner.asked.pruner == "none" or "schedule.epochs" in tuner.space.axes:
        return optuna.pruners.NopPruner()
    if tuner.asked.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP)


def _try(tuner: _Tuner, trial: optuna.Trial) -> None:
    """Train once with what was drawn, and tell the study what came of it."""
    from optuna.trial import TrialState

    metric, clock = tuner.asked.metric, time.perf_counter()
    directory = RunDir(tuner.path / "trials" / f"{trial.number:04d}")
    shutil.rmtree(directory.path, ignore_errors=True)
    rows: list[Mapping[str, float]] = []
    pruned = False

    def enough(row: Mapping[str, float]) -> bool:
        nonlocal pruned
        rows.append(dict(row))
        if not math.isfinite(row.get(metric, math.nan)):
            return False
        trial.report(row[metric], int(row["epoch"]))
        pruned = trial.should_prune() and row["epoch"] < plan.recipe.schedule.epochs
        return pruned

    outcome, reason, keep = "done", "", None
    try:
        changes = {**tuner.asked.changes, **tuner.space.values(trial.params)}
        plan = settle(tuner.asked.data, tuner.base, changes, tuner.device, tuner.data_root, tuner.precision)
        keep = plan.recipe
        directory.path.mkdir(parents=True, exist_ok=True)
        directory.write_recipe(plan.recipe, f"Trial {trial.number}.")
        fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, show=tuner.show, enough=enough)
    except DivergedError as error:
        outcome, reason = "diverged", error.message
    except ThirtytwoError as error:
        outcome, reason = "failed", str(error)
    except torch.OutOfMemoryError:
        outcome, reason = "failed", "The device ran out of memory."
    finally:
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
    figures = _figures(rows, keep) if keep is not None else {}
    value = figures.get(metric, math.nan)
    if outcome == "done" and not math.isfinite(value):
        outcome, reason = "diverged", f"{metric} is {value}."
    outcome = "pruned" if outcome == "done" and pruned else outcome
    seconds = time.perf_counter() - clock
    told = {"outcome": outcome, "reason": reason, "figures": figures, "epochs": len(rows), "seconds": seconds}
    for name, what in told.items():
        trial.set_user_attr(name, what)
    if outcome == "done":
        tuner.study.tell(trial, value)
    else:
        tuner.study.tell(trial, state=TrialState.FAIL if outcome == "failed" else TrialState.PRUNED)
    shown = f"{metric} {value:.4f}" if math.isfinite(value) else reason
    settings = ", ".join(f"{key} {_short(drawn)}" for key, drawn in trial.params.items())
    tuner.say(f"trial {trial.number} {outcome}: {shown} ({settings})")


def _figures(rows: list[Mapping[str, float]], recipe: Recipe) -> dict[str, float]:
    """The validation figures of the weights that this training would have kept."""
    seen = [row for row in rows if "val_loss" in row]
    if not seen:
        return {}
    row = seen[-1]
    if recipe.train.keep == "best":
        monitor = recipe.train.monitor
        row = min(seen, key=lambda row: row[monitor] if monitor == "val_loss" else -row[monitor])
    return {name: float(row[name]) for name in FIGURES if name in row and math.isfinite(row[name])}


def _taken(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Every trial that was begun."""
    from optuna.trial import TrialState

    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]


def _tuning(tuner: _Tuner, importance: Mapping[str, float] | None = None) -> Tuning:
    trials = []
    for trial in _taken(tuner.study):
        told = trial.user_attrs
        figures = told.get("figures", {})
        trials.append(
            Trial(
                trial.number,
                told.get("outcome", "stopped"),
                trial.params,
                figures,
                figures.get(tuner.asked.metric),
                int(told.get("epochs", 0)),
                float(told.get("seconds", 0.0)),
                told.get("reason", ""),
            )
        )
    logarithmic = frozenset(key for key, axis in tuner.space.axes.items() if axis.log)
    choices = {
        key: [label(choice) for choice in axis.choices]
        for key, axis in tuner.space.axes.items()
        if axis.choices is not None
    }
    return Tuning(tuner.asked.metric, trials, tuple(tuner.space.axes), importance or {}, logarithmic, choices)


def _write(tuner: _Tuner) -> None:
    """Write table and best recipe as they stand."""
    tuning = _tuning(tuner)
    write_trials(tuner.path / "trials.csv", tuning)
    best = tuning.best
    if best is None:
        return
    recipe = read_recipe(tuner.path / "trials" / f"{best.number:04d}" / "recipe.toml")
    asked = tuner.asked
    head = (
        f"The best of {len(tuning.trials)} trials by {asked.metric}: {best.value:.4f}, trial {best.number}.",
        "The best of many flatters itself on the validation pictures that chose it. Test was not looked at.",
        f"  thirtytwo train {shlex.quote(asked.data)} --recipe {shlex.quote(str(tuner.path / 'best.toml'))}",
    )
    comment = "".join(f"# {line}\n" for line in head)
    name = recipe.name.removesuffix(TUNED) + TUNED
    write_text(tuner.path / "best.toml", comment + recipe.model_copy(update={"name": name}).to_toml())


def _ended(tuner: _Tuner, held_out: int) -> Tuned:
    tuning = _tuning(tuner, _importance(tuner))
    write_tuning_figures(tuner.path / "figures", tuning)
    best = tuning.best
    if best is None:
        reason = next((f" The first: {trial.reason}" for trial in tuning.trials if trial.reason), "")
        raise RunError(
            f"None of {len(tuning.trials)} trials was trained to its end; see {tuner.path / 'trials.csv'}.{reason}",
            "Narrow the space, or add trials with --resume.",
        )
    tuner.say(f"best: trial {best.number}, {tuning.metric} {best.value:.4f} on {held_out:,} validation pictures")
    return Tuned(tuner.path, tuning.metric, tuple(tuning.trials), best, tuner.path / "best.toml")


def _importance(tuner: _Tuner) -> dict[str, float]:
    """Each key's part in the variation, by functional ANOVA (Hutter et al., ICML 2014); nothing from few trials."""
    import optuna

    values = {trial.value for trial in _tuning(tuner).done}
    if len(_tuning(tuner).done) < IMPORTANCE_TRIALS or len(values) < 2 or len(tuner.space.axes) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(tuner.study, evaluator=evaluator))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _default_path(data: str, recipe: str | Path) -> Path:
    return Path("runs") / f"{slug(data)}-{slug(Path(recipe).stem)}-tuned"
