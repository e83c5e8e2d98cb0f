"""Out-of-distribution images: which a model is tried with, and how many it takes for unknown.

The same on every machine: what is measured without being asked comes with the packages or is made from a fixed seed.
Data that lies on this disk is used only where it is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RunError
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.evaluation.ood import false_alarms, measure_unknown
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.workflows.scoring import CALLED_UNKNOWN

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]

MADE = 1000
"""Images of noise, and of plain colors."""
MOST = 2000
"""Images of a data set that is asked for, at most."""
SEED = 0
SCORES = {
    "class_mean": {
        "score": "class_mean",
        "what": "cosine between a picture's features and the nearest class mean",
        "source": "after Techapanurak et al. 2019, arXiv 1905.10628",
    },
    "network": {
        "score": "network",
        "what": "logarithm of the evidence for the likeliest class, which the network gives itself",
        "source": "largest softmax probability, after Hendrycks and Gimpel 2017, arXiv 1610.02136",
    },
}
"""What tells known images from unknown ones, by `unknown_score` of the model file."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class OodSet:
    """Images uint8 `(N, S, S, 3)` of none of the model's classes, and where they come from."""

    name: str
    what: str
    source: str
    images: Pixels


@dataclass(frozen=True)
class Skipped:
    """A data set that is no OOD data for this model, and why."""

    name: str
    reason: str


def strangers_record(
    scorer: Scorer,
    means: npt.NDArray[np.float32],
    info: ModelInfo,
    *,
    validation: dict[str, Any] | None,
    test: Scores,
    sets: Iterable[OodSet | Skipped],
) -> dict[str, Any] | None:
    """The entry `unknown` of `metrics.json`: false alarms, and how well OOD images are told; None without a threshold.

    `validation` is `validation_alarms` of the validation images, `test` the scores `(N,)` of the test images, `sets`
    those of `ood_sets`.
    """
    threshold = info.unknown_threshold
    if threshold is None:
        return None
    against, skipped = [], []
    for one in sets:
        if isinstance(one, Skipped):
            skipped.append({"name": one.name, "reason": one.reason})
            continue
        measured = measure_unknown(test, scorer.known_scores(scorer.outputs(one.images)[1], means), threshold)
        told = {"name": one.name, "what": one.what, "source": one.source, "n": len(one.images)}
        against.append(told | measured)
    alarms = int((test < threshold).sum())
    return {
        **SCORES[info.unknown_score],
        "share": CALLED_UNKNOWN,
        "threshold": threshold,
        "validation": validation,
        "test": {
            "called_unknown": {"value": alarms / len(test), "ci95": list(wilson(alarms, len(test)))},
            "n": len(test),
        },
        "against": against,
        "skipped": skipped,
    }


def validation_alarms(scores: Scores | None, info: ModelInfo) -> dict[str, Any] | None:
    """How many validation images, with these scores `(N,)`, are called unknown; None where there are none."""
    if scores is None or info.unknown_threshold is None:
        return None
    return {"called_unknown": false_alarms(scores, info.unknown_threshold), "n": len(scores)}


def ood_sets(
    info: ModelInfo, asked: Sequence[str] = (), data_root: Path | None = None, most: int = MOST
) -> list[OodSet | Skipped]:
    """What every model is tried with, and then the data sets `asked` for, of each at most `most` images.

    Raises:
        DataError: one that was asked for cannot be read.
    """
    return [*_always(info), *(_of_data(spec, info, data_root, most) for spec in asked)]


def check_thresholded(info: ModelInfo) -> None:
    """Refuse to measure OOD detection of a model that calls nothing unknown.

    Raises:
        RunError: it has no threshold, or one of another score.
    """
    if info.unknown_threshold is None or info.unknown_score not in SCORES:
        raise RunError(
            "This model has no threshold below which it calls an image unknown, so --ood has nothing to measure.",
            "Train with data.val_fraction above 0; the threshold is set on validation.",
        )


def _always(info: ModelInfo) -> Iterator[OodSet | Skipped]:
    """Images that are the same on every machine."""
    size = info.input_size
    digits = load_dataset("digits", image_size=size, resize=info.resize)
    packaged = "scikit-learn's load_digits, packaged with it"
    yield skipped_for(digits, info) or OodSet("digits", "handwritten digits", packaged, _drawn(digits, None))
    random = np.random.default_rng(SEED)
    made = f"made with seed {SEED}"
    noise = random.integers(0, 256, (MADE, size, size, 3), dtype=np.uint8)
    yield OodSet("noise", "noise, each value drawn evenly", made, noise)
    yield OodSet("colours", "one plain colour each", made, plain_colours(MADE, size, random))


def _of_data(spec: str, info: ModelInfo, data_root: Path | None, most: int) -> OodSet | Skipped:
    found = load_dataset(spec, data_root=data_root, image_size=info.input_size, resize=info.resize, whole=True)
    source = f"asked for as {spec}, fingerprint {found.fingerprint}"
    return skipped_for(found, info) or OodSet(found.name, f"images of {found.name}", source, _drawn(found, most))


def skipped_for(found: DataSet, info: ModelInfo) -> Skipped | None:
    """Why a data set is no OOD data for this model; None where it is."""
    shared = shared_classes(info.classes, found.classes)
    if not shared:
        return None
    more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
    return Skipped(found.name, f"it shares classes with the model: {', '.join(shared[:3])}{more}")


def shared_classes(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Which of `theirs` are among `ours`, capitals, underscores and the spelling of digits aside."""
    known = {_plain(name) for name in ours}
    return [name for name in theirs if _plain(name) in known]


def _plain(name: str) -> str:
    """`Fire_Truck` as `fire truck`; `3`, `Three`, `3 - three` and `digit_3` all as `3`."""
    words = name.casefold().replace("_", " ").replace("-", " ").split()
    digits = {str(DIGITS.index(word)) if word in DIGITS else word for word in words if word not in ("digit", "number")}
    alone = next(iter(digits)) if len(digits) == 1 else ""
    return alone if alone.isdigit() else " ".join(words)


def _drawn(found: DataSet, most: int | None) -> Pixels:
    """At most `most` images of all parts of a data set, drawn with a fixed seed; None: all of them."""
    parts = [part.images for part in (found.train, found.val, found.test) if part is not None and len(part)]
    count = sum(len(part) for part in parts)
    places = np.arange(count)
    if most is not None and count > most:
        places = np.sort(np.random.default_rng(SEED).permutation(count)[:most])
    drawn, start = [], 0
    for part in parts:
        inside = places[(places >= start) & (places < start + len(part))] - start
        drawn.append(part[inside])
        start += len(part)
    return np.concatenate(drawn)


def plain_colours(count: int, size: int, random: np.random.Generator) -> Pixels:
    """Pictures of one colour each, uint8 `(count, size, size, 3)`."""
    colours = random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (count, size, size, 3)))
