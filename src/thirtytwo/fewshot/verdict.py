"""A verdict in words on an expected accuracy: how much better than guessing a model is at least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from thirtytwo.text import percent

Word = Literal["weak", "fair", "good"]
FAIR, GOOD = 0.2, 0.6
"""Least skill of a fair and of a good model: where Landis and Koch (1977) let fair and substantial agreement begin for
Cohen's kappa, which has the same form."""


@dataclass(frozen=True)
class Verdict:
    """How good a model is compared with guessing.

    Attributes:
        word: weak, fair or good.
        guess_rate: share of right answers of always guessing the most frequent class, 0 to 1.
        skill: share of the errors of guessing that the model avoids, at the lower end of the interval of its accuracy;
            below 0 if it may be worse than guessing.
    """

    word: Word
    guess_rate: float
    skill: float

    @property
    def sentence(self) -> str:
        """The verdict as a sentence without its full stop: `fair; guessing would be right in 33 %`."""
        return f"{self.word}; {self.guessing}"

    @property
    def guessing(self) -> str:
        """What the model is compared with: `guessing would be right in 33 %`."""
        return f"guessing would be right in {percent(self.guess_rate, 0)}"


def guess_rate(counts: Sequence[int]) -> float:
    """Share of images that are right if the most frequent class is always guessed.

    Args:
        counts: number of images of each class, of which one is above 0.
    """
    return max(counts) / sum(counts)


def assess(accuracy: Mapping[str, Any] | None, counts: Sequence[int]) -> Verdict | None:
    """The verdict on an expected accuracy; None without one.

    The lower end of the interval decides, so the same accuracy from fewer images can be a worse verdict. With the guess
    rate g and the lower end l, the skill is (l − g) / (1 − g): weak below `FAIR`, good from `GOOD` on.

    Args:
        accuracy: `value` and `ci95` as in `metrics.json`, such as `LinearProbe.accuracy`.
        counts: number of images of each class that the accuracy was estimated on.
    """
    if accuracy is None:
        return None
    guessed = guess_rate(counts)
    if guessed == 1:
        return Verdict("weak", guessed, 0.0)
    skill = (float(accuracy["ci95"][0]) - guessed) / (1.0 - guessed)
    return Verdict("good" if skill >= GOOD else "fair" if skill >= FAIR else "weak", guessed, skill)
