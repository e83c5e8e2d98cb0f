"""T405: images with little contrast."""

from __future__ import annotations

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.extremes import ExtremeCheck
from thirtytwo.doctor.statistics import Floats, PixelStatistics


@CHECKS.register("T405")
class LowContrast(ExtremeCheck):
    """Images whose brightness varies by less than 10 of 255, where that is unusual in the data set."""

    code = "T405"
    title = "images with little contrast"
    severity = "note"
    why = "They show almost nothing: fog, a wall, a scan without content."
    fix = "Look at them; drop those in which you cannot recognize the class."
    adjective = "almost without contrast"
    statistic = "contrast"
    limit = 10.0
    least_deviation = 3.5
    logarithmic = True

    @staticmethod
    def values(statistics: PixelStatistics) -> Floats:
        """Standard deviation of the luma, 0 to 127."""
        return statistics.contrast
