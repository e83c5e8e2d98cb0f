"""Suggest what to do next to improve a model with few images per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.metrics import confusion_matrix
from thirtytwo.predictions import Predictions
from thirtytwo.text import counted, readable

Kind = Literal["more_images", "confused", "alike", "try"]
MOST_STEPS = 2
ENOUGH = 20
"""Number of images from which a class without errors needs no more."""
LEAST_CONFUSIONS = 2
"""Number of images from which two classes are reported as confused: a single one is often chance."""
_FEW = 0.5
"""A class has few images if it has less than this share of the median of all classes."""


@dataclass(frozen=True)
class NextStep:
    """A suggestion.

    Attributes:
        kind: `more_images` of a class, two classes are `confused`, images look `alike`, or `try` new images.
        classes: names of the classes it is about.
        images: positions of the images it is about, by group for `alike`.
        right, count: for `more_images`, the number of images that are recognized (None: no estimate) and of all of the
            class; for `confused` and `alike`, `count` images.
        gain: share of all images that it is about, by which steps are ordered.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    images: tuple[tuple[int, ...], ...] = ()
    right: int | None = None
    count: int = 0
    gain: float = 0.0

    @property
    def sentence(self) -> str:
        """The suggestion as a sentence."""
        names = [f"“{readable(name)}”" for name in self.classes]
        if self.kind == "more_images":
            state = f"it has {counted(self.count, 'image')}"
            if self.right is not None and self.right < self.count:
                state = f"{self.right} of its {counted(self.count, 'image')} {_was(self.right)} recognized"
            return f"Add images of {names[0]}: {state}."
        if self.kind == "confused":
            return (
                f"{names[0]} and {names[1]} are confused ({counted(self.count, 'image')}): add images that show how "
                "they differ, and check that each is in the right class."
            )
        if self.kind == "alike":
            one = self.count == 1
            return (
                f"{counted(self.count, 'image')} {'looks' if one else 'look'} nearly like another one: use "
                f"{'an image of another scene' if one else 'images of other scenes'} instead, because copies teach "
                "little and make the estimate too high."
            )
        return "Try the model on new images of other scenes, and mark its answers right or wrong."


def suggest_next_steps(
    counts: dict[str, int],
    held_out: Predictions | None,
    alike: Sequence[Sequence[int]] = (),
    *,
    most: int = MOST_STEPS,
) -> list[NextStep]:
    """The most useful next steps, at least one, most useful first.

    Candidates are: more images of the class with the fewest images, if it has less than half of the median, else of the
    class with the lowest recall; the two classes that are confused most often; and images that look alike. They are
    ordered by the share of images that they are about: not recognized, confused, or superfluous.

    Args:
        counts: number of images of each class by its name.
        held_out: predictions of cross-validation with these classes; None where there is no estimate.
        alike: positions of images that are near-duplicates of each other, in groups.
        most: maximum number of steps.
    """
    found = [*_confused(held_out), *_alike(counts, alike), *_more_images(counts, held_out)]
    found.sort(key=lambda step: -step.gain)
    return found[:most] or [NextStep("try")]


def _more_images(counts: dict[str, int], held_out: Predictions | None) -> Iterator[NextStep]:
    names, sizes = list(counts), np.array(list(counts.values()), dtype=np.int64)
    right = None if held_out is None else np.diag(confusion_matrix(held_out))
    weakest = int(sizes.argmin())
    total, missed = int(sizes.sum()), 0
    if right is not None:
        if sizes[weakest] >= _FEW * np.median(sizes):
            weakest = int(np.lexsort((sizes, right / sizes))[0])  # the lowest recall, then the fewest images
        missed = int(sizes[weakest] - right[weakest])
    if missed or sizes[weakest] < ENOUGH:
        yield NextStep(
            "more_images",
            (names[weakest],),
            right=None if right is None else int(right[weakest]),
            count=int(sizes[weakest]),
            gain=max(missed, 0.5) / total,  # without errors, after all other steps
        )


def _confused(held_out: Predictions | None) -> Iterator[NextStep]:
    if held_out is None:
        return
    matrix = confusion_matrix(held_out)
    both: npt.NDArray[np.int64] = np.triu(matrix + matrix.T, 1)
    first, second = np.unravel_index(int(both.argmax()), both.shape)
    count = int(both[first, second])
    if count >= LEAST_CONFUSIONS:
        yield NextStep(
            "confused",
            (held_out.classes[int(first)], held_out.classes[int(second)]),
            count=count,
            gain=count / len(held_out.truth),
        )


def _alike(counts: dict[str, int], alike: Sequence[Sequence[int]]) -> Iterator[NextStep]:
    superfluous = sum(len(group) - 1 for group in alike)
    if superfluous:
        yield NextStep(
            "alike",
            images=tuple(tuple(group) for group in alike),
            count=superfluous,
            gain=superfluous / sum(counts.values()),
        )


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
