"""Fit a linear probe for new classes: the layer, its accuracy, calibration and unknown threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, ModelFileError
from thirtytwo.evaluation.calibration import softmax
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.evaluation.ood import class_means, threshold_at
from thirtytwo.fewshot.cross_validation import CrossValidation, cross_validate
from thirtytwo.fewshot.graph import write_probe_model
from thirtytwo.fewshot.head import DEFAULT_PENALTY, Floats, Head, Labels, blend_for, fit_head
from thirtytwo.fewshot.next_steps import NextStep, suggest_next_steps
from thirtytwo.fewshot.verdict import Verdict, assess
from thirtytwo.fewshot.views import VIEWS, check_views, make_views
from thirtytwo.images.pixels import Pixels, ResizeRule
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.library import model_name
from thirtytwo.inference.model_file import FewShotInfo, ModelInfo
from thirtytwo.machine import package_version
from thirtytwo.predictions import Predictions
from thirtytwo.text import interval, percent

LEAST, MOST = 1, 200
"""Minimum and maximum number of different images per class."""
LEAST_TO_ESTIMATE = 2
"""Number of images in every class from which the accuracy can be estimated."""
MOST_CLASSES = 100
MOST_SINGLE_VIEW = 1000
"""Number of images above which only one view of each is used by default."""
CALLED_UNKNOWN = 0.05
"""Share of held-out images that the threshold marks unknown."""
INDEPENDENT = 0.6
"""Held-out predictions share training images, so N of them say as much about the accuracy on new images as this share
of N independent ones; chosen on the development half of `benchmarks/fewshot.py`, which measures the coverage."""
_BATCH = 32


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear probe: a network with a new last layer for new classes.

    `head` and `means` (class means of the features, float32 `(C, D)`) are fitted on all images, on features of length
    1. `held_out` holds calibrated cross-validation predictions of `images`, uint8 `(N, S, S, 3)`; it is None where a
    class has a single image.
    """

    base: Path
    info: ModelInfo
    head: Head
    means: npt.NDArray[np.float32]
    images: Pixels
    labels: Labels
    held_out: Predictions | None
    folds: int
    views: int
    penalty: float
    penalty_chosen: bool

    @property
    def accuracy(self) -> dict[str, Any] | None:
        """Expected accuracy on new images with its 95 % interval, in the form of `metrics.json`; None: no estimate."""
        if self.held_out is None:
            return None
        return expected_accuracy(self.held_out.correct)

    @property
    def expectation(self) -> str:
        """The expected accuracy as a phrase."""
        found = self.accuracy
        if found is None:
            return f"cannot be estimated, because a class has fewer than {LEAST_TO_ESTIMATE} images"
        return (
            f"{percent(found['value'])}, 95\u00a0% interval {interval(found['ci95'])} "
            f"({self.folds}-fold cross-validation, {len(self.labels)} images)"
        )

    @property
    def counts(self) -> list[int]:
        """Number of images of each class."""
        return [int(count) for count in np.bincount(self.labels, minlength=len(self.info.classes))]

    @property
    def right(self) -> list[int | None]:
        """Number of images of each class that cross-validation predicts correctly; None: no estimate."""
        if self.held_out is None:
            return [None] * len(self.info.classes)
        hits = np.bincount(self.labels[self.held_out.correct], minlength=len(self.info.classes))
        return [int(count) for count in hits]

    @property
    def verdict(self) -> Verdict | None:
        """The expected accuracy compared with guessing; None: no estimate."""
        return assess(self.accuracy, self.counts)

    def next_steps(self, alike: Sequence[Sequence[int]] = ()) -> list[NextStep]:
        """What to do next to improve it; `alike` as in `suggest_next_steps`, of positions in `images`."""
        return suggest_next_steps(dict(zip(self.info.classes, self.counts, strict=True)), self.held_out, alike)

    @property
    def notes(self) -> list[str]:
        """How the probe was fitted, as sentences."""
        how = "chosen by cross-validation" if self.penalty_chosen else "the default: too few images to choose it"
        notes = [f"Penalty {self.penalty:g} ({how}); {self.views} view{'s' if self.views > 1 else ''} of each image."]
        if self.info.unknown_threshold is None:
            notes.append("No image will be marked unknown, because a class has a single image.")
        return notes

    def write(self, path: Path) -> Path:
        """Write a model file with the new classes to `path`, atomically.

        Raises:
            MissingExtraError: the library `onnx` is not installed.
            ModelFileError: the base model does not support new classes.
        """
        write_probe_model(self.base, path, self.info, self.head.weights, self.head.bias, self.means)
        return path


