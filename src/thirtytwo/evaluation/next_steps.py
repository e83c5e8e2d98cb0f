"""What to do next with a model: weak classes, main confusions and labels to check, from its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thirtytwo.evaluation.label_issues import find_label_issues, has_several_classes
from thirtytwo.evaluation.metrics import confusion_matrix, confusions, wilson
from thirtytwo.predictions import Predictions
from thirtytwo.text import counted, interval, readable

MAX_CLASSES = MAX_PAIRS = 5
"""Largest numbers of weak classes and of confusions that are named."""
FEW = 20
"""Number of evaluated images of a class below which its recall is hardly known."""
LEAST_CLEAR = 5
"""Number of evaluated images of a class from which it may be called clearly weak: fewer wrong ones can be chance."""


@dataclass(frozen=True)
class WeakClass:
    """A class that is often not recognized.

    Attributes:
        name: the class.
        recognized: number of its images that are predicted as it.
        images: number of its images.
        interval: 95 % interval of its recall (Wilson).
        clear: whether even the upper end of the interval is below the accuracy on all images, and the class has at
            least `LEAST_CLEAR` images.
        instead: the class that its other images are most often predicted as; empty if there are none.
    """

    name: str
    recognized: int
    images: int
    interval: tuple[float, float]
    clear: bool
    instead: str

    @property
    def recall(self) -> float:
        """Share of its images that are predicted as it."""
        return self.recognized / self.images

    @property
    def ends(self) -> str:
        """The interval as text."""
        return interval(self.interval)


@dataclass(frozen=True)
class Confusion:
    """Two classes that are confused: `count` of the `images` images of `true` are predicted as `predicted`."""

    true: str
    predicted: str
    count: int
    images: int


@dataclass(frozen=True)
class SuspectedLabels:
    """Labels of a split that may be wrong: positions in its predictions, lowest label quality first."""

    split: str
    positions: tuple[int, ...]
    images: int


@dataclass(frozen=True)
class NextSteps:
    """What most limits a model.

    Attributes:
        accuracy: accuracy on all images.
        weak: classes with errors, lowest recall first; those that are clearly weak, if there are any.
        confusions: the most frequent confusions.
        labels: labels that may be wrong by split; None: not looked for.
        few: classes evaluated on fewer than `FEW` images, with that number, fewest first; only where there are errors.
        thin: number of evaluated images, where a class has fewer than `FEW` of them; else 0.
    """

    accuracy: float
    weak: tuple[WeakClass, ...]
    confusions: tuple[Confusion, ...]
    labels: tuple[SuspectedLabels, ...] | None
    few: tuple[tuple[str, int], ...] = ()
    thin: int = 0

    @property
    def advice(self) -> tuple[str, ...]:
        """What to do, as sentences, the most useful first."""
        found = (self._labels(), self._classes(), self._pairs(), self._few())
        if self.thin and not any(found):
            are = "image is" if self.thin == 1 else "images are"
            return (
                f"{self.thin:,} {are} too few to tell which class is weak. Evaluate on {FEW} or more of each class.",
            )
        return tuple(filter(None, found)) or (
            "Nothing stands out: no class is weak and no label looks wrong. Evaluate on more or harder images.",
        )

    def _labels(self) -> str:
        count = sum(len(part.positions) for part in self.labels or ())
        if not count:
            return ""
        return (
            f"Check {counted(count, 'label')} that may be wrong: wrong labels lower the measured "
            "accuracy, and training repeats them."
        )

    def _classes(self) -> str:
        if not self.weak:
            return ""
        first = self.weak[0]
        name = readable(first.name)
        instead = f", most often taken for {readable(first.instead)}" if first.instead else ""
        if first.clear:
            return f"Add training images of {name}: it is recognized least often{instead}, clearly below the average."
        return (
            f"No class is clearly weaker than the average. {name} is recognized least often{instead}; more test images "
            "would show whether that is chance."
        )

    def _pairs(self) -> str:
        if not self.confusions or self.confusions[0].count < 2:
            return ""
        first = self.confusions[0]
        return (
            f"Look at the images of {readable(first.true)} predicted as {readable(first.predicted)}, the most frequent "
            "confusion: add images that show the difference, or merge the two classes if people cannot tell them apart."
        )

    def _few(self) -> str:
        if not self.few:
            return ""
        name, images = self.few[0]
        known = f"How often {readable(name)} is recognized was measured on only {counted(images, 'image')}"
        return f"{known}: evaluate on more to know it better."


def next_steps(
    predictions: Predictions, out_of_sample: Mapping[str, Predictions] | None = None, *, labels: bool = True
) -> NextSteps:
    """Find what most limits a model.

    Args:
        predictions: predictions of images that were not trained on.
        out_of_sample: all such predictions by split, whose labels are checked; None: of `predictions` only, as `test`.
        labels: whether labels are checked, which needs cleanlab.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    parts = {"test": predictions} if out_of_sample is None else out_of_sample
    thin = _few(predictions)
    accuracy = float(predictions.correct.mean()) if len(predictions.truth) else 0.0
    return NextSteps(
        accuracy=accuracy,
        weak=_weak_classes(predictions, accuracy),
        confusions=_confusions(predictions),
        labels=tuple(_suspected(split, part) for split, part in parts.items() if has_several_classes(part))
        if labels
        else None,
        few=() if predictions.correct.all() else thin,
        thin=len(predictions.truth) if thin else 0,
    )


def _few(predictions: Predictions) -> tuple[tuple[str, int], ...]:
    """Classes evaluated on fewer than `FEW` images, with that number, fewest first."""
    support = np.bincount(predictions.truth, minlength=len(predictions.classes)).tolist()
    few = [(name, images) for name, images in zip(predictions.classes, support, strict=True) if 0 < images < FEW]
    return tuple(sorted(few, key=lambda one: one[1]))


def _weak_classes(predictions: Predictions, accuracy: float) -> tuple[WeakClass, ...]:
    """Classes whose recall is clearly below the accuracy; where there is none, those below it."""
    matrix = confusion_matrix(predictions)
    found = []
    for index, name in enumerate(predictions.classes):
        images, recognized = int(matrix[index].sum()), int(matrix[index, index])
        if not images or recognized == images:
            continue
        others = matrix[index].copy()
        others[index] = 0
        ends = wilson(recognized, images)
        instead = predictions.classes[int(others.argmax())]
        is_clear = images >= LEAST_CLEAR and ends[1] < accuracy
        found.append(WeakClass(name, recognized, images, ends, is_clear, instead))
    below = [one for one in found if one.recall < accuracy]
    clear = [one for one in below if one.clear]
    return tuple(sorted(clear or below, key=lambda one: (one.recall, -one.images))[:MAX_CLASSES])


def _confusions(predictions: Predictions) -> tuple[Confusion, ...]:
    support = np.bincount(predictions.truth, minlength=len(predictions.classes))
    images = dict(zip(predictions.classes, support.tolist(), strict=True))
    return tuple(
        Confusion(pair["true"], pair["predicted"], pair["count"], images[pair["true"]])
        for pair in confusions(predictions)[:MAX_PAIRS]
    )


def _suspected(split: str, predictions: Predictions) -> SuspectedLabels:
    found = find_label_issues(predictions)
    return SuspectedLabels(split, tuple(found.positions.tolist()), len(predictions.truth))
