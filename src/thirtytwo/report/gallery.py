"""The worst mistakes, with their pictures."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from thirtytwo.data.imageset import ImageSet
from thirtytwo.rundir import Predictions

THUMBNAIL = 128
PIXELATED_UP_TO = 64
GET_PICTURES = "Write the report again where the data is: thirtytwo report RUN (with THIRTYTWO_DATA or --data-root)."


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
    places, problem = _find(predictions, pictures, worst)
    mistakes = []
    for position, place in zip(worst.tolist(), places, strict=True):
        truth, predicted = int(predictions.truth[position]), int(predictions.predicted[position])
        image = None if pictures is None or place is None else pictures.images[place]
        mistakes.append(
            Mistake(
                true=predictions.classes[truth],
                predicted=predictions.classes[predicted],
                confidence=float(predictions.probabilities[position, predicted]),
                confidence_in_truth=float(predictions.probabilities[position, truth]),
                name=predictions.files[position] if predictions.files else f"row {int(predictions.rows[position])}",
                source=None if image is None else data_uri(image),
                pixelated=image is not None and max(image.shape[:2]) <= PIXELATED_UP_TO,
            )
        )
    return mistakes, problem


def data_uri(image: npt.NDArray[np.uint8]) -> str:
    """A picture uint8 `(H, W, 3)` as a PNG data URI, larger ones reduced to `THUMBNAIL` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    if max(picture.size) > THUMBNAIL:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _find(
    predictions: Predictions, pictures: ImageSet | None, wanted: npt.NDArray[np.int64]
) -> tuple[list[int | None], str]:
    """Where in `pictures` each wanted prediction's picture lies, and what is wrong where it does not."""
    nowhere: list[int | None] = [None] * len(wanted)
    if pictures is None:
        return nowhere, f"The pictures were not at hand when this was written. {GET_PICTURES}"
    order = np.argsort(pictures.rows, kind="stable")
    at = np.searchsorted(pictures.rows, predictions.rows[wanted], sorter=order)
    places: list[int | None] = []
    for position, slot in zip(wanted.tolist(), at.tolist(), strict=True):
        place = int(order[slot]) if slot < len(order) else -1
        if place < 0 or int(pictures.rows[place]) != int(predictions.rows[position]):
            return nowhere, f"The data at hand lacks some of the pictures that were scored. {GET_PICTURES}"
        true = predictions.classes[int(predictions.truth[position])]
        if pictures.classes[int(pictures.labels[place])] != true:
            return nowhere, f"The data at hand is not the data that was scored: labels differ. {GET_PICTURES}"
        places.append(place)
    return places, ""
