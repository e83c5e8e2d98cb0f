"""Augmented training images, for the report."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from thirtytwo.report.gallery import PIXELATED_UP_TO, data_uri

ROWS, PASSES = 6, 7
"""Number of training images shown, and of augmented versions of each."""
SIDE = 64
MAX_MIXED_CLASSES = 2


class Augmented(Protocol):
    """Images before and after augmentation, as `thirtytwo.training.samples.draw_samples` returns them.

    `originals` uint8 `(R, H, W, 3)`; `augmented` uint8 `(R, K, H, W, 3)`; `targets` float `(R, K, C)`, rows sum to 1;
    `labels` int64 `(R,)`.
    """

    @property
    def originals(self) -> npt.NDArray[np.uint8]: ...

    @property
    def augmented(self) -> npt.NDArray[np.uint8]: ...

    @property
    def targets(self) -> npt.NDArray[np.float32]: ...

    @property
    def labels(self) -> npt.NDArray[np.int64]: ...


def augmented_rows(samples: Augmented, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each training image: class, original, and augmented versions with their mixed targets."""
    return [
        {
            "class": classes[int(label)],
            "source": data_uri(samples.originals[row], SIDE),
            "pixelated": max(samples.originals.shape[1:3]) <= PIXELATED_UP_TO,
            "augmented": [
                {"source": data_uri(image, SIDE), "mixed": _mixed(target, classes)}
                for image, target in zip(samples.augmented[row], samples.targets[row], strict=True)
            ],
        }
        for row, label in enumerate(samples.labels)
    ]


def _mixed(target: npt.NDArray[np.float32], classes: tuple[str, ...]) -> str:
    """The classes of a mixed target, largest share first; empty for a single class."""
    if float(target.max()) >= 1.0:
        return ""
    most = (-target).argsort(kind="stable")[:MAX_MIXED_CLASSES]
    return ", ".join(f"{100 * target[place]:.0f}% {classes[place]}" for place in most if target[place] > 0)
