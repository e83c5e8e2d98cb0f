"""A check of images with an extreme value of a statistic of their pixels, absolutely and among the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from thirtytwo.doctor.base import Check, Finding
from thirtytwo.doctor.statistics import Floats, PixelStatistics, deviations
from thirtytwo.doctor.subject import Subject


class ExtremeCheck(Check):
    """Images that lie beyond a limit and far from the median of the data set.

    It must be both: in data that is dark throughout, as of the night sky, a dark image is no problem.

    Attributes:
        adjective: what such images are.
        statistic: what is measured, as the sentence names it.
        limit: value beyond which an image is extreme.
        least_deviation: distance from the median beyond which it is, in robust standard deviations.
        low: whether low values are extreme, not high ones.
        logarithmic: whether the distance is one of logarithms.
    """

    adjective: ClassVar[str]
    statistic: ClassVar[str]
    limit: ClassVar[float]
    least_deviation: ClassVar[float]
    low: ClassVar[bool] = True
    logarithmic: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def values(statistics: PixelStatistics) -> Floats:
        """The statistic of each image, float32 `(N,)`."""

    def run(self, subject: Subject) -> Iterator[Finding]:
        """Compare all images, but those of a single color, which T401 reports."""
        every = subject.pixel_statistics.values()
        values = np.concatenate([self.values(one) for one in every])
        flat = np.concatenate([one.contrast for one in every]) < 1e-3
        side = 1.0 if self.low else -1.0
        scaled = np.log(np.maximum(values, 1e-3)) if self.logarithmic else values
        extreme = (side * values < side * self.limit) & (side * deviations(scaled) < -self.least_deviation) & ~flat
        found = np.flatnonzero(extreme)
        if not len(found):
            return
        found = found[np.argsort(side * values[found], kind="stable")]
        places = [subject.places[position] for position in found]
        shown = ", ".join(map(subject.described, places[:3]))
        verb = "is" if len(places) == 1 else "are"
        yield self.finding(
            f"{len(places):,} of {len(values):,} images {verb} {self.adjective}: {shown}.",
            [(place,) for place in places],
            notes=[f"{self.statistic} {values[position]:.3g}" for position in found],
        )
