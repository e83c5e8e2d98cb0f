"""T611: splits that a probe can distinguish."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.base import CHECKS, Check, Finding, Place
from thirtytwo.doctor.probe import auroc, chance_error, cross_validated, folds_of, threshold
from thirtytwo.doctor.subject import Subject

LEAST_AUROC = 0.6
"""AUROC of images of the same class in two splits, from which these are reported."""
NAMES = (
    "brightness",
    "contrast",
    "sharpness",
    "saturation",
    "red",
    "green",
    "blue",
    "width",
    "height",
    "bytes per pixel",
)
_EXAMPLES = 8
_FIX_CUT = (
    "Large groups of similar images that stay on one side make such a difference: divide the data into train/ and "
    "test/ yourself, or try another data.split_seed before you train."
)

Floats = npt.NDArray[np.float64]


@CHECKS.register("T611")
class Drift(Check):
    """Training images that a probe tells from those of another split by simple statistics."""

    code = "T611"
    title = "splits that differ in simple statistics"
    severity = "warning"
    why = (
        "The accuracy on images that differ from those of training is often lower. The splits may come from "
        "other cameras, places or days. If that is intended, expect it; if not, the split was not random."
    )
    fix = "Split at random (by group where images belong together), or record from where each split comes."

    def run(self, subject: Subject) -> Iterator[Finding]:
        """The training images are compared with those of every other split, class by class."""
        for name, images in subject.splits.items():
            if name != "train" and len(images):
                yield from self._compare(subject, name)

    def _compare(self, subject: Subject, name: str) -> Iterator[Finding]:
        train, other = statistics_of(subject, "train"), statistics_of(subject, name)
        labels = np.concatenate([subject.splits["train"].labels, subject.splits[name].labels])
        is_other = np.arange(len(labels)) >= len(train)
        scores = split_scores(np.concatenate([train, other]), is_other)
        value, deviation = within_classes(scores, is_other, labels)
        if value < LEAST_AUROC or deviation < threshold(1):
            return
        order = np.argsort(-scores[is_other], kind="stable")[:_EXAMPLES]
        cut = name == "test" and subject.data.test_is_cut
        yield self.finding(
            f"The images of {name} can be distinguished from those of train by simple statistics "
            f"(AUROC {value:.3f}, chance is 0.5); most different: {differences(train, other, name)}."
            + (" It was split off at random here, since the data has no test split." if cut else ""),
            [[Place(name, int(position)) for position in order]],
            notes=[f"most unlike train: AUROC {value:.3f}"],
            severity="note" if cut else None,
            fix=_FIX_CUT if cut else None,
        )


def statistics_of(subject: Subject, split: str) -> Floats:
    """Statistics of a split's images in the order of `NAMES`, `(N, 10)`; NaN where the data is not files."""
    pixels = subject.pixel_statistics[split].table().astype(np.float64)
    files = np.full((len(pixels), 3), math.nan)
    for position, facts in enumerate((subject.file_facts or {}).get(split, ())):
        if facts is not None:
            files[position] = (*facts.upright, facts.bytes / (facts.width * facts.height))
    return np.concatenate([pixels, files], axis=1)


def split_scores(features: Floats, is_other: npt.NDArray[np.bool_]) -> Floats:
    """Score of each image, `(N,)`: the larger, the more like the other split; each by a probe that did not see it."""
    number = is_other.astype(np.int64)
    return cross_validated(features, is_other[:, None].astype(np.float64), folds_of(number))[:, 0]


def within_classes(
    scores: Floats, is_other: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Mean AUROC of two images of one class, and its distance from chance in standard deviations.

    Within classes, because splits with other shares of the classes differ in their statistics for that reason alone.
    """
    total = gain = variance = 0.0
    for label in np.unique(labels):
        members = labels == label
        inside, outside = int((members & is_other).sum()), int((members & ~is_other).sum())
        if inside and outside:
            weight = inside + outside
            total += weight
            gain += weight * (auroc(scores[members], is_other[members]) - 0.5)
            variance += (weight * chance_error(inside, outside)) ** 2
    return (0.5 + gain / total, gain / math.sqrt(variance)) if total else (0.5, 0.0)


def differences(train: Floats, other: Floats, name: str) -> str:
    """The three statistics whose means differ most in standard deviations, with the means of both splits."""
    known = np.isfinite(train).any(axis=0) & np.isfinite(other).any(axis=0)
    columns = np.flatnonzero(known)
    means = np.nanmean(train[:, columns], axis=0), np.nanmean(other[:, columns], axis=0)
    scale = np.nanstd(np.concatenate([train, other])[:, columns], axis=0)
    order = np.argsort(-np.abs(means[1] - means[0]) / np.maximum(scale, 1e-9))[:3]
    return ", ".join(
        f"{NAMES[columns[at]]} {means[0][at]:.3g} in train and {means[1][at]:.3g} in {name}" for at in order
    )
