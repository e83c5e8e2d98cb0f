"""The worst mistakes, with their pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.types import ImageSet
from thirtytwo.rundir import Predictions

THUMBNAIL = 128
PIXELATED_UP_TO = 64
GET_PICTURES = "To have them, write it where the data is: thirtytwo report RUN (with THIRTYTWO_DATA or --data-root)."


@dataclass(frozen=True)
class Mistake:
    """One wrong answer; `source` is the picture as a data URI, or None where the picture is not at hand."""

    true: str
    predicted: str
    confidence: float
    confidence_in_truth: float
    name: str
    source: str | None
    pixelated: bool


def worst_mistakes(predictions: Predictions, pictures: ImageSet | None, most: int = 24) -> tuple[list[Mistake], str]:
    """The wrong answers given with the most confidence, and a sentence saying why pictures are missing (else empty)."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:most]
    places, problem = locate(predictions, pictures, worst)
    mistakes = []
    for number, position in enumerate(worst.tolist()):
        truth, predicted = int(predictions.truth[position]), int(predictions.probabilities[position].argmax())
        image = None if pictures is None or places is None else pictures.images[places[number]]
        mistakes.append(
            Mistake(
                true=predictions.classes[truth],
                predicted=predictions.classes[predicted],
                confidence=float(predictions.probabilities[position, predicted]),
                confidence_in_truth=float(predictions.probabilities[position, truth]),
                name=picture_name(predictions, position),
                source=None if image is None else data_uri(image),
                pixelated=image is not None and max(image.shape[:2]) <= PIXELATED_UP_TO,
            )
        )
    return mistakes, problem


def picture_name(predictions: Predictions, position: int) -> str:
    """A picture's file, or its row where it came from no file."""
    return predictions.files[position] if predictions.files else f"row {int(predictions.rows[position])}"


def data_uri(image: npt.NDArray[np.uint8], side: int = THUMBNAIL) -> str:
    """A picture uint8 `(H, W, 3)` as a PNG data URI, larger ones reduced to `side` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if max(picture.size) > side:
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def locate(
    predictions: Predictions, pictures: ImageSet | None, wanted: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64] | None, str]:
    """Where in `pictures` the picture of each wanted prediction lies, int64; or None and a sentence saying why not."""
    if pictures is None:
        return None, f"This page was written without pictures. {GET_PICTURES}"
    order = np.argsort(pictures.rows, kind="stable")
    slots = np.searchsorted(pictures.rows, predictions.rows[wanted], sorter=order)
    places = np.append(order, -1)[slots]
    if (places < 0).any() or (pictures.rows[places] != predictions.rows[wanted]).any():
        return None, f"The data at hand lacks some of the pictures that were scored. {GET_PICTURES}"
    index = {name: number for number, name in enumerate(predictions.classes)}
    known = np.array([index.get(name, -1) for name in pictures.classes], dtype=np.int64)
    if (known[pictures.labels[places]] != predictions.truth[wanted]).any():
        return None, f"The data at hand is not the data that was scored: labels differ. {GET_PICTURES}"
    return np.asarray(places, dtype=np.int64), ""
