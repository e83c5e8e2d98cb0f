"""Out-of-distribution (OOD) images to evaluate a model on, and the metrics of its OOD detection.

Results are the same on every machine: the default OOD images come with installed packages or are generated from a fixed
seed. Other data is used only where it is named.
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

GENERATED = 1000
"""Number of generated images of noise, and of plain colors."""
MAX_IMAGES = 2000
"""Maximum number of images of a requested data set."""
SEED = 0
SCORES = {
    "class_mean": {
        "score": "class_mean",
        "what": "cosine similarity of an image's features to the nearest class mean",
        "source": "after Techapanurak et al. 2019, arXiv 1905.10628",
    },
    "network": {
        "score": "network",
        "what": "logarithm of the largest class probability, computed by the network",
        "source": "largest softmax probability, after Hendrycks and Gimpel 2017, arXiv 1610.02136",
    },
}
"""Descriptions of the scores for OOD detection, by `unknown_score` of the model file."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class OodSet:
    """Images, uint8 `(N, S, S, 3)`, of none of the model's classes, and their source."""

    name: str
    what: str
    source: str
    images: Pixels


@dataclass(frozen=True)
class Skipped:
    """A data set that cannot serve as OOD data for this model, and the reason."""

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
    """The entry `unknown` of `metrics.json`: false alarm rate and OOD detection; None without a threshold.

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
        described = {"name": one.name, "what": one.what, "source": one.source, "n": len(one.images)}
        against.append(described | measured)
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
    """The false alarm rate on validation images with these scores `(N,)`; None without validation or threshold."""
    if scores is None or info.unknown_threshold is None:
        return None
    return {"called_unknown": false_alarms(scores, info.unknown_threshold), "n": len(scores)}


def ood_sets(
    info: ModelInfo, asked: Sequence[str] = (), data_root: Path | None = None, most: int = MAX_IMAGES
) -> list[OodSet | Skipped]:
    """The default OOD images, then those of the data sets `asked` for, at most `most` of each.

    Raises:
        DataError: a requested data set cannot be read.
    """
    return [*_default_sets(info), *(_from_data(spec, info, data_root, most) for spec in asked)]


def check_thresholded(info: ModelInfo) -> None:
    """Check that the model has a threshold for unknown.

    Raises:
        RunError: it has none, or one for another score.
    """
    if info.unknown_threshold is None or info.unknown_score not in SCORES:
        raise RunError(
            "This model has no threshold for unknown images, so OOD detection cannot be evaluated.",
            "Train with data.val_fraction above 0: the threshold is set on validation.",
        )


def _default_sets(info: ModelInfo) -> Iterator[OodSet | Skipped]:
    """OOD images that are the same on every machine."""
    size = info.input_size
    digits = load_dataset("digits", image_size=size, resize=info.resize)
    packaged = "scikit-learn, load_digits"
    yield skipped_for(digits, info) or OodSet("digits", "handwritten digits", packaged, _sample(digits, None))
    random = np.random.default_rng(SEED)
    generated = f"generated with seed {SEED}"
    noise = random.integers(0, 256, (GENERATED, size, size, 3), dtype=np.uint8)
    yield OodSet("noise", "noise, uniform in each value", generated, noise)
    yield OodSet("colours", "plain colors, one in each image", generated, plain_colors(GENERATED, size, random))


def _from_data(spec: str, info: ModelInfo, data_root: Path | None, most: int) -> OodSet | Skipped:
    found = load_dataset(spec, data_root=data_root, image_size=info.input_size, resize=info.resize, whole=True)
    source = f"requested as {spec}, fingerprint {found.fingerprint}"
    return skipped_for(found, info) or OodSet(found.name, f"images of {found.name}", source, _sample(found, most))


def skipped_for(found: DataSet, info: ModelInfo) -> Skipped | None:
    """The reason why a data set cannot serve as OOD data for this model; None where it can."""
    shared = shared_classes(info.classes, found.classes)
    if not shared:
        return None
    more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
    return Skipped(found.name, f"it shares classes with the model: {', '.join(shared[:3])}{more}")


def shared_classes(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    """Which of `theirs` are among `ours`, ignoring case, underscores and the spelling of digits."""
    known = {_normalize_name(name) for name in ours}
    return [name for name in theirs if _normalize_name(name) in known]


def _normalize_name(name: str) -> str:
    """`Fire_Truck` as `fire truck`; `3`, `Three`, `3 - three` and `digit_3` all as `3`."""
    words = name.casefold().replace("_", " ").replace("-", " ").split()
    digits = {str(DIGITS.index(word)) if word in DIGITS else word for word in words if word not in ("digit", "number")}
    alone = next(iter(digits)) if len(digits) == 1 else ""
    return alone if alone.isdigit() else " ".join(words)


def _sample(found: DataSet, most: int | None) -> Pixels:
    """At most `most` images of all splits of a data set, sampled with a fixed seed; None: all of them."""
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


def plain_colors(count: int, size: int, random: np.random.Generator) -> Pixels:
    """Images of one color each, uint8 `(count, size, size, 3)`."""
    colors = random.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colors, (count, size, size, 3)))
