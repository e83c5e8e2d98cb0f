"""BatchNorm and activation with little memory equal PyTorch's, forward and backward, to the last bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from thirtytwo.models import norm_activation
from thirtytwo.models.norm_activation import norm_and_activation

WIDTH = 24


def a_norm(precision: torch.dtype, *, trained_scale: bool = False) -> nn.BatchNorm2d:
    """A BatchNorm with other values than those that it starts from; parameters are float32 beside bfloat16 maps."""
    generator = torch.Generator().manual_seed(1)
    norm = nn.BatchNorm2d(WIDTH, eps=1e-5, momentum=0.4)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert value is not None
            value.copy_(torch.rand(WIDTH, generator=generator) + 0.5)
    norm.weight.requires_grad_(trained_scale)
    return norm.to(torch.float64 if precision == torch.float64 else torch.float32)


def some_maps(precision: torch.dtype, layout: torch.memory_format, count: int = 13, side: int = 7) -> Tensor:
    maps = 3 * torch.randn((count, WIDTH, side, side), generator=torch.Generator().manual_seed(0)) + 1
    return maps.to(precision).contiguous(memory_format=layout)


def run(norm: nn.BatchNorm2d, activation: nn.Module, maps: Tensor, *, ours: bool) -> dict[str, Tensor | None]:
    """Everything that a step computes: the result, all gradients and the statistics."""
    norm, maps = copy.deepcopy(norm), maps.clone(memory_format=torch.preserve_format).requires_grad_()
    result = norm_and_activation(norm, activation, maps) if ours else activation(norm(maps))
    assert (type(result.grad_fn).__name__ == "_NormActivationBackward") is ours
    weights = torch.linspace(-1, 1, result.numel()).to(result.dtype).view(result.shape)
    result.backward(torch.empty_like(result).copy_(weights))
    found = {"result": result.detach(), "maps": maps.grad, **{f"d {n}": p.grad for n, p in norm.named_parameters()}}
    return found | dict(norm.named_buffers())


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few images, of which the last is shorter."""
    monkeypatch.setattr("thirtytwo.tensors.CHUNK_BYTES", 4 * WIDTH * 7 * 7 * 4)


@pytest.mark.parametrize("trained_scale", [False, True])
@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU()])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.usefixtures("small_chunks")
def test_equal_to_pytorch(
    precision: torch.dtype, layout: torch.memory_format, activation: nn.Module, trained_scale: bool
) -> None:
    norm, maps = a_norm(precision, trained_scale=trained_scale), some_maps(precision, layout)
    ours, theirs = (run(norm, activation, maps, ours=one) for one in (True, False))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        found = ours[name]
        if expected is None:
            assert found is None, name
        else:
            assert found is not None
            assert torch.equal(found, expected), name
            assert found.stride() == expected.stride(), name


@pytest.mark.usefixtures("small_chunks")
def test_gradients_are_those_of_the_function() -> None:
    norm = a_norm(torch.float64, trained_scale=True)
    norm.track_running_stats = False  # every call is the same function
    maps = some_maps(torch.float64, torch.channels_last, count=5, side=3).requires_grad_()

    def function(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result: Tensor = norm_activation._NormActivation.apply(
            maps, weight, bias, norm, *norm_activation._ACTIVATIONS[nn.SiLU]
        )
        return result

    assert torch.autograd.gradcheck(function, (maps, norm.weight, norm.bias), fast_mode=True)


def test_second_derivatives_are_refused() -> None:
    maps = some_maps(torch.float32, torch.channels_last).requires_grad_()
    result = norm_and_activation(a_norm(torch.float32), nn.SiLU(), maps)
    (gradient,) = torch.autograd.grad(result.pow(2).sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_keeps_half_of_the_memory() -> None:
    norm, maps = a_norm(torch.bfloat16), some_maps(torch.bfloat16, torch.channels_last, 64)
    kept: dict[bool, int] = {}
    for ours in (True, False):
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            inputs = maps.clone().requires_grad_()
            _ = norm_and_activation(norm, nn.SiLU(), inputs) if ours else nn.SiLU()(norm(inputs))
        kept[ours] = sum(sizes.values())
    assert kept[True] < 0.55 * kept[False]


ACTIVATIONS = {"other activation": nn.ReLU(), "approximate GELU": nn.GELU("tanh")}


@pytest.mark.parametrize(
    "kind",
    ["evaluation", "no gradient", "other activation", "approximate GELU", "one image", "no parameters", "no momentum"],
)
def test_pytorchs_own_is_used_elsewhere(kind: str) -> None:
    norm, activation = a_norm(torch.float32), ACTIVATIONS.get(kind, nn.SiLU())
    if kind == "no parameters":
        norm = nn.BatchNorm2d(WIDTH, affine=False)
    if kind == "no momentum":  # statistics are the mean over all batches
        norm.momentum = None
    maps = some_maps(torch.float32, torch.channels_last, 1 if kind == "one image" else 8)
    norm.train(kind != "evaluation")
    result = norm_and_activation(norm, activation, maps.requires_grad_(kind != "no gradient"))
    assert "_NormActivation" not in type(result.grad_fn).__name__
    torch.testing.assert_close(result, activation(norm(maps)))


def test_statistics_can_be_preserved() -> None:
    norm = a_norm(torch.float32)
    norm.track_running_stats = False
    before = copy.deepcopy(norm.state_dict())
    norm_and_activation(norm, nn.SiLU(), some_maps(torch.float32, torch.channels_last).requires_grad_())
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
