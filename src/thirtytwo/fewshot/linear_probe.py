"""Teaching: pictures by class to a layer, how good it is, how sure it may be, and what it does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.errors import DataError, ModelFileError
from thirtytwo.evaluation.calibration import TEMPERATURE_BOUNDS, softmax
from thirtytwo.evaluation.metrics import wilson
from thirtytwo.evaluation.ood import class_mean, class_means, threshold_at
from thirtytwo.fewshot.graph import write_taught
from thirtytwo.fewshot.head import Floats, Head, Labels, fit_head
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.rundir import Predictions

LEAST, MOST = 5, 200
"""Different pictures that each class needs, and may have."""
FOLDS = 10
"""Parts of cross-validation, where every class has that many pictures."""
CALLED_UNKNOWN = 0.05
"""Part of the pictures taught with that the threshold calls unknown."""
_BATCH = 32
_TEMPERATURES = np.geomspace(*TEMPERATURE_BOUNDS, 400)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Taught:
    """A network with new classes.

    `head` and `means` (the classes' mean directions, float32 `(C, D)`) are of all pictures. `held_out` are calibrated
    predictions of every picture by a head that never saw it; `pictures` are those, uint8 `(N, S, S, 3)`.
    """

    base: Path
    info: ModelInfo
    head: Head
    means: npt.NDArray[np.float32]
    pictures: Pixels
    held_out: Predictions
    folds: int

    @property
    def accuracy(self) -> dict[str, Any]:
        """Cross-validated accuracy with Wilson's 95 % interval, as `metrics.json` writes figures."""
        right = int((self.held_out.predicted == self.held_out.truth).sum())
        count = len(self.held_out.truth)
        return {"value": right / count, "ci95": list(wilson(right, count))}

    def write(self, path: Path) -> Path:
        """Write `model.onnx` with the new classes, whole.

        Raises:
            MissingExtraError: the library `onnx` is not installed.
            ModelFileError: the base model's graph cannot take a new head.
        """
        write_taught(self.base, path, self.info, self.head, self.means)
        return path


def teach(classifier: Classifier, pictures: Mapping[str, Sequence[Pixels]], *, seed: int = 0) -> Taught:
    """New classes from a few pictures each, by a linear layer on the network's features; takes seconds.

    Each picture counts together with its mirror image. Temperature and unknown threshold come from cross-validation,
    so that they are those of pictures not taught with.

    Args:
        classifier: the model whose network is used; its own classes are given up.
        pictures: uint8 `(S, S, 3)` of the model's input size for each class name; equal ones count once.
        seed: decides the parts of cross-validation.

    Raises:
        DataError: fewer than 2 classes, a class without a name, with too few or too many pictures, or one picture in
            two classes.
        ModelFileError: the model gives no features.
    """
    kept = _checked(pictures)
    if "features" not in {output.name for output in classifier.session.get_outputs()}:
        raise ModelFileError(
            f"{classifier.path} gives no features to teach on.", "Take a model exported by this version of thirtytwo."
        )
    classes = tuple(kept)
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in kept.values()]).astype(np.int64)
    pixels = np.concatenate([np.stack(found) for found in kept.values()])
    features = _features(classifier, pixels)  # (N, D)
    mirrored = _features(classifier, pixels[:, :, ::-1])
    folds = min(FOLDS, *np.bincount(labels).tolist())
    logits, scores = _cross_validated(features, mirrored, labels, len(classes), _folds(labels, folds, seed))
    temperature = _temperature(logits, labels)
    both, twice = np.concatenate([features, mirrored]), np.concatenate([labels, labels])
    info = classifier.info.model_copy(
        update={
            "classes": classes,
            "temperature": temperature,
            "curvature": 0.0,
            "unknown_score": "class_mean",
            "unknown_threshold": threshold_at(scores, CALLED_UNKNOWN),
            "architecture": f"{classifier.info.architecture}, taught",
            "dataset": f"{len(labels)} pictures, on features of {classifier.info.dataset}",
            "accuracy": None,
            "version": version("thirtytwo"),
        }
    )
    return Taught(
        base=classifier.path,
        info=info,
        head=fit_head(both, twice, len(classes)),
        means=class_means(both, twice, len(classes)),
        pictures=pixels,
        held_out=Predictions(
            classes, labels, softmax(logits, temperature).astype(np.float32), np.arange(len(labels), dtype=np.int64)
        ),
        folds=folds,
    )


def _checked(pictures: Mapping[str, Sequence[Pixels]]) -> dict[str, list[Pixels]]:
    """The different pictures of each class."""
    if len(pictures) < 2:
        raise DataError(f"There must be at least 2 classes to tell apart; found {len(pictures)}.", "Add a class.")
    kept: dict[str, list[Pixels]] = {}
    owners: dict[bytes, str] = {}
    for name, found in pictures.items():
        if not name.strip():
            raise DataError("A class has no name.", "Name it.")
        kept[name] = []
        for picture in found:
            owner = owners.setdefault(picture.tobytes(), name)
            if owner != name:
                raise DataError(f"The classes {owner!r} and {name!r} hold the same picture.", "Take it out of one.")
            if not any(np.array_equal(picture, other) for other in kept[name]):
                kept[name].append(picture)
        if not LEAST <= len(kept[name]) <= MOST:
            repeated = len(found) - len(kept[name])
            note = f" ({repeated} more were repeated)" if repeated else ""
            fix = "Add some." if len(kept[name]) < LEAST else "Train on so many: thirtytwo train FOLDER"
            raise DataError(
                f"The class {name!r} has {len(kept[name])} pictures{note}; expected {LEAST} to {MOST}.", fix
            )
    return kept


def _features(classifier: Classifier, pixels: Pixels) -> Floats:
    parts = [
        classifier.run(np.ascontiguousarray(pixels[at : at + _BATCH]), ("features",))["features"]
        for at in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def _folds(labels: Labels, folds: int, seed: int) -> Labels:
    """Which part each picture is in, int64 `(N,)`: every part has about as many of each class."""
    random = np.random.default_rng(seed)
    parts = np.zeros(len(labels), dtype=np.int64)
    for number in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == number))
        parts[members] = np.arange(len(members)) % folds
    return parts


def _cross_validated(
    features: Floats, mirrored: Floats, labels: Labels, classes: int, parts: Labels
) -> tuple[Floats, Floats]:
    """Logits `(N, C)` and scores of known pictures `(N,)`, each from the pictures of other parts."""
    logits, scores = np.zeros((len(labels), classes)), np.zeros(len(labels))
    for part in range(int(parts.max()) + 1):
        out, rest = parts == part, parts != part
        both = np.concatenate([features[rest], mirrored[rest]])
        twice = np.concatenate([labels[rest], labels[rest]])
        logits[out] = fit_head(both, twice, classes).logits(features[out])
        scores[out] = class_mean(features[out], class_means(both, twice, classes))
    return logits, scores


def _temperature(logits: Floats, labels: Labels) -> float:
    """As `evaluation.calibration.fit_temperature`, imagined picture included, on a fine grid instead of by SciPy."""
    part = 1.0 / (len(labels) + 1.0)
    target = (1.0 - part) * logits[np.arange(len(labels)), labels] + part * logits.mean(axis=1)  # (N,)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        top = scaled.max(axis=1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((total - target / temperature).mean())

    return float(min(_TEMPERATURES, key=loss))
