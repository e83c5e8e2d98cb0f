"""T602: classes predictable from the size of their images."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.probe import indicators
from thirtytwo.doctor.shortcuts import ShortcutCheck, train_facts
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T602")
class SizeShortcut(ShortcutCheck):
    """Classes that a probe predicts from width, height and aspect ratio of the files."""

    code = "T602"
    title = "classes predictable from the size of their images"
    severity = "warning"
    why = (
        "Sharpness and distortion after resizing show the original size, so a network can learn it in place of the "
        "class: often a class comes from another camera or website."
    )
    fix = "Crop or resize all images to one size and aspect ratio, or add images of the class from the other sources."
    by = "image size and aspect ratio"
    least_recall = 0.5

    def features(self, subject: Subject) -> npt.NDArray[np.float64] | None:
        """Logarithms of width, height and aspect ratio, and indicators of the most common sizes."""
        every = train_facts(subject)
        sizes = [None if facts is None else facts.upright for facts in every]
        if len(set(sizes) - {None}) < 2:
            return None
        columns = np.array([_columns(size) for size in sizes])
        return np.concatenate([columns, indicators(sizes)], axis=1)


def _columns(size: tuple[int, int] | None) -> tuple[float, float, float]:
    if size is None:
        return (math.nan, math.nan, math.nan)
    width, height = size
    return (math.log(width), math.log(height), math.log(width / height))
