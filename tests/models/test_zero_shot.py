from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from thirtytwo.errors import RecipeError
from thirtytwo.export.onnx import export_onnx
from thirtytwo.export.parity import check_parity
from thirtytwo.images.pixels import resize
from thirtytwo.inference.classifier import Classifier
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models import MODELS
from thirtytwo.models.zero_shot import ZeroShot

SIZE, DETAIL = 96, 32
SMALL = {"architecture": "test_efficientnet", "small_images": "none"}


def options(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "finetuned": {"name": "timm", "options": SMALL},
        "general": {"name": "timm", "options": SMALL},
        "labels": [[1, 2], [3], []],
        "size": SIZE,
        "detail": DETAIL,
    }
    return made | changes


@pytest.fixture(scope="module")
def net() -> ZeroShot:
    torch.manual_seed(0)
    built = MODELS.get("zero_shot")(3, options())
    assert isinstance(built, ZeroShot)
    with torch.no_grad():  # sure enough of something that shares can be seen
        for branch in (built.finetuned, built.general):
            branch.get_parameter("head.weight").mul_(30)
    return built.eval()


def small(count: int = 4) -> np.ndarray:
    """Images uint8 `(N, 32, 32, 3)`."""
    return np.random.default_rng(1).integers(0, 256, (count, DETAIL, DETAIL, 3), dtype=np.uint8)


def blurred(count: int = 4) -> torch.Tensor:
    """The same, enlarged as during inference."""
    large = np.stack([resize(image, SIZE, "squash") for image in small(count)])
    return torch.from_numpy(large).permute(0, 3, 1, 2).float() / 127.5 - 1


def sharp(count: int = 4) -> torch.Tensor:
    return torch.rand((count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(2)) * 2 - 1


def test_blurred_images_use_only_the_fine_tuned_network(net: ZeroShot) -> None:
    images = blurred()
    with torch.inference_mode():
        before = torch.from_numpy(small()).permute(0, 3, 1, 2).float() / 127.5 - 1
        smooth = F.interpolate(before, (SIZE, SIZE), mode="bilinear")
        expected = torch.softmax(net.finetuned(smooth), dim=1)
        features = net.pool(net.forward_features(images))
        assert torch.equal(features[:, -1], torch.zeros(4))
        torch.testing.assert_close(net(images).exp(), expected)
        torch.testing.assert_close(net.known_score(features).sigmoid(), expected.amax(dim=1))


def test_sharp_images_use_the_general_network_by_half(net: ZeroShot) -> None:
    images = sharp()
    with torch.inference_mode():
        features = net.pool(net.forward_features(images))
        assert torch.allclose(features[:, -1], torch.full((4,), 0.5))
        own, named, _ = net.branch_probabilities(features)
        imagenet = torch.softmax(net.general(images), dim=1)
        expected = torch.stack([imagenet[:, 1] + imagenet[:, 2], imagenet[:, 3], torch.zeros(4)], dim=1)
        torch.testing.assert_close(named, expected)
        rest = 1 - expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(net(images).exp(), 0.5 * own + 0.5 * (expected + rest * own))
        odds = [branch.amax(dim=1).clamp(1e-6, 1 - 1e-6).logit() for branch in (own, named)]
        torch.testing.assert_close(net.known_score(features), odds[0] + odds[1])


def test_one_threshold_fits_blurred_and_sharp_images(net: ZeroShot) -> None:
    centered = MODELS.get("zero_shot")(3, options(known_blurred=0.7, known_sharp=-1.2))
    assert isinstance(centered, ZeroShot)
    centered.load_state_dict(net.state_dict())
    with torch.inference_mode():
        for images, threshold in ((blurred(), 0.7), (sharp(), -1.2)):
            features = net.pool(net.forward_features(images))
            torch.testing.assert_close(centered.known_score(features), net.known_score(features) - threshold)


def test_probabilities_sum_to_one(net: ZeroShot) -> None:
    with torch.inference_mode():
        for images in (blurred(), sharp(), 0.5 * blurred() + 0.5 * sharp(), torch.zeros((2, 3, SIZE, SIZE))):
            logits = net(images)
            assert torch.isfinite(logits).all()
            torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(len(images)), atol=1e-4, rtol=0)


@pytest.mark.long
def test_exported_model_equals_the_network(net: ZeroShot, tmp_path: Path) -> None:
    info = ModelInfo(
        classes=("a", "b", "c"),
        input_size=SIZE,
        resize="squash",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        temperature=1.3,
        unknown_score="network",
        unknown_threshold=-0.4,
        architecture="zero_shot",
        dataset="made",
        accuracy=None,
        version="0",
    )
    path = tmp_path / "model.onnx"
    export_onnx(net, info, path)
    pixels = ((torch.cat([blurred(), sharp()]) + 1) * 127.5).clamp(0, 255).round().byte()
    images = pixels.permute(0, 2, 3, 1).numpy()
    check_parity(net, info, path, images)
    classifier = Classifier(path)
    known = [prediction.known for prediction in classifier.predict(list(images))]
    with torch.inference_mode():
        score = net.known_score(net.pool(net.forward_features(pixels.float() / 127.5 - 1)))
    assert known == (score >= -0.4).tolist()


def test_heatmap_of_an_unmapped_class_is_the_fine_tuned_network_s(net: ZeroShot) -> None:
    with torch.inference_mode():
        maps = net.forward_features(sharp())
        own = maps[:, : net.widths[0]]
        classes = torch.tensor([2, 2, 2, 2])
        torch.testing.assert_close(net.heatmaps(maps, classes), net.finetuned.heatmaps(own, classes))
        assert not torch.allclose(net.heatmaps(maps, classes - 1), net.finetuned.heatmaps(own, classes - 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 65},
        {"size": 64},
        {"blurred": 0.012},
        {"labels": [[1000], [], []]},
        {"share": 1.0},
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        MODELS.get("zero_shot")(3, options(**changes))
