"""The linear layer that is taught: multinomial logistic regression with a penalty, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PENALTY = 1e-3
"""Weight of the squared length of the weights, for features of mean squared length 1; chosen by `benchmarks/teach.py`.
"""
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
    """The layer with the least penalised cross-entropy; every class counts the same, however many pictures it has.

    Nesterov's accelerated gradient (1983) on centred features, in the few directions that the pictures span.

    Args:
        features: `(N, D)`.
        labels: int64 `(N,)`; every class occurs.
        classes: how many there are, `C`.
        penalty: weight of the squared length of the weights.
    """
    raw = np.asarray(features, dtype=np.float64)
    counts = np.bincount(labels, minlength=classes)
    shares = (1.0 / (classes * counts))[labels]  # (N,), sum to 1
    centre = shares @ raw  # (D,)
    centred = raw - centre
    scale = np.sqrt(max(float(shares @ (centred**2).sum(axis=1)), 1e-24))
    directions, seen = _spanned(centred / scale)  # (D, R) and (N, R)
    targets = np.eye(classes)[labels]
    steepest = 0.5 * float(np.linalg.norm(seen.T @ (seen * shares[:, None]), 2)) + penalty  # of the gradient's slope
    here = ahead = np.zeros((seen.shape[1], classes))
    momentum = 1.0
    for _ in range(_STEPS):
        pull = seen.T @ ((_softmax(seen @ ahead) - targets) * shares[:, None]) + penalty * ahead
        before, here = here, ahead - pull / steepest
        last, momentum = momentum, (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = here + (last - 1.0) / momentum * (here - before)
    weights = directions @ here / scale
    return Head(weights, -centre @ weights)


def _spanned(rows: Floats) -> tuple[Floats, Floats]:
    """Orthonormal directions `(D, R)` that `rows` `(N, D)` lie in, and their coordinates `(N, R)`."""
    _, lengths, directions = np.linalg.svd(rows, full_matrices=False)
    kept = directions[lengths > 1e-10 * max(float(lengths[0]), 1e-300)].T
    return kept, rows @ kept


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
