"""Views of an image that a linear probe is fitted on: the image, its mirror image, and enlarged parts of both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from thirtytwo.errors import DataError
from thirtytwo.images.pixels import Pixels, resize

VIEWS = 2
"""Default number of views of an image; more did not help on the development half of `benchmarks/fewshot.py`."""
_ZOOM = 0.8
_CORNERS = ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0))
MOST_VIEWS = 2 + 2 * len(_CORNERS)


def check_views(count: int) -> None:
    """Check a number of views.

    Raises:
        DataError: it is below 1 or above `MOST_VIEWS`.
    """
    if not 1 <= count <= MOST_VIEWS:
        raise DataError(f"The number of views is {count}.", f"Expected 1 to {MOST_VIEWS}.")


def make_views(images: Pixels, count: int) -> Iterator[Pixels]:
    """The first `count` views of images uint8 `(N, S, S, 3)`, each of that shape; the images themselves come first.

    Then come the mirror images, and parts in the corners of the image and of its mirror image in turn, enlarged to S.
    """
    mirrored = images[:, :, ::-1]
    views: list[tuple[Pixels, tuple[float, float] | None]] = [(images, None), (mirrored, None)]
    views += [(source, corner) for corner in _CORNERS for source in (images, mirrored)]
    for source, corner in views[:count]:
        yield np.ascontiguousarray(source) if corner is None else _enlarge(source, *corner)


def _enlarge(images: Pixels, down: float, right: float) -> Pixels:
    """A square part of each image, at this place between top left (0, 0) and bottom right (1, 1), enlarged to S."""
    size = images.shape[1]
    side = max(1, round(_ZOOM * size))
    top, left = round((size - side) * down), round((size - side) * right)
    return np.stack([resize(image[top : top + side, left : left + side], size) for image in images])
