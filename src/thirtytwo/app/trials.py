"""New images that a taught model is tried on: which answers are right, the score, and which to label next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thirtytwo.app.project import Project, Trial
from thirtytwo.app.taught_result import Result
from thirtytwo.evaluation.metrics import proportion
from thirtytwo.fewshot import choose_to_label
from thirtytwo.fewshot.labeling import Floats

LEAST_TO_SUGGEST, MOST_SUGGESTED = 4, 3
"""Number of unlabeled images from which some are suggested, and how many are."""


def class_of(project: Project, trial: Trial) -> int | None:
    """Number of the class that an image was added to; None: to none."""
    return next(
        (one.number for one in project.classes if any(photo.digest == trial.digest for photo in one.photos)), None
    )


def is_right(project: Project, trial: Trial, predicted: int | None) -> bool | None:
    """Whether an answer is right, by what the user said of the image's class; None: unknown.

    Args:
        project: the project as it is now.
        trial: the image.
        predicted: number of the predicted class; None if the project has no such class anymore.
    """
    actual = class_of(project, trial)
    actual = trial.actual if actual is None else actual
    if actual is not None:
        return actual == predicted
    return False if predicted in trial.excluded else None


def needs_mark(project: Project, trial: Trial, predicted: int | None) -> bool:
    """Whether an answer is to be marked again: an earlier one was wrong, and the class of the image is not known."""
    return bool(trial.excluded) and is_right(project, trial, predicted) is None


def was_taught(result: Result, trial: Trial) -> bool:
    """Whether the model was taught with this image, so that its answer says nothing about new ones."""
    return any(trial.digest in one.digests for one in result.classes)


def score(project: Project, result: Result, predicted: Mapping[str, int | None]) -> dict[str, Any] | None:
    """Share of right answers with its 95 % interval, `right` and `count`, and `again`; None without marked answers.

    `again` is the number of images that are to be marked again, as `needs_mark` finds; the share is None where all are.

    Args:
        project: the project as it is now.
        result: the model's; images that it was taught with do not count.
        predicted: number of the predicted class of each image by its content hash.
    """
    trials = [one for one in project.trials if one.digest in predicted and not was_taught(result, one)]
    answers = [is_right(project, one, predicted[one.digest]) for one in trials]
    known = [one for one in answers if one is not None]
    again = sum(needs_mark(project, one, predicted[one.digest]) for one in trials)
    if not known and not again:
        return None
    share = proportion(sum(known), len(known)) if known else {"value": None, "ci95": None}
    return {"right": sum(known), "count": len(known), "again": again, **share}


def unlabeled(project: Project, trials: Sequence[Trial]) -> list[Trial]:
    """The images of which the user has said nothing yet."""
    return [
        one
        for one in trials
        if one.actual is None and not one.excluded and not one.photo.problem and class_of(project, one) is None
    ]


def suggested(trials: Sequence[Trial], features: Floats, probabilities: Floats) -> list[str]:
    """Content hashes of the unlabeled images to label next, most useful first; none of a few images.

    Args:
        trials: unlabeled images.
        features: `(N, D)` of these images.
        probabilities: `(N, C)` of these images.
    """
    if len(trials) < LEAST_TO_SUGGEST:
        return []
    return [trials[place].digest for place in choose_to_label(np.asarray(features), probabilities, MOST_SUGGESTED)]
