"""How far a training is, and how long it will take, from its history and its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from thirtytwo.config.recipe import Recipe
from thirtytwo.text import SPACE, duration

_RECENT = 3
"""Number of epochs whose time the estimate is based on."""


@dataclass(frozen=True)
class Progress:
    """Epochs done and in all; seconds left, or why they are not known yet."""

    done: int
    epochs: int
    left: float | None
    reason: str = ""

    @property
    def share(self) -> float:
        """Share of the epochs that are done, 0 to 1."""
        return min(1.0, self.done / self.epochs)

    @property
    def text(self) -> str:
        """The progress in a sentence."""
        done = f"Epoch {min(self.done + 1, self.epochs)} of {self.epochs}"
        if self.done >= self.epochs:
            finished = "The only epoch is" if self.epochs == 1 else f"All {self.epochs} epochs are"
            return f"{finished} done; evaluating and writing the report."
        if self.left is None:
            return f"{done}. {self.reason}"
        return f"{done}, {_roughly(self.left)} left, then evaluation and report."


def _roughly(seconds: float) -> str:
    """A time in whole minutes, which is as much as an estimate is worth."""
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    return f"about {minutes}{SPACE}min" if minutes < 60 else f"about {duration(60.0 * minutes)}"


def progress_of(history: Sequence[Mapping[str, float]], recipe: Recipe, since: float) -> Progress:
    """The progress of a training.

    Args:
        history: rows of `history.csv`.
        recipe: the run's resolved recipe.
        since: seconds since the last epoch ended.
    """
    epochs, done = recipe.schedule.epochs, len(history)
    head = recipe.head_epochs
    alone = head >= epochs
    if done >= epochs:
        return Progress(done, epochs, 0.0)
    known = [row["seconds"] for row in history if "seconds" in row]
    if not known:
        return Progress(done, epochs, None, "The time left is known after the first epoch.")
    if done <= head < epochs:
        which = "The first epoch trains" if head == 1 else f"The first {head} epochs train"
        reason = f"{which} only the last layer, which is faster; the time left is known after."
        return Progress(done, epochs, None, reason)
    if alone and done < 2 < epochs:
        reason = (
            "The first epoch also computes features that the others use; the time left is known after the second epoch."
        )
        return Progress(done, epochs, None, reason)
    first = max(min(1, done - 1) if alone else head, done - _RECENT)
    work = [recipe.work_done(epoch) for epoch in range(first, done + 1)]
    shares = [end - start for start, end in pairwise(work)]
    whole = median(row["seconds"] / share for row, share in zip(history[first:done], shares, strict=True))
    return Progress(done, epochs, max(0.0, whole * (1 - work[-1]) - since))