def expected_accuracy(correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Expected accuracy on new images with a 95 % interval, from whether held-out predictions are correct, `(N,)`.

    Wilson's interval for `INDEPENDENT` times as many images.
    """
    count = len(correct)
    value = float(correct.mean())
    low, high = wilson(value * count * INDEPENDENT, count * INDEPENDENT)
    return {"value": value, "ci95": [low, high]}


def fit_linear_probe(
    classifier: Classifier,
    images: Mapping[str, Sequence[Pixels]],
    *,
    views: int | None = None,
    resize: ResizeRule | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Fit a linear probe for new classes from a few images each; takes seconds.

    A logistic layer is fitted on the mean features of several views of each image. Its penalty, the temperature, the
    expected accuracy and the unknown threshold come from cross-validation, in which the views of an image stay
    together.

    Args:
        classifier: the model whose network is used; its classes are replaced.
        images: images of each class by its name, uint8 `(S, S, 3)` of the model's input size; duplicates are dropped.
        views: number of views of each image; by default `VIEWS`, or 1 for many images.
        resize: the rule by which the images were resized, which the new model applies; by default the base model's.
        seed: seed of the cross-validation folds.

    Raises:
        DataError: there are fewer than 2 classes, a class has no name or too few or too many images, two classes
            contain the same image, or there is no such number of views.
        ModelFileError: the model file has no features.
    """
    kept = _validate(images)
    classes = tuple(kept)
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in kept.values()]).astype(np.int64)
    used = views if views is not None else (VIEWS if len(labels) <= MOST_SINGLE_VIEW else 1)
    check_views(used)
    if "features" not in {output.name for output in classifier.session.get_outputs()}:
        raise ModelFileError(
            f"{classifier.path} has no output 'features', which a linear probe needs.",
            "Use a model exported by this version of thirtytwo.",
        )
    pixels = np.concatenate([np.stack(found) for found in kept.values()])
    plain, averaged = view_features(classifier, pixels, used)
    found = None
    if np.bincount(labels).min() >= LEAST_TO_ESTIMATE:
        found = cross_validate(plain, averaged, labels, len(classes), seed=seed)
    penalty = found.penalty if found else DEFAULT_PENALTY
    held_out = _held_out(classes, labels, found) if found else None
    info = _probe_info(classifier.info, classes, len(labels), found).model_copy(
        update={"few_shot": _few_shot_info(classifier.path, labels, held_out, found)}
    )
    return LinearProbe(
        base=classifier.path,
        info=info if resize is None else info.model_copy(update={"resize": resize}),
        head=fit_head(averaged, labels, len(classes), penalty, blend=blend_for(labels, len(classes))),
        means=class_means(averaged, labels, len(classes)),
        images=pixels,
        labels=labels,
        held_out=held_out,
        folds=found.folds if found else 0,
        views=used,
        penalty=penalty,
        penalty_chosen=bool(found and found.chosen),
    )


def view_features(classifier: Classifier, pixels: Pixels, views: int) -> tuple[Floats, Floats]:
    """Features of images and the mean features of their views, each `(N, D)`, both of features of length 1."""
    total: Floats | None = None
    plain: Floats | None = None
    for view in make_views(pixels, views):
        features = classifier.run_batches(view, ("features",), _BATCH)["features"].astype(np.float64)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        plain = features if plain is None else plain
        total = features if total is None else total + features
    assert plain is not None
    assert total is not None
    return plain, total / views


def _held_out(classes: tuple[str, ...], labels: Labels, found: CrossValidation) -> Predictions:
    probabilities = softmax(found.logits, found.temperature).astype(np.float32)
    return Predictions(classes, labels, probabilities, np.arange(len(labels), dtype=np.int64))


def _probe_info(base: ModelInfo, classes: tuple[str, ...], images: int, found: CrossValidation | None) -> ModelInfo:
    """The metadata of a linear probe of `images` images."""
    return base.model_copy(
        update={
            "classes": classes,
            "temperature": found.temperature if found else 1.0,
            "curvature": 0.0,
            "unknown_score": "class_mean",
            "unknown_threshold": threshold_at(found.scores, CALLED_UNKNOWN) if found else None,
            "architecture": f"{base.architecture}, linear probe",
            "dataset": f"{images} images, on features of {base.dataset}",
            "accuracy": None,
            "tta": None,
            "version": package_version("thirtytwo"),
        }
    )


def _few_shot_info(
    base: Path, labels: Labels, held_out: Predictions | None, found: CrossValidation | None
) -> FewShotInfo:
    accuracy = None if held_out is None else expected_accuracy(held_out.correct)
    return FewShotInfo(
        base=model_name(base),
        counts=tuple(np.bincount(labels).tolist()),
        accuracy=accuracy["value"] if accuracy else None,
        ci95=tuple(accuracy["ci95"]) if accuracy else None,
        folds=found.folds if found else 0,
        date=datetime.now(UTC).date().isoformat(),
    )


def validate_counts(counts: Mapping[str, int], *, least: int = LEAST) -> None:
    """Check the number of classes and of the images of each, by its name.

    Raises:
        DataError: there are too few or too many classes, or images of a class.
    """
    more = "For more, train a network: thirtytwo train FOLDER"
    if not 2 <= len(counts) <= MOST_CLASSES:
        raise DataError(
            f"A linear probe needs 2 to {MOST_CLASSES} classes; found {len(counts):,}.",
            "Add a class." if len(counts) < 2 else more,
        )
    for name, count in counts.items():
        if not least <= count <= MOST:
            raise DataError(
                f"The class {name!r} has {count} images; expected {least} to {MOST}.",
                "Add images." if count < least else more,
            )


def _validate(images: Mapping[str, Sequence[Pixels]]) -> dict[str, list[Pixels]]:
    """Validate the images of each class and drop duplicates."""
    kept: dict[str, list[Pixels]] = {}
    class_of: dict[bytes, str] = {}
    for name, found in images.items():
        if not name.strip():
            raise DataError("A class has no name.", "Enter a name.")
        kept[name] = []
        for image in found:
            content = blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            if content not in class_of:
                kept[name].append(image)
            elif class_of[content] != name:
                raise DataError(
                    f"The classes {class_of[content]!r} and {name!r} contain the same image.",
                    "Remove it from one of them.",
                )
            class_of[content] = name
    validate_counts({name: len(found) for name, found in kept.items()})
    return kept
