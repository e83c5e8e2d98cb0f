"""Fit a linear probe for new classes: the layer, its accuracy, calibration and unknown threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, ModelFileError
from thirtytwo.evaluation.calibration import TEMPERATURE_BOUNDS, log_sum_exp, softmax
from thirtytwo.evaluation.metrics import proportion
from thirtytwo.evaluation.ood import class_mean, class_means, threshold_at
from thirtytwo.fewshot.graph import write_probe_model
from thirtytwo.images.decode import Pixels
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.machine import package_version
from thirtytwo.rundir import Predictions

PENALTY = 1e-3
"""Default L2 penalty, for features of mean squared norm 1; chosen by `benchmarks/fewshot.py`."""
_STEPS = 200

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer: logits `(N, C)` are features `(N, D)` @ `weights` `(D, C)` + `bias` `(C,)`."""

    weights: Floats
    bias: Floats

    def logits(self, features: npt.ArrayLike) -> Floats:
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weights + self.bias)


def fit_head(features: npt.ArrayLike, labels: Labels, classes: int, penalty: float = PENALTY) -> Head:
    """Fit the layer that minimizes the penalized, class-balanced cross-entropy.

    Nesterov's accelerated gradient method (1983) on centered features, in the subspace they span.

    Args:
        features: `(N, D)`.
        labels: int64 `(N,)`; every class occurs.
        classes: number of classes, `C`.
        penalty: weight of the squared norm of the weights.
    """
    raw = np.asarray(features, dtype=np.float64)
    counts = np.bincount(labels, minlength=classes)
    sample_weights = (1.0 / (classes * counts))[labels]  # (N,), sum to 1
    center = sample_weights @ raw  # (D,)
    centered = raw - center
    scale = np.sqrt(max(float(sample_weights @ (centered**2).sum(axis=1)), 1e-24))
    directions, coordinates = _project(centered / scale)  # (D, R) and (N, R)
    targets = np.eye(classes)[labels]
    curvature = float(np.linalg.norm(coordinates.T @ (coordinates * sample_weights[:, None]), 2))
    lipschitz = 0.5 * curvature + penalty  # Lipschitz constant of the gradient
    current = lookahead = np.zeros((coordinates.shape[1], classes))
    momentum = 1.0
    for _ in range(_STEPS):
        residuals = (softmax(coordinates @ lookahead) - targets) * sample_weights[:, None]  # (N, C)
        gradient = coordinates.T @ residuals + penalty * lookahead
        previous, current = current, lookahead - gradient / lipschitz
        last_momentum, momentum = momentum, (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        lookahead = current + (last_momentum - 1.0) / momentum * (current - previous)
    weights = directions @ current / scale
    return Head(weights, -center @ weights)


def _project(rows: Floats) -> tuple[Floats, Floats]:
    """Orthonormal basis `(D, R)` of the span of `rows` `(N, D)`, and the coordinates `(N, R)` of the rows."""
    _, singular_values, directions = np.linalg.svd(rows, full_matrices=False)
    basis = directions[singular_values > 1e-10 * max(float(singular_values[0]), 1e-300)].T
    return basis, rows @ basis


LEAST, MOST = 5, 200
"""Minimum and maximum number of different images per class."""
FOLDS = 10
"""Maximum number of cross-validation folds; fewer if a class has fewer images."""
CALLED_UNKNOWN = 0.05
"""Share of held-out images that the threshold marks unknown."""
_BATCH = 32
_TEMPERATURES = np.geomspace(*TEMPERATURE_BOUNDS, 400)


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A linear probe: a network with a new last layer for new classes.

    `head` and `means` (class means of the features, float32 `(C, D)`) are fitted on all images. `held_out` holds
    calibrated cross-validation predictions of `images`, uint8 `(N, S, S, 3)`.
    """

    base: Path
    info: ModelInfo
    head: Head
    means: npt.NDArray[np.float32]
    images: Pixels
    held_out: Predictions
    folds: int

    @property
    def accuracy(self) -> dict[str, Any]:
        """Cross-validated accuracy with Wilson's 95 % interval, in the form of `metrics.json`."""
        return proportion(int(self.held_out.correct.sum()), len(self.held_out.truth))

    def write(self, path: Path) -> Path:
        """Write a model file with the new classes to `path`, atomically.

        Raises:
            MissingExtraError: the library `onnx` is not installed.
            ModelFileError: the base model does not support new classes.
        """
        write_probe_model(self.base, path, self.info, self.head.weights, self.head.bias, self.means)
        return path


def fit_linear_probe(classifier: Classifier, images: Mapping[str, Sequence[Pixels]], *, seed: int = 0) -> LinearProbe:
    """Fit a linear probe for new classes from a few images each; takes seconds.

    A linear layer is fitted on the network's features of each image and its mirror image. The temperature and the
    unknown threshold are fitted on cross-validation predictions.

    Args:
        classifier: the model whose network is used; its classes are replaced.
        images: images of each class by its name, uint8 `(S, S, 3)` of the model's input size; duplicates are dropped.
        seed: seed of the cross-validation folds.

    Raises:
        DataError: there are fewer than 2 classes, a class has no name or too few or too many images, or two classes
            contain the same image.
        ModelFileError: the model file has no features.
    """
    kept = _validate(images)
    if "features" not in {output.name for output in classifier.session.get_outputs()}:
        raise ModelFileError(
            f"{classifier.path} has no output 'features', which a linear probe needs.",
            "Use a model exported by this version of thirtytwo.",
        )
    classes = tuple(kept)
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in kept.values()]).astype(np.int64)
    pixels = np.concatenate([np.stack(found) for found in kept.values()])
    features = _features(classifier, pixels)  # (N, D)
    mirrored = _features(classifier, pixels[:, :, ::-1])
    folds = min(FOLDS, *np.bincount(labels).tolist())
    logits, scores = _cross_validate(features, mirrored, labels, len(classes), _assign_folds(labels, folds, seed))
    temperature = _fit_temperature(logits, labels)
    augmented, augmented_labels = np.concatenate([features, mirrored]), np.concatenate([labels, labels])
    return LinearProbe(
        base=classifier.path,
        info=_probe_info(classifier.info, classes, len(labels), temperature, threshold_at(scores, CALLED_UNKNOWN)),
        head=fit_head(augmented, augmented_labels, len(classes)),
        means=class_means(augmented, augmented_labels, len(classes)),
        images=pixels,
        held_out=Predictions(
            classes, labels, softmax(logits, temperature).astype(np.float32), np.arange(len(labels), dtype=np.int64)
        ),
        folds=folds,
    )


