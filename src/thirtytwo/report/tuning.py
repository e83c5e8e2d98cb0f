"""Results of tuning, as a table and as figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from thirtytwo.config.recipe import MONITORS
from thirtytwo.errors import require
from thirtytwo.evaluation.metrics import metric_of
from thirtytwo.io import atomic_write
from thirtytwo.report.figures import ACCENT, INK, MUTED, WARM, empty_figure, save_figures
from thirtytwo.text import CsvWriter, abbreviate, percent

METRICS = MONITORS
_MOST_LETTERS = 16
"""Letters of a choice that the slice plot shows."""
COLUMNS = 3
"""Number of panels in a row of the slice plot."""


@dataclass(frozen=True)
class Trial:
    """One trial: its sampled settings (choices as text), its outcome, and its validation metrics.

    `outcome` is `done`, `pruned` (stopped early by the pruner), `diverged`, `failed` (`reason` says why) or `stopped`
    (interrupted). `value` is the tuned metric at the end, or at the epoch of pruning.
    """

    number: int
    outcome: str
    drawn: Mapping[str, Any]
    metrics: Mapping[str, float]
    value: float | None
    epochs: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """All trials, and what their plots need.

    `importance` is the share of the variance of `metric` that each key explains, empty where it was not estimated;
    `choices` holds the choices of keys without a range, in order.
    """

    metric: str
    trials: Sequence[Trial]
    keys: Sequence[str]
    importance: Mapping[str, float] = field(default_factory=dict)
    logarithmic: frozenset[str] = frozenset()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def metric_name(self) -> str:
        """The displayed name of the tuned metric: `validation accuracy`."""
        name = metric_of(self.metric).name
        return f"validation {name[0].lower()}{name[1:]}"

    @property
    def done(self) -> list[Trial]:
        """Completed trials."""
        return [trial for trial in self.trials if trial.outcome == "done" and trial.value is not None]

    @property
    def best(self) -> Trial | None:
        """The best completed trial; the earlier one of equals."""
        return min(self.done, key=lambda trial: (self._cost(trial), trial.number), default=None)

    @property
    def ranked(self) -> list[Trial]:
        """Completed trials, best first, then the others in order."""
        done = sorted(self.done, key=lambda trial: (self._cost(trial), trial.number))
        return done + [trial for trial in self.trials if trial not in done]

    def _cost(self, trial: Trial) -> float:
        assert trial.value is not None
        return trial.value if metric_of(self.metric).lower_is_better else -trial.value


def write_trials(path: Path, tuning: Tuning) -> None:
    """Write `trials.csv`: one row per trial; missing values are empty."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(["trial", "outcome", *METRICS, "epochs", "seconds", *tuning.keys, "reason"])
        for trial in tuning.trials:
            metrics = [trial.metrics.get(name, "") for name in METRICS]
            sampled = [trial.drawn.get(key, "") for key in tuning.keys]
            seconds = f"{trial.seconds:.1f}"
            writer.writerow([trial.number, trial.outcome, *metrics, trial.epochs, seconds, *sampled, trial.reason])


def write_tuning_figures(directory: Path, tuning: Tuning) -> list[Path]:
    """Write the plots `history`, `importance` and `slices` where there is data for them; returns the written paths."""
    kinds: list[tuple[str, Callable[[Tuning], Any]]] = []
    if tuning.done:
        kinds += [("history", draw_history), ("slices", draw_slices)]
    if tuning.importance:
        kinds.append(("importance", draw_importance))
    texts = [choice for choices in tuning.choices.values() for choice in choices]
    return save_figures(directory, [(name, partial(draw, tuning)) for name, draw in kinds], texts)


def draw_history(tuning: Tuning) -> Any:
    """Plot the metric of every trial in order, and the best so far."""
    figure = empty_figure(7.0, 3.4)
    axes = figure.add_subplot()
    pruned = [trial for trial in tuning.trials if trial.outcome == "pruned" and trial.value is not None]
    for trials, marker, color, name in (
        (tuning.done, "o", ACCENT, "completed"),
        (pruned, "x", MUTED, "pruned (last value)"),
    ):
        if trials:
            numbers, values = [trial.number for trial in trials], [trial.value for trial in trials]
            axes.plot(numbers, values, marker, color=color, markersize=5, label=name)
    choose: Callable[[list[float]], float] = min if metric_of(tuning.metric).lower_is_better else max
    reached = [trial.value for trial in tuning.done if trial.value is not None]
    best = [choose(reached[: end + 1]) for end in range(len(reached))]
    numbers = [trial.number for trial in tuning.done]
    last = max(trial.number for trial in tuning.trials)
    axes.step(
        [*numbers, last], [*best, best[-1]], where="post", color=WARM, linewidth=1.2, zorder=1, label="best so far"
    )
    axes.set_title(f"Trials: {tuning.metric_name}")
    axes.set_xlabel("trial")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    return figure


def draw_importance(tuning: Tuning) -> Any:
    """Plot the share of the variance that each key explains, largest on top."""
    rows = sorted(tuning.importance.items(), key=lambda row: row[1])
    figure = empty_figure(7.0, 1.2 + 0.3 * len(rows))
    axes = figure.add_subplot()
    axes.barh(range(len(rows)), [part for _, part in rows], color=ACCENT, height=0.65)
    axes.set_yticks(range(len(rows)), [key for key, _ in rows], color=INK)
    for place, (_, part) in enumerate(rows):
        axes.text(part, place, f" {percent(part, 0)}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"share of the variance of {tuning.metric_name}")
    axes.set_title(f"Importance of keys, from {len(tuning.done)} trials")
    return figure


def draw_slices(tuning: Tuning) -> Any:
    """Plot the metric against each key, one panel per key, with the best trial marked."""
    ticker = require("matplotlib.ticker", "train")
    rows = math.ceil(len(tuning.keys) / COLUMNS)
    columns = min(COLUMNS, len(tuning.keys))
    figure = empty_figure(3.0 * columns + 0.6, 2.6 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    best = tuning.best
    for place, axes in enumerate(panels.flat):
        if place >= len(tuning.keys):
            axes.set_axis_off()
            continue
        key = tuning.keys[place]
        done = [trial for trial in tuning.done if key in trial.drawn]
        choices = tuning.choices.get(key, ())
        labels = dict(zip(choices, abbreviate(choices, _MOST_LETTERS), strict=True))
        if labels:
            axes.xaxis.update_units(list(labels.values()))
        drawn = [labels.get(trial.drawn[key], trial.drawn[key]) for trial in done]
        axes.plot(drawn, [trial.value for trial in done], "o", color=ACCENT, markersize=4)
        if best is not None and key in best.drawn:
            where = labels.get(best.drawn[key], best.drawn[key])
            axes.plot([where], [best.value], "o", color=WARM, markersize=7, fillstyle="none")
        if key in tuning.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
            axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(ticker.NullLocator())
            axes.tick_params(axis="x", labelsize=7)
        axes.set_xlabel(key)
        if place % columns == 0:
            axes.set_ylabel(tuning.metric_name)
    return figure
