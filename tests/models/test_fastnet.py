"""FastNet: whitening stem, initialization, shapes and three steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from thirtytwo import tensors
from thirtytwo.errors import RecipeError
from thirtytwo.models import MODELS
from thirtytwo.models.fastnet import EIGENVALUE_FLOOR, PATCH, FastNet, FilterConv

SMALL: dict[str, Any] = {"groups": [{"width": 8}, {"width": 16}]}
RESIDUAL: dict[str, Any] = {
    "activation": "silu",
    "pooling": "max+mean",
    "groups": [
        {"width": 8, "body": [1, 1], "residual": True},
        {"width": 16, "body": [3, 1], "body_width": 12, "residual": True},
        {"width": 24, "kernel": 2, "body": [3, 3], "body_width": 10, "residual": True},
    ],
}


def net(options: dict[str, Any] | None = None, classes: int = 5) -> FastNet:
    torch.manual_seed(0)
    made = MODELS.get("fastnet")(classes, SMALL if options is None else options)
    assert isinstance(made, FastNet)
    return made


def smooth_noise(count: int, size: int = 16) -> Tensor:
    """Noise with correlated neighbours and channels, as in photographs."""
    torch.manual_seed(1)
    images = F.avg_pool2d(torch.randn(count, 3, size + 2, size + 2), 3, stride=1)
    return 2 * (images + images.mean(dim=1, keepdim=True))


def patches(images: Tensor) -> Tensor:
    found = F.unfold(images, PATCH)  # (N, 12, places)
    return found.permute(0, 2, 1).reshape(-1, 12)


def test_whitening_makes_patches_white() -> None:
    images = smooth_noise(64)
    made = net()
    made.prepare(images)
    weight = made.stem.weight.detach()
    assert torch.equal(weight[12:], -weight[:12])
    seen = patches(images)
    out = (seen - seen.mean(dim=0)) @ weight[:12].flatten(1).T
    covariance = out.T @ out / len(out)
    variances = torch.linalg.eigvalsh(torch.cov(seen.T)).flip(0)
    expected = torch.diag(variances / (variances + EIGENVALUE_FLOOR))
    torch.testing.assert_close(covariance, expected, atol=2e-3, rtol=0)
    assert float(expected.diag().min()) > 0.9, "all directions have variance"


def test_whitening_is_deterministic() -> None:
    one, other = net(), net()
    one.prepare(smooth_noise(32))
    torch.manual_seed(5)
    other.prepare(smooth_noise(32))
    assert torch.equal(one.stem.weight, other.stem.weight)


class AppleTensor(torch.Tensor):
    """A tensor as on Apple's GPU, which has no float64."""

    @property
    def device(self) -> torch.device:
        return torch.device("mps")

    def double(self) -> Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")

    def cpu(self) -> Tensor:
        return self.as_subclass(Tensor)


def test_whitening_on_a_gpu_without_float64() -> None:
    images, one, other = smooth_noise(32), net(), net()
    one.prepare(images)
    other.prepare(images.as_subclass(AppleTensor))
    assert torch.equal(one.stem.weight, other.stem.weight)


