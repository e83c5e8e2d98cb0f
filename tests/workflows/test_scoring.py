"""Evaluation scores further views as prediction uses them, so that metrics and thresholds belong to `predict --tta`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.calibration import Calibration
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.evaluation.selective_tta import choose_threshold
from thirtytwo.export.onnx import export_onnx
from thirtytwo.inference.classifier import Classifier, load
from thirtytwo.inference.model_file import ModelInfo, TtaInfo, usual_tta
from thirtytwo.inference.views import Tta
from thirtytwo.models.base import build_network
from thirtytwo.rundir import RunDir
from thirtytwo.workflows import scoring
from thirtytwo.workflows.scoring import _choose_tta, compute_class_means, score

MEAN, STD = (0.4, 0.5, 0.45), (0.2, 0.25, 0.3)
CLASSES = ("a", "b", "c")


CALIBRATION = Calibration(temperature=1.5, curvature=0.3)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Noise in blocks."""
    pixels = np.random.default_rng(7).integers(0, 256, (600, 8, 8, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
    labels = np.arange(len(pixels)) % 3
    return ImageSet(pixels, labels, CLASSES, np.arange(len(pixels)))


@pytest.fixture(scope="module")
def scorer(tiny: SimpleNamespace, images: ImageSet) -> Scorer:
    """A network with random weights that predicts each class often, of some images with doubt."""
    torch.manual_seed(0)
    net = build_network(tiny.recipe(), 3)  # not prepared: the eigenvectors of noise depend on rounding
    with torch.no_grad():
        net.train()(torch.randn(64, 3, 16, 16))
    made = Scorer(net.eval().to(memory_format=torch.channels_last), MEAN, STD, torch.device("cpu"))
    center = torch.from_numpy(made.outputs(images.images)[1].mean(axis=0))
    weights: Any = net.head.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weights.sub_(torch.outer(weights @ center, center) / (center @ center)).mul_(60)
    return made


@pytest.fixture(scope="module")
def classifier(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    info = ModelInfo(
        classes=CLASSES,
        input_size=16,
        resize="pad",
        mean=MEAN,
        std=STD,
        temperature=CALIBRATION.temperature,
        curvature=CALIBRATION.curvature,
        unknown_score="class_mean",
        unknown_threshold=None,
        architecture="fastnet",
        dataset="noise",
        accuracy=0.5,
        version="1.2.3",
    )
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(scorer.net, info, path, np.eye(3, 16, dtype=np.float32))
    return load(path)


def predicted(classifier: Classifier, images: ImageSet, tta: Tta, shift: int) -> np.ndarray:
    """The probabilities that prediction shows, `(N, 3)`."""
    chosen = load(classifier.path)
    chosen.info = chosen.info.model_copy(update={"tta": TtaInfo(shift=shift, threshold=0.5)})
    found = [dict(one.predictions) for one in chosen.classify(images.images, 3, tta=tta)]
    return np.array([[one[name] for name in CLASSES] for one in found])


@pytest.mark.parametrize("shift", [0, 1])
def test_evaluation_averages_views_as_prediction_does(
    shift: int, scorer: Scorer, images: ImageSet, classifier: Classifier
) -> None:
    found = score(scorer, images, CALIBRATION, shift)
    assert found.averaged is not None
    every = predicted(classifier, images, "all", shift)
    np.testing.assert_allclose(found.averaged.probabilities, every, atol=1e-4)
    np.testing.assert_allclose(found.single.probabilities, predicted(classifier, images, "off", shift), atol=1e-4)
    of_raw_logits = CALIBRATION.probabilities(scorer.tta_logits(images.images, shift))
    assert np.abs(of_raw_logits - every).max() > 0.1


def test_the_threshold_is_of_the_views_of_prediction(scorer: Scorer, images: ImageSet, classifier: Classifier) -> None:
    single, every = (predicted(classifier, images, tta, 1) for tta in ("off", "all"))
    usual = usual_tta(16).threshold
    expected = choose_threshold(single, every, usual)
    of_raw_logits = CALIBRATION.probabilities(scorer.tta_logits(images.images, 1))
    assert abs(expected - choose_threshold(single, of_raw_logits, usual)) > 0.01
    for labels, threshold in ((every.argmax(axis=1), expected), (single.argmax(axis=1), 0.0)):
        given = ImageSet(images.images, labels, CLASSES, images.rows)
        chosen = _choose_tta(scorer, given, scorer.logits(images.images), CALIBRATION, 1)
        assert chosen.shift == 1
        assert chosen.threshold == pytest.approx(threshold, abs=1e-3)


def test_more_classes_than_class_means_are_computed_from(
    scorer: Scorer, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MEANS_FROM", 2)
    means = compute_class_means(scorer, images, 0, RunDir.create(tmp_path / "run"))
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, rtol=1e-5)
