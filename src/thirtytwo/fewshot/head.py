"""The linear layer of a probe: multinomial logistic regression with an L2 penalty, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PENALTY = 1e-3
"""Default L2 penalty, for features of mean squared norm 1; chosen by `benchmarks/teach.py`."""
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
        residuals = (_softmax(coordinates @ lookahead) - targets) * sample_weights[:, None]  # (N, C)
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


def _softmax(logits: Floats) -> Floats:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
