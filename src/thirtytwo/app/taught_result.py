"""What a model was taught with in a project, and what to expect of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from thirtytwo.fewshot import LinearProbe
from thirtytwo.predictions import Predictions

if TYPE_CHECKING:
    from thirtytwo.app.project import Project


class TaughtClass(BaseModel, frozen=True):
    """A class that a model was taught: its number and name in the project, and the content hashes of its images."""

    number: int
    name: str
    digests: tuple[str, ...]


class Result(BaseModel, frozen=True):
    """A taught model: what it was taught, and what to expect of it.

    `labels` and `probabilities` (N rows of C) are the predictions of cross-validation, of the images `digests`; all are
    empty where the accuracy cannot be estimated. `alike` holds positions of near-duplicates in `digests`, in groups;
    `taught` is the time in seconds since 1970.
    """

    base: str
    classes: tuple[TaughtClass, ...]
    expectation: str
    accuracy: dict[str, Any] | None
    folds: int
    count: int
    notes: tuple[str, ...]
    digests: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    alike: tuple[tuple[int, ...], ...] = ()
    taught: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(one.name for one in self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images that each class was taught with, by its name."""
        held_out = self.held_out
        if held_out is None:
            return {one.name: len(one.digests) for one in self.classes}
        sizes = np.bincount(held_out.truth, minlength=len(self.classes)).tolist()
        return dict(zip(self.names, sizes, strict=True))

    @property
    def held_out(self) -> Predictions | None:
        """The predictions of cross-validation, if there are any."""
        if not self.labels:
            return None
        truth = np.array(self.labels, dtype=np.int64)
        return Predictions(self.names, truth, np.array(self.probabilities, np.float32), np.arange(len(truth)))


def result_of(
    probe: LinearProbe,
    project: Project,
    base: str,
    digests: Mapping[bytes, str],
    alike: Sequence[Sequence[int]] = (),
) -> Result:
    """The result of teaching the readable images of a project.

    Args:
        probe: the taught model.
        project: the project as it was when training started.
        base: name of the model that it started from.
        digests: content hash of the file of each image by the decoded pixels' bytes.
        alike: positions of near-duplicates in `probe.images`, in groups.
    """
    held_out = probe.held_out
    return Result(
        base=base,
        classes=tuple(
            TaughtClass(number=one.number, name=one.name, digests=tuple(photo.digest for photo in one.readable))
            for one in project.classes
        ),
        expectation=probe.expectation,
        accuracy=probe.accuracy,
        folds=probe.folds,
        count=len(probe.labels),
        notes=tuple(probe.notes),
        digests=tuple(digests[image.tobytes()] for image in probe.images),
        labels=() if held_out is None else tuple(held_out.truth.tolist()),
        probabilities=()
        if held_out is None
        else tuple(tuple(round(value, 6) for value in row) for row in held_out.probabilities.tolist()),
        alike=tuple(tuple(group) for group in alike),
        taught=time.time(),
    )
