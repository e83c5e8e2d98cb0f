"""Out-of-distribution (OOD) detection: scores, thresholds and metrics.

Every score is larger for known images. Scores are computed from the outputs of `model.onnx`, without PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet
from thirtytwo.errors import DataError, RunError, require
from thirtytwo.evaluation.calibration import LEAST_IMAGES
from thirtytwo.evaluation.checks import DIVERGED, check_finite
from thirtytwo.evaluation.evaluators import Context, Evaluator, Option, Request, register
from thirtytwo.evaluation.metrics import proportion
from thirtytwo.evaluation.sections import Cell, Section, Table
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import interval, percent

FALSE_ALARM_RATE = 0.05
"""Fraction of validation images below the threshold for unknown images."""

Floats = npt.NDArray[np.float64]


def class_means(features: npt.ArrayLike, labels: npt.ArrayLike, classes: int) -> npt.NDArray[np.float32]:
    """Compute the mean direction of each class's features.

    Args:
        features: features of training images, `(N, D)`; normalized to length 1 here.
        labels: int `(N,)`, 0 to `classes` - 1.
        classes: number of classes, C.

    Returns:
        Float32 `(C, D)`, rows of length 1; 0 for a class without images.

    Raises:
        DataError: features are not finite, or labels do not match them.
    """
    directions, truth = _normalize(features), np.asarray(labels)
    if truth.shape != (len(directions),) or (len(truth) and not 0 <= truth.min() <= truth.max() < classes):
        raise DataError(f"Labels must be {len(directions)} integers from 0 to {classes - 1}, one per row of features.")
    sums = np.zeros((classes, directions.shape[1]))
    np.add.at(sums, truth, directions)
    return _normalize(sums)


def class_mean(features: npt.ArrayLike, means: npt.ArrayLike) -> Floats:
    """Cosine between each image's features and the nearest class mean, -1..1; `(N, D)` and `(C, D)` → `(N,)`.

    After Techapanurak et al. 2019 (arXiv 1905.10628), with class means instead of trained weights.
    """
    return np.asarray((_normalize(features) @ np.asarray(means, dtype=np.float32).T).max(axis=1), dtype=np.float64)


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Area under the ROC curve: the probability that a known image scores above an unknown one; 0.5 is chance.

    Raises:
        DataError: there are no scores of one kind, or NaN.
    """
    above, below = _validate_scores(known, "known"), _validate_scores(unknown, "unknown")
    labels = np.repeat([1, 0], [len(above), len(below)])
    return float(require("sklearn.metrics", "train").roc_auc_score(labels, np.concatenate([above, below])))


def fpr_at_tpr(known: npt.ArrayLike, unknown: npt.ArrayLike, tpr: float = 0.95) -> float:
    """False positive rate, the share of unknown images accepted as known, where at least `tpr` of known ones are.

    Raises:
        DataError: as for `auroc`.
    """
    kept, others = np.sort(_validate_scores(known, "known"))[::-1], _validate_scores(unknown, "unknown")
    rank = int(np.ceil(round(tpr * len(kept), 9)))
    return float((others >= kept[max(rank, 1) - 1]).mean())


def false_alarms(known: npt.ArrayLike, threshold: float) -> float:
    """Share of images that score below the threshold and are marked unknown; for known images, the false alarm rate."""
    return float((_validate_scores(known, "known") < threshold).mean())


def threshold_at(known: npt.ArrayLike, share: float = 0.05) -> float:
    """Threshold below which `share` of the known images score."""
    return float(np.quantile(_validate_scores(known, "known"), share))


def measure_unknown(known: npt.ArrayLike, unknown: npt.ArrayLike, threshold: float) -> dict[str, Any]:
    """Evaluate OOD detection: AUROC, FPR at 95 % TPR, and the share of unknown images below `threshold`."""
    return {
        "auroc": auroc(known, unknown),
        "fpr95": fpr_at_tpr(known, unknown),
        "called_unknown": false_alarms(unknown, threshold),
    }


