"""Fit the linear layer of a probe: penalized multinomial logistic regression, for several penalties at once."""

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

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer: logits `(N, C)` are features `(N, D)` @ `weights` `(D, C)` + `bias` `(C,)`."""

    weights: Floats
    bias: Floats

    def logits(self, features: npt.ArrayLike) -> Floats:
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weights + self.bias)


def fit_head(features: npt.ArrayLike, labels: Labels, classes: int, penalty: float = DEFAULT_PENALTY) -> Head:
    """Fit the layer for one penalty; see `fit_heads`."""
    return fit_heads(features, labels, classes, (penalty,))[0]


def fit_heads(features: npt.ArrayLike, labels: Labels, classes: int, penalties: Sequence[float]) -> list[Head]:
    """Fit the layers that minimize the penalized, class-balanced cross-entropy, one for each penalty.

    Nesterov's accelerated gradient method (1983) on centered features, in the subspace they span.

    Args:
        features: `(N, D)`.
        labels: int64 `(N,)`; every class occurs.
        classes: number of classes, `C`.
        penalties: weights of the squared norm of the layer's weights, `(P,)`.
    """
    raw = np.asarray(features, dtype=np.float64)
    counts = np.bincount(labels, minlength=classes)
    sample_weights = (1.0 / (classes * counts))[labels]  # (N,), sum to 1
    center = sample_weights @ raw  # (D,)
    centered = raw - center
    scale = np.sqrt(max(float(sample_weights @ (centered**2).sum(axis=1)), 1e-24))
    directions, coordinates = _project(centered / scale)  # (D, R) and (N, R)
    fitted = _minimize(coordinates, np.eye(classes)[labels], sample_weights, np.asarray(penalties))  # (P, R, C)
    weights = [directions @ one / scale for one in fitted]
    return [Head(one, -center @ one) for one in weights]


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
