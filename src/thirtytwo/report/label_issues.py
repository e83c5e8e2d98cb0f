"""Label issues with their images, for report and model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.label_issues import suspect_labels
from thirtytwo.report.gallery import PIXELATED_UP_TO, data_uri, locate, picture_name
from thirtytwo.report.run_record import RunRecord, percent

MAX_SHOWN = 24
MAX_LISTED = 300


def label_issues_table(record: RunRecord, images: Mapping[str, ImageSet | None]) -> dict[str, Any] | None:
    """Label issues of every split with predictions that was not trained on; None where there is no such split.

    `images` holds the images of a split where they are available; without them issues are listed but not shown.
    """
    found, counts = [], []
    for split, predictions in record.out_of_sample.items():
        if len(predictions.classes) < 2 or not len(predictions.truth):
            continue
        issues = suspect_labels(predictions)
        places, _ = locate(predictions, images.get(split), issues.positions)
        split_name = _split_name(split, record)
        counts.append({"split": split_name, "count": len(issues), "n": len(predictions.truth)})
        for number, position in enumerate(issues.positions.tolist()):
            found.append(
                {
                    "split": split_name,
                    "name": picture_name(predictions, position),
                    "given": predictions.classes[int(predictions.truth[position])],
                    "suggested": predictions.classes[int(issues.suggested[number])],
                    "confidence": percent(float(predictions.confidence[position]), 1),
                    "quality": float(issues.quality[number]),
                    "image": None if places is None else (split, int(places[number])),
                }
            )
    if not counts:
        return None
    found.sort(key=lambda issue: float(str(issue["quality"])))
    with_image = [issue for issue in found if issue["image"] is not None][:MAX_SHOWN]
    return {
        "counts": counts,
        "total": len(found),
        "shown": [issue | _image(images, issue["image"]) for issue in with_image],
        "listed": found[:MAX_LISTED],
    }


def _split_name(split: str, record: RunRecord) -> str:
    """The displayed name of a split; row numbers of held-out validation are those of train."""
    if split != "val":
        return split
    return "held-out train" if record.splits.get("val_rows") else "validation"


def _image(images: Mapping[str, ImageSet | None], at: Any) -> dict[str, Any]:
    split, place = at
    part = images[split]
    assert part is not None
    image = part.images[place]
    return {"source": data_uri(image), "pixelated": max(image.shape[:2]) <= PIXELATED_UP_TO}