def _probe_info(
    base: ModelInfo, classes: tuple[str, ...], images: int, temperature: float, threshold: float
) -> ModelInfo:
    """The metadata of a linear probe of `images` images; `threshold` is that for unknown."""
    return base.model_copy(
        update={
            "classes": classes,
            "temperature": temperature,
            "curvature": 0.0,
            "unknown_score": "class_mean",
            "unknown_threshold": threshold,
            "architecture": f"{base.architecture}, linear probe",
            "dataset": f"{images} images, on features of {base.dataset}",
            "accuracy": None,
            "version": package_version("thirtytwo"),
        }
    )


def _validate(images: Mapping[str, Sequence[Pixels]]) -> dict[str, list[Pixels]]:
    """Validate the images of each class and drop duplicates."""
    if len(images) < 2:
        raise DataError(f"A linear probe needs at least 2 classes; found {len(images)}.", "Add a class.")
    kept: dict[str, list[Pixels]] = {}
    class_of: dict[bytes, str] = {}
    for name, found in images.items():
        if not name.strip():
            raise DataError("A class has no name.", "Enter a name.")
        kept[name] = []
        for image in found:
            owner = class_of.setdefault(image.tobytes(), name)
            if owner != name:
                raise DataError(
                    f"The classes {owner!r} and {name!r} contain the same image.", "Remove it from one of them."
                )
            if not any(np.array_equal(image, other) for other in kept[name]):
                kept[name].append(image)
        if not LEAST <= len(kept[name]) <= MOST:
            repeated = len(found) - len(kept[name])
            note = f" ({repeated} duplicates were dropped)" if repeated else ""
            fix = (
                "Add images." if len(kept[name]) < LEAST else "For more images, train a network: thirtytwo train FOLDER"
            )
            raise DataError(f"The class {name!r} has {len(kept[name])} images{note}; expected {LEAST} to {MOST}.", fix)
    return kept


def _features(classifier: Classifier, pixels: Pixels) -> Floats:
    return classifier.run_batches(pixels, ("features",), _BATCH)["features"].astype(np.float64)


def _assign_folds(labels: Labels, folds: int, seed: int) -> Labels:
    """Assign images to stratified folds: the fold of each image, int64 `(N,)`."""
    random = np.random.default_rng(seed)
    fold_of = np.zeros(len(labels), dtype=np.int64)
    for number in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == number))
        fold_of[members] = np.arange(len(members)) % folds
    return fold_of


def _cross_validate(
    features: Floats, mirrored: Floats, labels: Labels, classes: int, fold_of: Labels
) -> tuple[Floats, Floats]:
    """Cross-validate: logits `(N, C)` and OOD scores `(N,)` of each image, fitted on the other folds."""
    logits, scores = np.zeros((len(labels), classes)), np.zeros(len(labels))
    for fold in range(int(fold_of.max()) + 1):
        held, fitted = fold_of == fold, fold_of != fold
        augmented = np.concatenate([features[fitted], mirrored[fitted]])
        augmented_labels = np.concatenate([labels[fitted], labels[fitted]])
        logits[held] = fit_head(augmented, augmented_labels, classes).logits(features[held])
        scores[held] = class_mean(features[held], class_means(augmented, augmented_labels, classes))
    return logits, scores


def _fit_temperature(logits: Floats, labels: Labels) -> float:
    """Like `evaluation.calibration.fit_temperature` with its pseudo-sample, but on a grid, without SciPy."""
    weight = 1.0 / (len(labels) + 1.0)
    target = (1.0 - weight) * logits[np.arange(len(labels)), labels] + weight * logits.mean(axis=1)  # (N,)

    def loss(temperature: float) -> float:
        return float((log_sum_exp(logits / temperature) - target / temperature).mean())

    return float(min(_TEMPERATURES, key=loss))