@pytest.mark.parametrize("kind", ["grey", "one colour", "two colours"])
def test_gray_images_leave_no_dead_channel(kind: str) -> None:
    images = smooth_noise(32)
    if kind == "grey":
        images = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    elif kind == "one colour":
        images = torch.zeros_like(images)
    else:
        images = torch.sign(images[:, :1, :1, :1]).expand_as(images).contiguous()
    made = net()
    made.prepare(images)
    assert bool(made.stem.weight.isfinite().all())
    if kind == "grey":
        assert float(made.stem(images).detach().var(dim=(0, 2, 3)).min()) > 0.1
    loss = F.cross_entropy(made.train()(images), torch.arange(32) % 5)
    loss.backward()
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize(("width_in", "width_out"), [(4, 9), (9, 4), (6, 6)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_filters_start_as_identity(width_in: int, width_out: int, kernel: int) -> None:
    images = torch.randn(2, width_in, 7, 7)
    same = min(width_in, width_out)
    out = FilterConv(width_in, width_out, kernel)(images)
    assert out.shape == (2, width_out, 7, 7)
    torch.testing.assert_close(out[:, :same], images[:, :same])


@pytest.mark.parametrize("size", [16, 20, 24, 32])
@pytest.mark.parametrize("options", [{}, SMALL, RESIDUAL, SMALL | {"pooling": "max+mean"}])
def test_forward_is_its_three_steps(options: dict[str, Any], size: int) -> None:
    made = net(options).eval()
    images = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        maps = made.forward_features(images)
        features = made.pool(maps)
        logits = made.classify(features)
        assert torch.equal(made(images), logits)
    width = made.head.in_features
    assert maps.shape[:2] == (3, width)
    assert features.shape == (3, width)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(features @ made.class_weights().detach().T, logits)


def test_shapes_follow_the_recipe() -> None:
    made = net(RESIDUAL)
    shapes = {name: tuple(value.shape) for name, value in made.named_parameters() if value.ndim == 4}
    assert shapes == {
        "stem.weight": (24, 3, 2, 2),
        "groups.0.widen.weight": (8, 24, 3, 3),
        "groups.0.body.0.weight": (8, 8, 1, 1),
        "groups.0.body.1.weight": (8, 8, 1, 1),
        "groups.1.widen.weight": (16, 8, 3, 3),
        "groups.1.body.0.weight": (12, 16, 3, 3),
        "groups.1.body.1.weight": (16, 12, 1, 1),
        "groups.2.widen.weight": (24, 16, 2, 2),
        "groups.2.body.0.weight": (10, 24, 3, 3),
        "groups.2.body.1.weight": (24, 10, 3, 3),
    }
    assert made.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 24, 3, 3)


def test_residual_adds_the_bodys_input() -> None:
    group = net({"groups": [{"width": 8, "residual": True}]}).groups[0].eval()
    maps = torch.randn(2, 24, 8, 8)
    plain = net({"groups": [{"width": 8}]}).groups[0].eval()
    plain.load_state_dict(group.state_dict())
    before = group.activation(group.norm(F.max_pool2d(group.widen(maps), 2)))
    torch.testing.assert_close(group(maps), plain(maps) + before)


@pytest.mark.parametrize("options", [SMALL | {"pooling": "max+mean"}, RESIDUAL])
def test_heatmaps_mean_is_their_share_of_the_logit(options: dict[str, Any]) -> None:
    made = net(options).eval()
    with torch.inference_mode():
        maps = made.forward_features(torch.randn(4, 3, 32, 32))
        top = made.classify(made.pool(maps)).argmax(dim=1)
        heat = made.heatmaps(maps, top)
        assert heat.shape == (4, *maps.shape[2:])
        from_mean = made.classify(made.pool(maps)) - made.classify(maps.amax(dim=(2, 3)))
    torch.testing.assert_close(heat.mean(dim=(1, 2)), from_mean.gather(1, top[:, None])[:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [SMALL, RESIDUAL])
def test_every_trained_parameter_has_one_role(options: dict[str, Any]) -> None:
    made = net(options)
    roles = made.parameter_groups()
    assert set(roles) == {"filters", "stem_bias", "rest", "head"}
    given = [id(parameter) for group in roles.values() for parameter in group]
    trained = [id(parameter) for parameter in made.parameters() if parameter.requires_grad]
    assert sorted(given) == sorted(trained)
    assert all(parameter.ndim == 4 for parameter in roles["filters"])
    assert roles["head"] == [made.head.weight]
    assert roles["stem_bias"] == [made.stem.bias]
    assert not made.stem.weight.requires_grad


def test_a_stopped_stem_bias_keeps_its_role() -> None:
    made = net()
    made.stem.bias.requires_grad_(False)
    assert made.parameter_groups()["stem_bias"] == [made.stem.bias]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"group": []}, ["'group'", "'groups'"]),
        ({"groups": [{"width": 8, "residul": True}]}, ["residul", "'residual'"]),
        ({"groups": [{"width": 2}]}, ["'groups.0.width'", "8", "found 2"]),
        ({"groups": [{}]}, ["'groups.0.width'"]),
        ({"groups": [{"width": 8, "body": [0]}]}, ["groups.0.body.0", "1", "found 0"]),
        ({"groups": [{"width": 8, "body": [2], "residual": True}]}, ["groups.0", "odd"]),
        ({"activation": "relu"}, ["'gelu'", "'silu'", "'relu'"]),
        ({"pooling": 3}, ["'pooling'", "3"]),
        ({"logit_scale": 0}, ["'logit_scale'", "found 0"]),
    ],
)
def test_wrong_options(options: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        net(options)
    assert all(part in str(caught.value) for part in parts)
    assert "model.options of fastnet" in str(caught.value)


def test_tap_receives_the_maps() -> None:
    made, images, seen = net(RESIDUAL).eval(), smooth_noise(3, 32), list[Tensor]()

    def tap(maps: Tensor) -> Tensor:
        seen.append(maps)
        return 2.0 * maps

    doubled = made.forward_with_tap(images, tap)
    assert torch.equal(seen[0], made.forward_features(images))
    torch.testing.assert_close(doubled, 2.0 * made(images))


@pytest.mark.parametrize("pooling", ["max", "max+mean"])
def test_gradients_of_pooling_have_the_layout_of_the_maps(pooling: str) -> None:
    made = net(SMALL | {"pooling": pooling}).train()
    values = torch.randn(5, 24, 3, 3)
    outgoing = torch.randn(5, 24)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = values.contiguous(memory_format=layout).requires_grad_()
        features = made.pool(maps)
        (gradient,) = torch.autograd.grad(features, maps, outgoing)
        assert gradient.is_contiguous(memory_format=layout)
        results.append((features, gradient))
    torch.testing.assert_close(*results)
    torch.testing.assert_close(results[0][0], made.eval().pool(values))


class LargestStem(TorchDispatchMode):
    """Remembers the largest number of maps of the stem's 24 channels that an operation returns."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple) else (result,):
            if isinstance(one, Tensor) and one.shape[1:] == (24, 15, 15):
                self.found = max(self.found, len(one))
        return result


COUNT = 11


def run_step(monkeypatch: pytest.MonkeyPatch, *, parts: bool, bf16: bool, mode: str) -> tuple[dict[str, Tensor], int]:
    """What a step, or the evaluation, of some images gives, and the largest number of the stem's maps in memory."""
    # of the first group's convolution: two images or all
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 2 * 8 * 15 * 15 * (2 if bf16 else 4) if parts else 2**30)
    made = net(RESIDUAL).to(memory_format=torch.channels_last).train(mode != "evaluation")
    made.stem.bias.requires_grad_(mode == "trained stem")
    images = smooth_noise(COUNT).contiguous(memory_format=torch.channels_last)
    made.prepare(images)
    with LargestStem() as stem, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        if mode == "evaluation":
            with torch.no_grad():
                return {"logits": made(images)}, stem.found
        logits = made(images)
        logits.sum().backward()
    gradients = {name: one.grad for name, one in made.named_parameters() if one.grad is not None}
    return {"logits": logits.detach(), **gradients}, stem.found


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("mode", ["training", "evaluation", "trained stem"])
def test_a_stem_that_is_not_trained_is_computed_for_a_few_images_at_a_time(
    mode: str, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, whole = run_step(monkeypatch, parts=False, bf16=bf16, mode=mode)
    found, part = run_step(monkeypatch, parts=True, bf16=bf16, mode=mode)
    assert whole == COUNT
    assert part == (COUNT if mode == "trained stem" else 2)
    assert found.keys() == expected.keys()
    tolerance = {"rtol": 0.05, "atol": 0.05} if bf16 else {"rtol": 1e-3, "atol": 1e-4}
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        scale = float(value.abs().max())
        torch.testing.assert_close(found[name] / scale, value / scale, **tolerance, msg=name)


def test_hooks_of_the_stem_get_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 2 * 8 * 15 * 15 * 4)
    made = net(RESIDUAL).to(memory_format=torch.channels_last).eval()
    seen: list[int] = []
    made.stem.register_forward_hook(lambda module, inputs, result: seen.append(len(result)))
    with torch.no_grad():
        made(smooth_noise(COUNT).contiguous(memory_format=torch.channels_last))
    assert seen == [COUNT]


def nodes_of(result: Tensor) -> list[str]:
    """Names of all nodes of a result's graph, sorted."""
    nodes: list[Any] = [result.grad_fn]
    for node in nodes:
        nodes += [before for before, _ in node.next_functions if before is not None and before not in nodes]
    return sorted(node.name() for node in nodes)


def test_the_layout_of_images_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "CHUNK_BYTES", 2 * 8 * 15 * 15 * 4)
    made = net(RESIDUAL).to(memory_format=torch.channels_last).train()
    made.stem.bias.requires_grad_(False)
    images = smooth_noise(COUNT).contiguous()
    found, expected = made(images), made(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert nodes_of(found) == nodes_of(expected)


def test_operations_of_one_image_are_counted_once() -> None:
    made = net(RESIDUAL).to(memory_format=torch.channels_last).eval()
    images = smooth_noise(1).contiguous(memory_format=torch.channels_last)
    calls: list[int] = []
    plain = made.stem.forward
    vars(made.stem)["forward"] = lambda given: calls.append(len(given)) or plain(given)
    with torch.no_grad():
        made(images)
    assert calls == [1]
