"""Losses against values computed by hand, torch and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.errors import RecipeError
from thirtytwo.tensors import generator_for
from thirtytwo.training.batches import Batches
from thirtytwo.training.losses import Loss, class_weights, distillation, sampling_weights
from thirtytwo.training.module import hard_labels, macro_metrics

LOGITS = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]]))
LABELS = torch.tensor([0, 1])
SOFT = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.5, 0.5]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])
ln = math.log


@pytest.mark.parametrize(
    ("settings", "labels", "weights", "expected"),
    [
        ({}, LABELS, None, -ln(0.7) - ln(0.25)),
        ({}, SOFT, None, -0.6 * ln(0.7) - 0.4 * ln(0.2) - 0.5 * ln(0.25) - 0.5 * ln(0.5)),
        ({}, LABELS, WEIGHTS, -ln(0.7) - 2 * ln(0.25)),
        ({}, SOFT, WEIGHTS, -0.6 * ln(0.7) - 0.8 * ln(0.2) - ln(0.25) - 0.25 * ln(0.5)),
        (
            {"label_smoothing": 0.3},
            LABELS,
            None,
            -0.8 * ln(0.7) - 0.1 * ln(0.2) - 0.1 * ln(0.1) - 0.8 * ln(0.25) - 0.1 * ln(0.25) - 0.1 * ln(0.5),
        ),
        (
            {"label_smoothing": 0.3},
            SOFT,
            None,
            -0.52 * ln(0.7) - 0.38 * ln(0.2) - 0.1 * ln(0.1) - 0.1 * ln(0.25) - 0.45 * ln(0.25) - 0.45 * ln(0.5),
        ),
        ({"focal": 2.0}, LABELS, None, -0.09 * ln(0.7) - 0.5625 * ln(0.25)),
        ({"focal": 2.0}, LABELS, WEIGHTS, -0.09 * ln(0.7) - 2 * 0.5625 * ln(0.25)),
        (
            {"focal": 1.0},
            SOFT,
            None,
            -0.6 * 0.3 * ln(0.7) - 0.4 * 0.8 * ln(0.2) - 0.5 * 0.75 * ln(0.25) - 0.25 * ln(0.5),
        ),
        (
            {"focal": 1.0, "label_smoothing": 0.3},
            LABELS[:1],
            WEIGHTS,
            -0.8 * 0.3 * ln(0.7) - 0.1 * 0.8 * ln(0.2) - 0.1 * 0.9 * ln(0.1),
        ),
        # an image counts as its own class says, wherever smoothing moves its target
        (
            {"label_smoothing": 0.3},
            LABELS,
            WEIGHTS,
            -0.8 * ln(0.7) - 0.1 * ln(0.02) - 2 * (0.9 * ln(0.25) + 0.1 * ln(0.5)),
        ),
        (
            {"label_smoothing": 0.3},
            SOFT[:1],
            WEIGHTS,
            # shares 0.6 and 0.4 count 0.6 and 0.8; a tenth of their sum goes to each class
            -(0.42 + 0.14) * ln(0.7) - (0.56 + 0.14) * ln(0.2) - 0.14 * ln(0.1),
        ),
    ],
)
def test_loss_by_hand(settings: dict[str, Any], labels: Tensor, weights: Tensor | None, expected: float) -> None:
    loss = Loss(TrainSettings(**settings), weights)(LOGITS[: len(labels)], labels)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"label_smoothing": 0.2}, {"focal": 1.5}, {"focal": 2, "label_smoothing": 0.1}]
)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_hard_labels_equal_one_hot_labels(settings: dict[str, Any], weights: Tensor | None) -> None:
    loss_function = Loss(TrainSettings(**settings), weights)
    torch.testing.assert_close(loss_function(LOGITS, LABELS), loss_function(LOGITS, F.one_hot(LABELS, 3).float()))


def test_default_loss_equals_torch_exactly() -> None:
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(64, 10), torch.randint(0, 10, (64,))
    found = Loss(TrainSettings(label_smoothing=0.2))(logits, labels)
    assert torch.equal(found, F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="sum"))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_at_probability_one(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0, 0.0]], requires_grad=True)
    Loss(TrainSettings(focal=gamma))(logits, torch.tensor([0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_distillation_by_hand() -> None:
    taught = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    divergence = sum(
        t * (ln(t) - ln(s)) for t, s in zip(
            [0.5, 0.25, 0.25, 0.1, 0.1, 0.8], [0.7, 0.2, 0.1, 0.25, 0.25, 0.5], strict=True
        )
    )  # fmt: skip
    assert distillation(LOGITS, taught, 1.0).item() == pytest.approx(divergence, rel=1e-5)
    # at temperature 2, probabilities are roots of what they were, made to sum to 1
    softer = []
    for row in ([0.5, 0.25, 0.25], [0.7, 0.2, 0.1]):
        roots = [math.sqrt(value) for value in row]
        softer.append([root / sum(roots) for root in roots])
    expected = 4 * sum(t * (ln(t) - ln(s)) for t, s in zip(*softer, strict=True))
    assert distillation(LOGITS[:1], taught[:1], 2.0).item() == pytest.approx(expected, rel=1e-5)
    assert distillation(taught, taught, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_balanced_weights_equal_scikit_learn() -> None:
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    found = class_weights("balanced", np.bincount(labels), ("ant", "bee", "cow"))
    assert found is not None
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6)
    assert float(found[labels].mean()) == pytest.approx(1)


def test_weights_by_name() -> None:
    found = class_weights({"cow": 2.5, "ant": 0.5}, np.array([1, 1, 1]), ("ant", "bee", "cow"))
    assert found is not None
    assert found.tolist() == [0.5, 1.0, 2.5]
    assert class_weights("none", np.array([1, 1, 1]), ("ant", "bee", "cow")) is None


def test_weights_of_an_unknown_class() -> None:
    with pytest.raises(RecipeError) as caught:
        class_weights({"cwo": 2.0}, np.array([1, 1, 1]), ("ant", "bee", "cow"))
    assert "train.class_weights" in caught.value.message
    assert "'cwo'" in caught.value.message
    assert "'cow'" in str(caught.value.fix)


def test_sampling_weights_equal_torch_weighted_sampler() -> None:
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    chances = sampling_weights(labels, 3)
    batches = Batches(100, 10, 4, lambda positions, epoch, step: (positions, positions))
    batches.chances = chances
    batches.epoch = 2
    drawn = torch.cat([positions for positions, _ in batches])
    weights = [1 / 90] * 90 + [1 / 9] * 9 + [1.0]
    sampler = torch.utils.data.WeightedRandomSampler(weights, 100, generator=generator_for(4, 2, "order"))
    assert drawn.tolist() == list(sampler)


def test_balanced_sampling_has_equal_class_frequencies() -> None:
    labels = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    batches = Batches(10000, 100, 0, lambda positions, epoch, step: (positions, positions))
    batches.chances = sampling_weights(labels, 3)
    counts = torch.bincount(labels[torch.cat([positions for positions, _ in batches])])
    # three standard deviations of a binomial with n = 10,000 and p = 1/3 are 141
    assert all(abs(count - 10000 / 3) < 141 for count in counts.tolist()), counts


def test_macro_metrics_equal_scikit_learn() -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score

    torch.manual_seed(1)
    labels, predicted = torch.randint(0, 5, (200,)), torch.randint(0, 5, (200,))
    counts = [torch.bincount(part, minlength=6) for part in (labels, predicted, labels[labels == predicted])]
    for name, scored in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        found = macro_metrics(*counts)[f"macro_{name}"].item()
        assert found == pytest.approx(scored(labels, predicted, average="macro"), rel=1e-6), name


def test_absent_classes_are_excluded_from_macro_metrics() -> None:
    support, predicted, hits = torch.tensor([4, 2, 0, 0]), torch.tensor([5, 0, 1, 0]), torch.tensor([4, 0, 0, 0])
    found = {name: value.item() for name, value in macro_metrics(support, predicted, hits).items()}
    assert found == pytest.approx({"macro_f1": 8 / 9 / 3, "macro_precision": 0.8 / 3, "macro_recall": 1 / 3})


def test_hard_labels() -> None:
    assert hard_labels(SOFT).tolist() == [0, 1]
    assert hard_labels(LABELS) is LABELS
