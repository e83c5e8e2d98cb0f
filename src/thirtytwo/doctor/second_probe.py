"""Predict doubtful labels of small images again, on the features of a larger model.

Features of all images by it would take too long. So a second probe predicts those that the first one doubts most. It is
fitted on a random sample of all images, which has as many wrong labels as they have, and left out where it predicts
fewer labels of that sample than the first one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from thirtytwo.doctor.features import Features
from thirtytwo.doctor.label_probe import LEAST, predict_held_out
from thirtytwo.predictions import Predictions

DOUBTED = SAMPLE = 3_500
"""Most images that are predicted again, and size of the sample that the second probe is fitted on."""

Positions = npt.NDArray[np.int64]


def predict_doubted(first: Predictions, features_of: Callable[[Positions], Features], seed: int = 0) -> Predictions:
    """Predictions of which those that contradict their label most are made again by a probe on other features.

    Args:
        first: predictions of images that no probe was fitted on.
        features_of: computes the other features, float32 `(M, D)`, of images by their positions, int64 `(M,)`.
        seed: seed of the sample and of the folds.
    """
    chosen, sampled = choose_images(first, seed)
    labels = first.truth[chosen]
    counts = np.bincount(labels[sampled], minlength=len(first.classes))
    if counts.min() < LEAST:
        return first
    second = predict_held_out(features_of(chosen), labels, first.classes, seed, sampled)
    if (second.correct & sampled).sum() <= (first.correct[chosen] & sampled).sum():
        return first
    probabilities = first.probabilities.copy()
    probabilities[chosen] = second.probabilities
    return replace(first, probabilities=probabilities)


def choose_images(first: Predictions, seed: int = 0) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """The most doubtful images and a sample of all: positions int64 `(M,)`, and which of them are in the sample."""
    own = np.arange(len(first.truth)), first.truth
    others = first.probabilities.copy()
    others[own] = -1.0
    doubted = np.argsort(first.probabilities[own] - others.max(axis=1), kind="stable")[:DOUBTED]
    sample = np.random.default_rng(seed).permutation(len(first.truth))[:SAMPLE]
    chosen = np.union1d(doubted, sample)
    return chosen, np.isin(chosen, sample)
