"""T402: very dark images."""

from __future__ import annotations

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.extremes import ExtremeCheck
from thirtytwo.doctor.statistics import Floats, PixelStatistics


@CHECKS.register("T402")
class Dark(ExtremeCheck):
    """Images with a mean brightness below 30 of 255, where that is unusual in the data set."""

    code = "T402"
    title = "very dark images"
    severity = "note"
    why = "What they show is hard to see, and a network may learn the darkness as a property of their class."
    fix = "Look at them; brighten or drop those in which you cannot recognize the class."
    adjective = "very dark"
    statistic = "brightness"
    limit = 30.0
    least_deviation = 2.5

    @staticmethod
    def values(statistics: PixelStatistics) -> Floats:
        """Mean luma, 0 to 255."""
        return statistics.brightness
