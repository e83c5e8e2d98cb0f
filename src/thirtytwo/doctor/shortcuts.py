"""A check of classes that are predictable from what has nothing to do with what they show."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import Check, Finding, Place
from thirtytwo.doctor.probe import Separation, one_against_rest, threshold
from thirtytwo.doctor.subject import Subject
from thirtytwo.images.header import FileFacts
from thirtytwo.text import percent, quote

EXAMPLES = 8
"""Images of a class that a finding shows."""
LEAST_GAIN = 0.25
"""Precision at which recall counts must be this far above the share of the class."""


class ShortcutCheck(Check):
    """Classes that a probe tells from the rest by features that should not tell them.

    A class is reported if its AUROC reaches `least_auroc`, or if at least `least_recall` of it is found with hardly a
    false alarm, and neither is explained by chance.

    Attributes:
        by: what the classes are predictable from, as the sentence names it.
        least_auroc: AUROC from which a class is reported.
        least_recall: recall at 95 % precision from which a class is reported.
    """

    by: ClassVar[str]
    least_auroc: ClassVar[float] = 0.99
    least_recall: ClassVar[float] = 0.9

    @abstractmethod
    def features(self, subject: Subject) -> npt.NDArray[np.float64] | None:
        """Features of the training images, `(N, D)`; None where the data has none. NaN: not known."""

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Probe every class on the training images."""
        features = self.features(subject)
        if features is None or not len(features):
            return
        train = subject.data.train
        probed = one_against_rest(features, train.labels, len(train.classes))
        least = threshold(len(probed))
        shares = train.counts / len(train)
        found = [one for one in probed if one.deviation > least and self.is_predictable(one, float(shares[one.label]))]
        if not found:
            return
        found.sort(key=lambda one: -one.auroc)
        names = [quote(train.classes[one.label]) for one in found]
        words = [
            f"{name} (AUROC {one.auroc:.3f}; {percent(one.recall, 0)} found at 95 % precision)"
            for name, one in zip(names, found, strict=True)
        ]
        more = f" and {len(words) - 5} more" if len(words) > 5 else ""
        plural = "classes are" if len(found) > 1 else "class is"
        yield self.finding(
            f"{len(found)} {plural} predictable from {self.by} alone: {', '.join(words[:5])}{more}.",
            [tuple(Place("train", int(position)) for position in one.order[:EXAMPLES]) for one in found],
            notes=words,
        )

    def is_predictable(self, one: Separation, share: float) -> bool:
        """Whether a class of this share of all images is predictable enough to be reported."""
        return one.auroc >= self.least_auroc or (one.recall >= self.least_recall and share <= 0.95 - LEAST_GAIN)


def train_facts(subject: Subject) -> list[FileFacts | None]:
    """What the files of the training images state; empty for data that is not files."""
    return list((subject.file_facts or {}).get("train", ()))
