"""A map of a data set in two dimensions: similar images lie close together.

Features of a bundled model are reduced by PCA, then by t-SNE (van der Maaten and Hinton 2008). An image whose nearest
neighbors mostly share another label is marked: its label may be wrong, or its class not separable from the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor.features import Features, choose_model, dataset_features
from thirtytwo.errors import require

Ints = npt.NDArray[np.int64]

NEIGHBORS = 10
DIMENSIONS = 50
"""Dimensions that PCA keeps, at most."""
PERPLEXITY = 30.0
STEPS = 500
_FEW = 5
"""Number of images below which there is no t-SNE; the map shows the first two principal components."""


@dataclass(frozen=True, eq=False)
class DataMap:
    """Images in two dimensions.

    Attributes:
        positions: the images shown, int64 `(M,)`, positions in the images they were chosen from.
        points: coordinates, float32 `(M, 2)`, each axis from 0 to 1.
        other: class that more than half of an image's nearest neighbors have, where it is not its own; else -1; int64
            `(M,)`.
        votes: number of nearest neighbors of that class, int64 `(M,)`; 0 where there is none.
        neighbors: number of neighbors compared.
        model: name of the model whose features are used.
    """

    positions: Ints
    points: npt.NDArray[np.float32]
    other: Ints
    votes: Ints
    neighbors: int
    model: str

    @property
    def crossing(self) -> Ints:
        """Indices of the marked images, those with the most neighbors of the other class first."""
        marked = np.flatnonzero(self.other >= 0)
        return marked[np.argsort(-self.votes[marked], kind="stable")]


def map_data(data: DataSet, positions: Ints, seed: int = 0) -> DataMap:
    """The map of some training images.

    Args:
        data: the data set.
        positions: positions of the images in `data.train`, int64 `(M,)`.
        seed: seed of PCA and t-SNE.

    Raises:
        MissingExtraError: scikit-learn, or the library `onnx`, is not installed.
    """
    chosen = data.train.take(positions)
    sample = replace(data, train=chosen, val=None, test=None)
    reduced = _principal_components(dataset_features(sample), seed)
    other, votes, neighbors = majority_of_neighbors(reduced, chosen)
    return DataMap(positions, _scaled(_embedded(reduced, seed)), other, votes, neighbors, choose_model(sample).stem)


def _principal_components(features: Features, seed: int) -> Features:
    """The first principal components of features `(M, D)`, float32 `(M, min(DIMENSIONS, M, D))`."""
    decomposition = require("sklearn.decomposition", "train")
    if not (features.std(axis=0) > 0).any():
        return np.zeros((len(features), 2), dtype=np.float32)
    dimensions = min(DIMENSIONS, *features.shape)
    return np.asarray(decomposition.PCA(dimensions, random_state=seed).fit_transform(features), dtype=np.float32)


def majority_of_neighbors(features: Features, images: ImageSet, neighbors: int = NEIGHBORS) -> tuple[Ints, Ints, int]:
    """Find images whose nearest neighbors mostly share one other label.

    Args:
        features: float32 `(M, D)`; the nearest are those with the smallest Euclidean distance.
        images: the M images.
        neighbors: number of neighbors; fewer where there are fewer images.

    Returns:
        The other class or -1, int64 `(M,)`; the number of neighbors of that class; the number of neighbors compared.
    """
    count = min(neighbors, len(images) - 1)
    if count < 1:
        return np.full(len(images), -1, dtype=np.int64), np.zeros(len(images), dtype=np.int64), 0
    search = require("sklearn.neighbors", "train").NearestNeighbors(n_neighbors=count).fit(features)
    nearest = images.labels[search.kneighbors(return_distance=False)]  # (M, K)
    candidate = np.sort(nearest, axis=1)[:, count // 2]  # a label of more than half of them can only be this one
    votes = (nearest == candidate[:, None]).sum(axis=1)
    crossing = (2 * votes > count) & (candidate != images.labels)
    return np.where(crossing, candidate, -1), np.where(crossing, votes, 0), count


def _embedded(reduced: Features, seed: int) -> npt.NDArray[np.float32]:
    """Coordinates `(M, 2)` of principal components `(M, D)` by t-SNE, which starts at the first two components."""
    start = np.zeros((len(reduced), 2), dtype=np.float32)
    start[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    spread = float(start[:, 0].std())
    if len(reduced) < _FEW or spread <= 0:
        return start
    manifold = require("sklearn.manifold", "train")
    perplexity = min(PERPLEXITY, (len(reduced) - 1) / 3)
    found = manifold.TSNE(
        perplexity=perplexity, init=start / spread * 1e-4, max_iter=STEPS, random_state=seed
    ).fit_transform(reduced)
    return np.asarray(found, dtype=np.float32)


def _scaled(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Points with each axis from 0 to 1; 0.5 where all are equal."""
    low, high = points.min(axis=0), points.max(axis=0)
    across = np.where(high > low, high - low, 1.0)
    return np.asarray(np.where(high > low, (points - low) / across, 0.5), dtype=np.float32)