def _validate_scores(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or not len(checked):
        raise DataError(f"Scores of {what} images must have the shape (N,), N at least 1; found {checked.shape}.")
    if np.isnan(checked).any():
        raise DataError(f"{int(np.isnan(checked).sum())} of {len(checked)} scores of {what} images are NaN.")
    return checked


def _validate(values: npt.ArrayLike, what: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] < 1:
        raise DataError(f"The {what} must have the shape (N, columns); found {checked.shape}.")
    check_finite(checked, what, DIVERGED)
    return checked


def _normalize(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    checked = _validate(values, "features")
    lengths = np.linalg.norm(checked, axis=1, keepdims=True)
    return np.asarray(checked / np.maximum(lengths, 1e-12), dtype=np.float32)


Scores = npt.NDArray[np.float64]

GENERATED = 1000
"""Number of generated images of noise, and of plain colors."""
FEWEST, FULL_SIDE = 200, 64
"""Smallest number of images of a default set, and the side in pixels up to which there are more."""
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
        "what": "log odds of the most probable class, computed by the network",
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


def ood_record(
    known_score: Callable[[Pixels], Scores],
    info: ModelInfo,
    *,
    validation: dict[str, Any] | None,
    test: Scores,
    sets: Iterable[OodSet | Skipped],
) -> dict[str, Any] | None:
    """The entry `unknown` of `metrics.json`: false alarm rate and OOD detection; None without a threshold.

    Args:
        known_score: returns the scores `(N,)` of images uint8 `(N, S, S, 3)`.
        info: the model's metadata.
        validation: `validation_false_alarms` of the validation images.
        test: the scores `(N,)` of the test images.
        sets: those of `ood_sets`.
    """
    threshold = info.unknown_threshold
    if threshold is None:
        return None
    against, skipped = [], []
    for one in sets:
        if isinstance(one, Skipped):
            skipped.append({"name": one.name, "reason": one.reason})
            continue
        measured = measure_unknown(test, known_score(one.images), threshold)
        described = {"name": one.name, "what": one.what, "source": one.source, "n": len(one.images)}
        against.append(described | measured)
    alarms = int((test < threshold).sum())
    return {
        **SCORES[info.unknown_score],
        "share": FALSE_ALARM_RATE,
        "threshold": threshold,
        "validation": validation,
        "test": {
            "called_unknown": proportion(alarms, len(test)),
            "n": len(test),
        },
        "against": against,
        "skipped": skipped,
    }


def validation_false_alarms(scores: Scores | None, info: ModelInfo) -> dict[str, Any] | None:
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
    """Check that the model has a threshold for unknown images.

    Raises:
        RunError: it has none, or one for another score.
    """
    if info.unknown_threshold is None or info.unknown_score not in SCORES:
        raise RunError(
            "This model has no threshold for unknown images, so OOD detection cannot be evaluated.",
            f"Train with at least {LEAST_IMAGES} validation images (data.val_fraction): the threshold is set on them.",
        )


def _default_sets(info: ModelInfo) -> Iterator[OodSet | Skipped]:
    """OOD images that are the same on every machine."""
    size = info.input_size
    digits = load_dataset("digits", image_size=size, resize=info.resize)
    packaged = "scikit-learn, load_digits"
    count = _generated_count(size)
    most = None if size <= FULL_SIDE else count
    yield skipped_for(digits, info) or OodSet("digits", "handwritten digits", packaged, _sample(digits, most))
    random = np.random.default_rng(SEED)
    generated = f"generated with seed {SEED}"
    noise = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    yield OodSet("noise", "noise, uniform in each value", generated, noise)
    yield OodSet("colours", "plain colors, one in each image", generated, plain_colors(count, size, random))


def _generated_count(size: int) -> int:
    """Number of images of a default set: fewer where they are large, so that scoring them takes seconds."""
    return max(FEWEST, min(GENERATED, GENERATED * FULL_SIDE**2 // size**2))


_REQUESTED, _FINGERPRINT = "requested as ", ", fingerprint "


def requested_data(row: Mapping[str, Any]) -> str | None:
    """The data of a row of `against` as it was asked for; None for default images."""
    source = str(row.get("source") or "")
    return source.removeprefix(_REQUESTED).rpartition(_FINGERPRINT)[0] if source.startswith(_REQUESTED) else None


def _from_data(spec: str, info: ModelInfo, data_root: Path | None, most: int) -> OodSet | Skipped:
    found = load_dataset(spec, data_root=data_root, image_size=info.input_size, resize=info.resize, whole=True)
    source = f"{_REQUESTED}{spec}{_FINGERPRINT}{found.fingerprint}"
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


@register
class OodEvaluator(Evaluator):
    """Detection of images unlike the training data."""

    key, title, default = "unknown", "Out-of-distribution (unknown) images", True
    order = 3
    options = (
        Option("ood", str, (), "Also measure detection of this out-of-distribution data; may be repeated.", "DATA"),
    )

    def check(self, request: Request) -> Any:
        """Load the class means and the OOD images.

        Raises:
            RunError: the model has no threshold for unknown images, or the class means are missing.
            DataError: a requested data set cannot be read, or the run's own test is not evaluated.
        """
        asked = request.options.get("ood", ())
        if asked and not (request.own and request.split == "test"):
            raise DataError(
                "OOD metrics compare other data with the run's own test, which is not evaluated here.",
                "Omit --ood, or --data and --split.",
            )
        if asked:
            check_thresholded(request.info)
        return request.class_means(), ood_sets(request.info, asked, request.data_root)

    def measure(self, context: Context) -> dict[str, Any] | None:
        """Compute the false alarm rate and the detection of each set of OOD images."""
        means, sets = context.prepared
        context.log("evaluating OOD detection")
        for one in sets:
            if isinstance(one, Skipped):
                context.log(f"skipped {one.name}: {one.reason}")
        network = context.network
        return ood_record(
            lambda images: network.known_scores(network.outputs(images)[1], means),
            context.info,
            validation=context.validation.false_alarms,
            test=network.known_scores(context.features, means),
            sets=sets,
        )

    def describe(self, record: Mapping[str, Any], split: str) -> Section:
        """Threshold, false alarm rate, and detection of each set of OOD images."""
        rows = tuple(
            (
                Cell(row.get("what") or row["name"]),
                Cell(f"{row['n']:,}"),
                Cell(f"{row['auroc']:.3f}"),
                Cell(percent(row["fpr95"])),
                Cell(percent(row["called_unknown"])),
            )
            for row in record.get("against") or ()
        )
        skipped = [f"{row['name']}: {row['reason']}" for row in record.get("skipped") or ()]
        notes = [
            (
                f"AUROC is the probability that a {split} image has a higher score than an OOD image: 1 is perfect, "
                "0.5 is chance."
            ),
            (
                "False positives at 95\u00a0%: share of OOD images accepted as known by a threshold that accepts "
                f"95\u00a0% of {split}; lower is better."
            ),
            "Marked unknown: share of OOD images below the threshold above; higher is better.",
        ]
        return Section(
            sentences=_unknown_sentences(record, split),
            tables=(Table(("OOD data", "Images", "AUROC", "False positives at 95\u00a0%", "Marked unknown"), rows),)
            if rows
            else (),
            notes=(*(notes if rows else ()), *([f"Not measured: {'; '.join(skipped)}."] if skipped else [])),
        )


def _unknown_sentences(record: Mapping[str, Any], split: str) -> tuple[str, ...]:
    validation, test = record.get("validation") or {}, record.get("test")
    what, source = ((record.get(key) or "").strip().rstrip(".") for key in ("what", "source"))
    called = validation.get("called_unknown")
    measured = "" if called is None else f" ({percent(called)} of {validation['n']:,} are)"
    found = [
        f"An image is marked unknown if its score is below {record['threshold']:.4g}.",
        f"The score ({str(record['score']).replace('_', ' ')}): {what}{f', {source}' if source else ''}.",
        f"The threshold is set so that {100 * record['share']:g}\u00a0% of validation images are below it{measured}.",
    ]
    if test:
        alarms = test["called_unknown"]
        found.append(
            f"False alarm rate: {percent(alarms['value'])} of {test['n']:,} {split} images, all of the model's "
            f"classes, are marked unknown (95\u00a0% interval {interval(alarms['ci95'])})."
        )
    return tuple(found)
