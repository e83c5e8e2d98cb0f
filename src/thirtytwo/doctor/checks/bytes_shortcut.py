"""T604: classes predictable from the number of bytes per pixel of their files."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.shortcuts import ShortcutCheck, train_facts
from thirtytwo.doctor.subject import Subject


@CHECKS.register("T604")
class BytesShortcut(ShortcutCheck):
    """Classes that a probe predicts from bytes per pixel, which depend on compression, but also on what images show."""

    code = "T604"
    title = "classes predictable from the bytes per pixel of their files"
    severity = "note"
    why = (
        "The files of these classes may be compressed more or less than the rest, which leaves traces in the pixels "
        "that a network can learn in place of the class. Images of smooth things also need fewer bytes."
    )
    fix = "Check whether these classes come from another source; if so, save all images in one quality."
    by = "the bytes per pixel of their files"

    def features(self, subject: Subject) -> npt.NDArray[np.float64] | None:
        """Logarithm of the bytes per pixel, `(N, 1)`."""
        every = train_facts(subject)
        if not any(every):
            return None
        values = [math.nan if facts is None else facts.bytes / (facts.width * facts.height) for facts in every]
        return np.log(np.array(values, dtype=np.float64)[:, None])
