"""Cross-validate a linear probe: choose its penalty, and predict each image by a layer fitted without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thirtytwo.evaluation.calibration import TEMPERATURE_BOUNDS, log_sum_exp
from thirtytwo.evaluation.ood import class_mean, class_means
from thirtytwo.fewshot.head import DEFAULT_PENALTY, PENALTIES, Floats, Labels, blend_for, fit_heads

FOLDS = 10
"""Maximum number of folds; fewer if every class has fewer images."""
LEAST_TO_CHOOSE = 8
"""Number of images in every class from which the penalty is chosen; with fewer it is `DEFAULT_PENALTY`."""
_TEMPERATURES = np.geomspace(*TEMPERATURE_BOUNDS, 400)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Predictions of held-out images.

    `logits` `(N, C)`, divided by `temperature` for probabilities; `scores` `(N,)` for OOD detection; `folds` is the
    number of folds, and `chosen` whether `penalty` was chosen rather than the default.
    """

    logits: Floats
    scores: Floats
    temperature: float
    penalty: float
    chosen: bool
    folds: int


def assign_folds(labels: Labels, folds: int, seed: int) -> Labels:
    """Assign images to stratified folds: the fold of each image, int64 `(N,)`."""
    random = np.random.default_rng(seed)
    fold_of = np.zeros(len(labels), dtype=np.int64)
    for number in range(int(labels.max()) + 1):
        members = random.permutation(np.flatnonzero(labels == number))
        fold_of[members] = np.arange(len(members)) % folds
    return fold_of


def cross_validate(
    plain: Floats, averaged: Floats, labels: Labels, classes: int, *, seed: int = 0, most_folds: int = FOLDS
) -> CrossValidation:
    """Choose the penalty by its cross-validated log loss, and return the predictions with it.

    The views of an image are one sample, so they are never in two folds.

    Args:
        plain: features of the images as they are, `(N, D)`, which are predicted.
        averaged: mean features of the views of each image, `(N, D)`, which layers are fitted on.
        labels: int64 `(N,)`; every class occurs at least twice.
        classes: number of classes, `C`.
        seed: seed of the folds.
        most_folds: maximum number of folds.
    """
    counts = np.bincount(labels, minlength=classes)
    folds = min(most_folds, int(counts.max()))
    chosen = int(counts.min()) >= LEAST_TO_CHOOSE
    penalties = PENALTIES if chosen else (DEFAULT_PENALTY,)
    fold_of, blend = assign_folds(labels, folds, seed), blend_for(labels, classes)
    logits, scores = np.zeros((len(penalties), len(labels), classes)), np.zeros(len(labels))
    for fold in range(folds):
        held, fitted = fold_of == fold, fold_of != fold
        heads = fit_heads(averaged[fitted], labels[fitted], classes, penalties, blend=blend)
        logits[:, held] = [head.logits(plain[held]) for head in heads]
        scores[held] = class_mean(plain[held], class_means(averaged[fitted], labels[fitted], classes))
    best, temperature = _choose(logits, labels, penalties.index(DEFAULT_PENALTY))
    return CrossValidation(logits[best], scores, temperature, penalties[best], chosen, folds)


def _choose(logits: Floats, labels: Labels, default: int) -> tuple[int, float]:
    """Position of the chosen logits `(N, C)` of `(P, N, C)`, and their temperature.

    These are the ones with the smallest log loss, each at its own temperature, if that is smaller than the loss of
    `default` by more than the standard error of the difference; else those of `default`: with few images the smallest
    loss is often chance.
    """
    fits = [_fit_temperature(one, labels) for one in logits]
    best = min(range(len(fits)), key=lambda position: fits[position][1].mean())
    gain = fits[default][1] - fits[best][1]  # (N,)
    chosen = best if gain.mean() > gain.std() / np.sqrt(len(gain)) else default
    return chosen, fits[chosen][0]


def _fit_temperature(logits: Floats, labels: Labels) -> tuple[float, Floats]:
    """Temperature and log losses `(N,)`; as `evaluation.calibration.fit_temperature`, but on a grid, without SciPy."""
    weight = 1.0 / (len(labels) + 1.0)
    target = (1.0 - weight) * logits[np.arange(len(labels)), labels] + weight * logits.mean(axis=1)  # (N,)

    def losses(temperature: float) -> Floats:
        return np.asarray(log_sum_exp(logits / temperature) - target / temperature)

    best = float(min(_TEMPERATURES, key=lambda temperature: float(losses(temperature).mean())))
    return best, losses(best)
