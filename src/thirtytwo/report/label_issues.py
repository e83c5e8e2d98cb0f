"""Labels that look wrong, with their pictures, as page and model card show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.label_issues import suspect_labels
from thirtytwo.report.gallery import PIXELATED_UP_TO, data_uri, locate, picture_name
from thirtytwo.report.run_record import Facts, percent

SHOWN = 24
LISTED = 300


def suspects_of(facts: Facts, pictures: Mapping[str, ImageSet | None]) -> dict[str, Any] | None:
    """Suspected labels of every split that was predicted and not trained on; None where there is none of these.

    `pictures` holds the pictures of a split where they are at hand; suspects are listed without, but not shown.
    """
    found, counts = [], []
    for split, predictions in facts.out_of_sample.items():
        if len(predictions.classes) < 2 or not len(predictions.truth):
            continue
        suspects = suspect_labels(predictions)
        places, _ = locate(predictions, pictures.get(split), suspects.positions)
        spoken = _spoken(split, facts)
        counts.append({"split": spoken, "count": len(suspects), "n": len(predictions.truth)})
        for number, position in enumerate(suspects.positions.tolist()):
            found.append(
                {
                    "split": spoken,
                    "name": picture_name(predictions, position),
                    "given": predictions.classes[int(predictions.truth[position])],
                    "suggested": predictions.classes[int(suspects.suggested[number])],
                    "confidence": percent(float(predictions.confidence[position]), 1),
                    "quality": float(suspects.quality[number]),
                    "image": None if places is None else (split, int(places[number])),
                }
            )
    if not counts:
        return None
    found.sort(key=lambda suspect: float(str(suspect["quality"])))
    seen = [suspect for suspect in found if suspect["image"] is not None][:SHOWN]
    return {
        "counts": counts,
        "total": len(found),
        "shown": [suspect | _picture(pictures, suspect["image"]) for suspect in seen],
        "listed": found[:LISTED],
    }


def _spoken(split: str, facts: Facts) -> str:
    """Validation rows that were held out of train are counted as train counts them."""
    if split != "val":
        return split
    return "held-out train" if facts.splits.get("val_rows") else "validation"


def _picture(pictures: Mapping[str, ImageSet | None], at: Any) -> dict[str, Any]:
    split, place = at
    held = pictures[split]
    assert held is not None
    image = held.images[place]
    return {"source": data_uri(image), "pixelated": max(image.shape[:2]) <= PIXELATED_UP_TO}
