"""T603: classes predictable from the format, mode, JPEG quality or metadata of their files."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.probe import indicators
from thirtytwo.doctor.shortcuts import ShortcutCheck, train_facts
from thirtytwo.doctor.subject import Subject
from thirtytwo.images.header import FileFacts


@CHECKS.register("T603")
class FileShortcut(ShortcutCheck):
    """Classes that a probe predicts from format, mode, JPEG quality and metadata of the files."""

    code = "T603"
    title = "classes predictable from the format of their files"
    severity = "warning"
    why = (
        "Compression leaves traces in the pixels, so a network can learn the format or quality in place of the class: "
        "often a class comes from another source."
    )
    fix = "Save all images in one format and quality, from originals where you have them, and compare the sources."
    by = "file format, mode, JPEG quality and metadata"
    least_recall = 0.5

    def features(self, subject: Subject) -> npt.NDArray[np.float64] | None:
        """JPEG quantization, metadata, and indicators of the most common formats and modes."""
        every = train_facts(subject)
        if not any(every):
            return None
        kinds = [None if facts is None else (facts.format, facts.mode, facts.transparent) for facts in every]
        return np.concatenate([np.array([_columns(facts) for facts in every]), indicators(kinds)], axis=1)


def _columns(facts: FileFacts | None) -> tuple[float, ...]:
    if facts is None:
        return (math.nan,) * 5
    return (
        math.log(facts.quantization + 1.0),
        float(facts.exif),
        float(facts.profile),
        float(facts.progressive),
        float(facts.orientation > 1),
    )
