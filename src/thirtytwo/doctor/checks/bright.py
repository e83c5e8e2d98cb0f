"""T403: very bright images."""

from __future__ import annotations

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.extremes import ExtremeCheck
from thirtytwo.doctor.statistics import Floats, PixelStatistics


@CHECKS.register("T403")
class Bright(ExtremeCheck):
    """Images with a mean brightness above 235 of 255, where that is unusual in the data set."""

    code = "T403"
    title = "very bright images"
    severity = "note"
    why = "They are overexposed, or show a small object on white, which few images do that a model sees in use."
    fix = "Look at them; drop those in which you cannot recognize the class."
    adjective = "very bright"
    statistic = "brightness"
    limit = 235.0
    least_deviation = 2.5
    low = False

    @staticmethod
    def values(statistics: PixelStatistics) -> Floats:
        """Mean luma, 0 to 255."""
        return statistics.brightness
