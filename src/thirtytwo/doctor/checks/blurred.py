"""T404: blurred images, or without detail."""

from __future__ import annotations

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.extremes import ExtremeCheck
from thirtytwo.doctor.statistics import Floats, PixelStatistics


@CHECKS.register("T404")
class Blurred(ExtremeCheck):
    """Images with little detail for their contrast at the decoded size, where that is unusual in the data set."""

    code = "T404"
    title = "blurred images, or without detail"
    severity = "note"
    why = "Details that distinguish classes are lost. The images are compared as decoded, so finer blur is not seen."
    fix = "Look at them; drop those in which you cannot recognize the class."
    adjective = "blurred or without detail"
    statistic = "sharpness"
    limit = 0.2
    least_deviation = 3.5
    logarithmic = True

    @staticmethod
    def values(statistics: PixelStatistics) -> Floats:
        """Standard deviation of the Laplacian as a multiple of the contrast."""
        return statistics.sharpness
