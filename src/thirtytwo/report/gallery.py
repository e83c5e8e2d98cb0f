"""Misclassified images, and the lookup of images by prediction."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.types import ImageSet
from thirtytwo.rundir import Predictions

THUMBNAIL_SIDE = 128
PIXELATED_UP_TO = 64
HOW_TO_GET_IMAGES = "To include them, run where the data is: thirtytwo report RUN (with THIRTYTWO_DATA or --data-root)."


@dataclass(frozen=True)
class Misclassified:
    """A misclassified image; `source` is a data URI, or None where the image is not available."""

    true: str
    predicted: str
    confidence: float
    confidence_in_truth: float
    name: str
    source: str | None
    pixelated: bool


def most_confident_errors(
    predictions: Predictions, images: ImageSet | None, most: int = 24
) -> tuple[list[Misclassified], str]:
    """The misclassified images with the highest confidence, and why images are missing (empty if they are not)."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]
    places, problem = locate(predictions, images, worst)
    errors = []
    for number, position in enumerate(worst.tolist()):
        truth, predicted = int(predictions.truth[position]), int(predictions.probabilities[position].argmax())
        image = None if images is None or places is None else images.images[places[number]]
        errors.append(
            Misclassified(
                true=predictions.classes[truth],
                predicted=predictions.classes[predicted],
                confidence=float(predictions.probabilities[position, predicted]),
                confidence_in_truth=float(predictions.probabilities[position, truth]),
                name=picture_name(predictions, position),
                source=None if image is None else data_uri(image),
                pixelated=image is not None and max(image.shape[:2]) <= PIXELATED_UP_TO,
            )
        )
    return errors, problem


def picture_name(predictions: Predictions, position: int) -> str:
    """The file of an image, or its row where it did not come from a file."""
    return predictions.files[position] if predictions.files else f"row {int(predictions.rows[position])}"


def data_uri(image: npt.NDArray[np.uint8], side: int = THUMBNAIL_SIDE) -> str:
    """An image, uint8 `(H, W, 3)`, as a PNG data URI; larger ones are reduced to `side` pixels."""
    thumbnail = Image.fromarray(np.ascontiguousarray(image))
    if max(thumbnail.size) > side:
        thumbnail.thumbnail((side, side))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def locate(
    predictions: Predictions, images: ImageSet | None, wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Indices into `images` of the wanted predictions, int64; or None and the reason as a sentence."""
    if images is None:
        return None, f"This page was written without images. {HOW_TO_GET_IMAGES}"
    order = np.argsort(images.rows, kind="stable")
    slots = np.searchsorted(images.rows, predictions.rows[wanted], sorter=order)
    places = np.append(order, -1)[slots]
    if (places < 0).any() or (images.rows[places] != predictions.rows[wanted]).any():
        return None, f"The available data lacks some of the evaluated images. {HOW_TO_GET_IMAGES}"
    index = {name: number for number, name in enumerate(predictions.classes)}
    known = np.array([index.get(name, -1) for name in images.classes], dtype=np.int64)
    if (known[images.labels[places]] != predictions.truth[wanted]).any():
        return None, f"The available data differs from the evaluated data: labels differ. {HOW_TO_GET_IMAGES}"
    return np.asarray(places, dtype=np.int64), ""
