"""T601: classes predictable from the border of their images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS
from thirtytwo.doctor.shortcuts import ShortcutCheck
from thirtytwo.doctor.subject import Subject

_BLOCK = 8192
_LEAST_SIDE = 4


@CHECKS.register("T601")
class BorderShortcut(ShortcutCheck):
    """Classes that a probe predicts from the outermost pixels: a frame, a watermark's edge, another background."""

    code = "T601"
    title = "classes predictable from the border of their images"
    severity = "warning"
    why = (
        "A network will learn the frame or background, not the class, and fails on images without it. Test images of "
        "the same source hide that."
    )
    fix = "Crop the frame off, or add images of the class with other backgrounds."
    by = "the border pixels"

    def features(self, subject: Subject) -> npt.NDArray[np.float64] | None:
        """Mean, variation and step inwards of each side's outermost pixels."""
        images = subject.data.train.images
        if images.shape[1] < _LEAST_SIDE:
            return None
        blocks = [border_features(images[start : start + _BLOCK]) for start in range(0, len(images), _BLOCK)]
        return np.concatenate(blocks) if blocks else None


def border_features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """For each side: mean color, logarithms of the variation along it and of the step to the next row, `(N, 20)`."""
    sides = (
        (images[:, 0], images[:, 1]),
        (images[:, -1], images[:, -2]),
        (images[:, :, 0], images[:, :, 1]),
        (images[:, :, -1], images[:, :, -2]),
    )
    columns: list[npt.NDArray[np.float32]] = []
    for outer, inner in ((outer.astype(np.float32), inner.astype(np.float32)) for outer, inner in sides):
        mean = outer.mean(axis=1)  # (N, 3)
        variation = np.log(outer.std(axis=1).mean(axis=1) + 1.0)
        step = np.log(np.abs(outer - inner).mean(axis=(1, 2)) + 1.0)
        columns += [*mean.T, variation, step]
    return np.stack(columns, axis=1).astype(np.float64)
