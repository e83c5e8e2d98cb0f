"""Scoring images: one view, six views, any batch size."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from thirtytwo.evaluation import scoring as score
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.models.base import build_network

MEAN, STD = (0.4, 0.5, 0.45), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def scorer(tiny: SimpleNamespace) -> Scorer:
    net = build_network(tiny.recipe(), 3)
    net.prepare(torch.randn(8, 3, 16, 16))
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 16, 16))  # so that running statistics are not those of the start
    return Scorer(net.eval(), MEAN, STD, torch.device("cpu"))


def plain(scorer: Scorer, image: np.ndarray) -> np.ndarray:
    """Logits of one float image `(16, 16, 3)` between 0 and 1."""
    batch = torch.from_numpy(((image - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return scorer.net(batch)[0].numpy()


def test_logits_are_of_normalised_pictures(scorer: Scorer, tiny: SimpleNamespace) -> None:
    images = tiny.images(5).images
    found = scorer.logits(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [plain(scorer, image / 255) for image in images], atol=1e-5)


def test_outputs_are_logits_and_what_they_are_made_of(scorer: Scorer, tiny: SimpleNamespace) -> None:
    images = tiny.images(5).images
    logits, features = scorer.outputs(images)
    np.testing.assert_allclose(logits, scorer.logits(images), atol=1e-5)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, scorer.net.classify(torch.from_numpy(features)).numpy(), atol=1e-5)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_tta_equals_one_view_after_the_other(shift: int, scorer: Scorer, tiny: SimpleNamespace) -> None:
    images = tiny.images(4).images

    def both(image: np.ndarray) -> np.ndarray:
        return (plain(scorer, image) + plain(scorer, image[:, ::-1])) / 2

    expected = []
    for image in images / 255:
        wide = np.pad(image, ((shift, shift), (shift, shift), (0, 0)), mode="reflect")
        corners = [wide[:16, :16], wide[2 * shift :, 2 * shift :]]
        moved = sum(both(corner) for corner in corners) / 2
        expected.append((both(image) + moved) / 2)
    np.testing.assert_allclose(scorer.tta_logits(images, shift), expected, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 11])
def test_batches_do_not_matter(
    batch: int, scorer: Scorer, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny.images(10).images
    whole, averaged = scorer.logits(images), scorer.tta_logits(images, 1)
    monkeypatch.setattr(score, "scored_batch_size", lambda side: batch)
    ticks: list[int] = []
    np.testing.assert_allclose(scorer.logits(images, ticks.append), whole, atol=1e-5)
    np.testing.assert_allclose(scorer.tta_logits(images, 1), averaged, atol=1e-5)
    assert sum(ticks) == 10
    assert max(ticks) == min(batch, 10)


@pytest.mark.parametrize("shift", [0, 1])
def test_known_logits_are_not_computed_again(
    shift: int, scorer: Scorer, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny.images(10).images
    expected = scorer.tta_logits(images, shift, curvature=0.1)
    monkeypatch.setattr(score, "scored_batch_size", lambda side: 4)
    counts = []
    hook = scorer.net.register_forward_pre_hook(lambda net, inputs: counts.append(len(inputs[0])))
    found = scorer.tta_logits(images, shift, curvature=0.1, single=scorer.logits(images))
    hook.remove()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sum(counts) == 10 * (6 if shift else 2)  # those of `logits` are among them


@pytest.mark.parametrize("training", [True, False])
def test_net_is_left_as_it_was(training: bool, scorer: Scorer, tiny: SimpleNamespace) -> None:
    scorer.net.train(training)
    before = {name: value.clone() for name, value in scorer.net.state_dict().items()}
    images = tiny.images(6).images
    images.flags.writeable = False
    one = scorer.logits(images)
    assert scorer.net.training == training
    assert all(torch.equal(before[name], value) for name, value in scorer.net.state_dict().items())
    scorer.net.eval()
    np.testing.assert_array_equal(one, scorer.logits(images))


def test_memory_format_and_precision(scorer: Scorer, tiny: SimpleNamespace) -> None:
    images = tiny.images(6).images
    other = Scorer(scorer.net, MEAN, STD, scorer.device, memory_format=torch.contiguous_format)
    np.testing.assert_allclose(other.logits(images), scorer.logits(images), atol=1e-5)
    rough = Scorer(scorer.net, MEAN, STD, scorer.device, precision=torch.bfloat16).logits(images)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, scorer.logits(images), atol=0.05)


def test_each_part_keeps_its_mode(tiny: SimpleNamespace) -> None:
    net = build_network(tiny.recipe(), 3).train()
    frozen = next(net.children()).eval()
    Scorer(net, MEAN, STD, torch.device("cpu")).logits(tiny.images(5).images)
    assert net.training
    assert not frozen.training


def test_scores_of_a_gpu_without_float64(scorer: Scorer) -> None:
    class AppleTensor(torch.Tensor):
        def double(self) -> torch.Tensor:
            raise TypeError("the MPS framework doesn't support float64")

        def cpu(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    class Scoring(torch.nn.Module):
        scores_known = True

        def known_score(self, features: torch.Tensor) -> torch.Tensor:
            return features.sum(dim=1).as_subclass(AppleTensor)

    found = replace(scorer, net=Scoring()).known_scores(np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32))  # type: ignore[arg-type]
    assert (found.dtype, found.tolist()) == (np.dtype(np.float64), [3.0, 3.0])
