"""Fit the linear layer of a probe: logistic regression, for several penalties at once, and discriminant analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from thirtytwo.evaluation.calibration import softmax

PENALTIES = (0.03, 0.01, 0.003, 0.001, 0.0003)
"""L2 penalties to choose from, for features of mean squared norm 1, strongest first."""
DEFAULT_PENALTY = 0.001
"""Penalty where there are too few images to choose one, or none is clearly better."""
_STEPS = 200
LEAST_TO_BLEND = 8
"""Number of images in every class from which discriminant analysis has a part in the layer."""
BLEND = 0.5
"""That part. Chosen on the development half of `benchmarks/fewshot.py`, as `LEAST_TO_BLEND` and `SHRINKAGE`."""
SHRINKAGE = 0.5
"""Weight of the spherical part of the covariance in discriminant analysis; 0.1 to 0.9 are about as good."""

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer: logits `(N, C)` are features `(N, D)` @ `weights` `(D, C)` + `bias` `(C,)`."""

    weights: Floats
    bias: Floats

    def logits(self, features: npt.ArrayLike) -> Floats:
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weights + self.bias)


def blend_for(labels: Labels, classes: int) -> float:
    """The part of discriminant analysis in the layer for these labels: with few images of a class it has none."""
    return BLEND if np.bincount(labels, minlength=classes).min() >= LEAST_TO_BLEND else 0.0


def fit_head(
    features: npt.ArrayLike, labels: Labels, classes: int, penalty: float = DEFAULT_PENALTY, *, blend: float = 0.0
) -> Head:
    """Fit the layer for one penalty; see `fit_heads`."""
    return fit_heads(features, labels, classes, (penalty,), blend=blend)[0]


def fit_heads(
    features: npt.ArrayLike, labels: Labels, classes: int, penalties: Sequence[float], *, blend: float = 0.0
) -> list[Head]:
    """Fit the layers that minimize the penalized, class-balanced cross-entropy, one for each penalty.

    Nesterov's accelerated gradient method (1983) on centered features, in the subspace they span. With a `blend`, each
    is averaged with the layer of linear discriminant analysis, whose weights are scaled to the same norm: it is fitted
    on the whole distribution of the features and errs on other images.

    Args:
        features: `(N, D)`.
        labels: int64 `(N,)`; every class occurs.
        classes: number of classes, `C`.
        penalties: weights of the squared norm of the layer's weights, `(P,)`.
        blend: weight of discriminant analysis in the average, 0 to 1 (`blend_for`).
    """
    raw = np.asarray(features, dtype=np.float64)
    counts = np.bincount(labels, minlength=classes)
    sample_weights = (1.0 / (classes * counts))[labels]  # (N,), sum to 1
    center = sample_weights @ raw  # (D,)
    centered = raw - center
    scale = np.sqrt(max(float(sample_weights @ (centered**2).sum(axis=1)), 1e-24))
    directions, coordinates = _project(centered / scale)  # (D, R) and (N, R)
    fitted = _minimize(coordinates, np.eye(classes)[labels], sample_weights, np.asarray(penalties))  # (P, R, C)
    offsets = np.zeros((len(fitted), classes))
    if blend:
        other, offset = _discriminant(coordinates, labels, classes, raw.shape[1])
        ratios = np.linalg.norm(fitted, axis=(1, 2)) / max(float(np.linalg.norm(other)), 1e-12)  # (P,)
        fitted = (1 - blend) * fitted + blend * ratios[:, None, None] * other
        offsets = blend * ratios[:, None] * offset
    weights = [directions @ one / scale for one in fitted]
    return [Head(one, offset - center @ one) for one, offset in zip(weights, offsets, strict=True)]


def _discriminant(coordinates: Floats, labels: Labels, classes: int, width: int) -> tuple[Floats, Floats]:
    """Weights `(R, C)` and bias `(C,)` of linear discriminant analysis with equal priors and a shrunk covariance.

    The covariance within classes is averaged with a sphere of the same mean variance in the space of the features, of
    `width` dimensions, as in J. Friedman, Regularized Discriminant Analysis (1989).
    """
    means = np.stack([coordinates[labels == one].mean(axis=0) for one in range(classes)])  # (C, R)
    within = coordinates - means[labels]
    covariance = within.T @ within / max(len(labels) - classes, 1)  # (R, R)
    sphere = max(float(np.trace(covariance)) / width, 1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere * np.eye(len(covariance))
    weights = np.linalg.solve(shrunk, means.T)  # (R, C)
    bias = -0.5 * (means.T * weights).sum(axis=0)
    return weights - weights.mean(axis=1, keepdims=True), bias - bias.mean()


def _minimize(coordinates: Floats, targets: Floats, sample_weights: Floats, penalties: Floats) -> Floats:
    """Weights `(P, R, C)` for coordinates `(N, R)`, one-hot targets `(N, C)` and weights of the samples `(N,)`."""
    strength = penalties[:, None, None]
    curvature = float(np.linalg.norm(coordinates.T @ (coordinates * sample_weights[:, None]), 2))
    lipschitz = 0.5 * curvature + strength  # Lipschitz constants of the gradients
    current = lookahead = np.zeros((len(penalties), coordinates.shape[1], targets.shape[1]))
    momentum = 1.0
    for _ in range(_STEPS):
        logits = coordinates @ lookahead  # (P, N, C)
        probabilities = softmax(logits.reshape(-1, logits.shape[2])).reshape(logits.shape)
        residuals = (probabilities - targets) * sample_weights[:, None]
        gradient = coordinates.T @ residuals + strength * lookahead
        previous, current = current, lookahead - gradient / lipschitz
        last_momentum, momentum = momentum, (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        lookahead = current + (last_momentum - 1.0) / momentum * (current - previous)
    return current


def _project(rows: Floats) -> tuple[Floats, Floats]:
    """Orthonormal basis `(D, R)` of the span of `rows` `(N, D)`, and the coordinates `(N, R)` of the rows."""
    wide = rows.shape[0] < rows.shape[1]
    squares, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)  # ascending
    kept = squares > 1e-12 * max(float(squares[-1]), 1e-300)
    vectors = vectors[:, kept]
    if not wide:
        return vectors, rows @ vectors
    lengths = np.sqrt(squares[kept])
    return rows.T @ (vectors / lengths), vectors * lengths
