"""MuonSGD against torch's SGD and properties of Muon; timm's optimisers against timm."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn

from thirtytwo.config.optimization import OptimizerSettings
from thirtytwo.errors import RecipeError, UnknownNameError
from thirtytwo.training.optimizers import MuonSGD, build_optimizer, timm_names


def parameters() -> dict[str, list[nn.Parameter]]:
    torch.manual_seed(0)
    shapes = {"filters": (8, 4, 3, 3), "stem_bias": (6,), "rest": (8,), "head": (5, 8)}
    return {role: [nn.Parameter(torch.randn(shape))] for role, shape in shapes.items()}


def give_gradients(roles: dict[str, list[nn.Parameter]], seed: int) -> None:
    torch.manual_seed(seed)
    for group in roles.values():
        for parameter in group:
            parameter.grad = torch.randn_like(parameter)


def test_sgd_equals_torch_step_by_step() -> None:
    settings = OptimizerSettings(
        name="sgd", lr=0.05, lr_rest=0.02, lr_head=0.3, momentum=0.6, momentum_rest=0.85, weight_decay=1e-4
    )
    ours, theirs = parameters(), parameters()
    optimizer = build_optimizer(ours, settings, batch_size=100)
    rates = {"filters": 0.05, "stem_bias": 0.02, "rest": 0.02, "head": 0.3}
    reference = torch.optim.SGD(
        [
            # a weight loses weight_decay · batch_size of itself a step, whatever its rate
            {
                "params": theirs[role],
                "lr": lr,
                "weight_decay": 1e-4 * 100 / lr,
                "momentum": 0.6 if role == "filters" else 0.85,
            }
            for role, lr in rates.items()
        ],
        momentum=0.5,
        nesterov=True,
    )
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step()
        reference.step()
        for group, other in zip(optimizer.param_groups, reference.param_groups, strict=True):
            group["lr"] *= 0.9
            other["lr"] *= 0.9
        for role in ours:
            torch.testing.assert_close(ours[role][0], theirs[role][0])


@pytest.mark.parametrize("role", ["filters", "rest", "head"])
def test_decay_is_independent_of_the_learning_rate(role: str) -> None:
    settings = OptimizerSettings(name="sgd", momentum=0, momentum_rest=0, weight_decay=1e-3)
    roles = parameters()
    before = roles[role][0].detach().clone()
    roles[role][0].grad = torch.zeros_like(before)
    build_optimizer(roles, settings, batch_size=50).step()
    torch.testing.assert_close(roles[role][0].detach(), before * (1 - 1e-3 * 50))


def test_two_small_batches_decay_as_one_large() -> None:
    shrunk = []
    for batch_size, steps in ((10, 2), (20, 1)):
        roles = parameters()
        optimizer = build_optimizer(roles, OptimizerSettings(momentum_rest=0, weight_decay=1e-4), batch_size)
        for _ in range(steps):
            roles["head"][0].grad = torch.zeros_like(roles["head"][0])
            optimizer.step()
        shrunk.append(roles["head"][0].detach())
    torch.testing.assert_close(*shrunk, rtol=1e-5, atol=1e-6)


def muon_step(gradient: Tensor, *, lr: float = 1.0, renormalise: bool = False, start: Tensor | None = None) -> Tensor:
    """Change of a filter bank by one step of Muon."""
    parameter = nn.Parameter(torch.zeros_like(gradient) if start is None else start.clone())
    group: dict[str, Any] = {"params": [parameter], "lr": lr, "momentum": 0.6, "muon": True, "renormalise": renormalise}
    parameter.grad = gradient.clone()
    MuonSGD([group]).step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (64, 8, 1, 1), (16, 16, 1, 1), (32, 3, 3, 3)])
def test_muons_step_is_nearly_orthogonal(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    flat = torch.randn(shape).flatten(1)
    left, _, right = torch.linalg.svd(flat, full_matrices=False)
    values = torch.linspace(0.3, 1.0, len(right))
    gradient = (left * values) @ right
    step = -muon_step(gradient.reshape(shape)).flatten(1)
    assert step.shape == flat.shape
    found = torch.linalg.svdvals(step)
    # three quintic Newton–Schulz steps lift a singular value of 0.05 to 0.7 and keep all below 1.3
    assert float(found.min()) > 0.5, found
    assert float(found.max()) < 1.3, found
    assert float((left.T @ step @ right.T).diag().min()) > 0.4, "same singular vectors"


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (32, 3, 2, 2)])
def test_muons_step_is_that_of_flattened_filters_in_any_layout(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    flat = gradient.flatten(1).mul(1.6)  # Nesterov's direction at the first step
    expected = zeropower_via_newtonschulz(flat, 3, [(3.4445, -4.7750, 2.0315)], dtype=torch.float32)
    for layout in (torch.contiguous_format, torch.channels_last):
        step = -muon_step(gradient.contiguous(memory_format=layout))
        torch.testing.assert_close(step.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_muon_is_scale_invariant() -> None:
    torch.manual_seed(2)
    gradient = torch.randn(8, 4, 3, 3)
    for scale in (2.0**-12, 2.0**12):
        torch.testing.assert_close(muon_step(gradient * scale), muon_step(gradient), rtol=1e-4, atol=1e-5)


def test_muon_without_gradient_does_nothing() -> None:
    start = torch.randn(8, 4, 3, 3)
    assert torch.equal(muon_step(torch.zeros_like(start), start=start), start)


@pytest.mark.parametrize("renormalise", [True, False])
def test_renormalise_keeps_norms(renormalise: bool) -> None:
    torch.manual_seed(3)
    start = 7 * torch.randn(16, 4, 3, 3)
    after = muon_step(torch.randn_like(start), lr=1e-9, renormalise=renormalise, start=start)
    expected = 16**0.5 if renormalise else float(start.norm())
    assert float(after.norm()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(after / after.norm(), start / start.norm())


def test_filters_may_start_at_zero() -> None:
    after = muon_step(torch.randn(16, 8), lr=0.1, renormalise=True, start=torch.zeros(16, 8))
    assert bool(after.isfinite().all())
    assert float(after.norm()) > 0


@pytest.mark.parametrize(
    ("settings", "muon", "renormalise"),
    [({}, True, True), ({"renormalise": False}, True, False), ({"name": "sgd"}, False, False)],
)
def test_muon_updates_only_filters(settings: dict[str, Any], muon: bool, renormalise: bool) -> None:
    optimizer = build_optimizer(parameters(), OptimizerSettings(**settings), 10)
    found = {group["role"]: (group["muon"], group["renormalise"]) for group in optimizer.param_groups}
    assert found == {
        "filters": (muon, renormalise),
        "stem_bias": (False, False),
        "rest": (False, False),
        "head": (False, False),
    }


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"foreach": True}])
def test_adamw_takes_the_same_steps_as_one_operation_as_in_parts(options: dict[str, Any]) -> None:
    ours, theirs = parameters(), parameters()
    built = build_optimizer(ours, OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1, options=options), 10)
    assert built.defaults["fused"] is (True if not options else options.get("fused"))
    plain = torch.optim.AdamW(
        [
            {"params": [value], "weight_decay": 0.1 if value.ndim > 1 else 0.0}
            for values in theirs.values()
            for value in values
        ],
        lr=0.01,
    )
    for step in range(3):
        for values, others in zip(ours.values(), theirs.values(), strict=True):
            for value, other in zip(values, others, strict=True):
                generator = torch.Generator().manual_seed(step)
                value.grad = torch.randn(value.shape, generator=generator)
                other.grad = value.grad.clone()
        built.step()
        plain.step()
    for values, others in zip(ours.values(), theirs.values(), strict=True):
        for value, other in zip(values, others, strict=True):
            torch.testing.assert_close(value, other)


def test_a_role_without_parameters_is_left_out() -> None:
    optimizer = build_optimizer(parameters() | {"stem_bias": []}, OptimizerSettings(), 10)
    assert [group["role"] for group in optimizer.param_groups] == ["filters", "rest", "head"]


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_state_survives_being_saved(name: str) -> None:
    settings = OptimizerSettings(name=name, weight_decay=1e-4)
    straight, stopped = parameters(), parameters()
    optimizer = build_optimizer(straight, settings, 10)
    first = build_optimizer(stopped, settings, 10)
    for step in range(4):
        if step == 2:
            saved = copy.deepcopy(first.state_dict())
            first = build_optimizer(stopped, settings, 10)
            first.load_state_dict(saved)
        for roles, one in ((straight, optimizer), (stopped, first)):
            give_gradients(roles, step)
            one.step()
    for role in straight:
        assert torch.equal(straight[role][0], stopped[role][0])


def test_closure_runs_with_gradients_enabled() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = MuonSGD([{"params": [parameter], "lr": 0.5, "momentum": 0.0}])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum() / 2
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.5
    torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.5))


@pytest.mark.parametrize("name", ["muon", "sgd", "adamw"])
def test_scales_of_single_parameters(name: str) -> None:
    roles = parameters()
    roles["filters"].append(nn.Parameter(torch.randn(4, 4, 3, 3)))
    slow = {roles["filters"][1]: 0.25, roles["head"][0]: 0.5}
    settings = OptimizerSettings(name=name, lr=0.08, lr_rest=0.02, lr_head=0.4, weight_decay=1e-4)
    optimizer = build_optimizer(roles, settings, 10, scales=slow)
    found = {(group["role"], group["scale"]): group["lr"] for group in optimizer.param_groups}
    rest, head = (0.02, 0.4) if settings.per_image else (0.08, 0.08)
    expected = {("filters", 1.0): 0.08, ("filters", 0.25): 0.02, ("stem_bias", 1.0): rest, ("rest", 1.0): rest}
    assert found == pytest.approx(expected | {("head", 0.5): head * 0.5})
    # what decay takes off in a step shrinks with the rate, as it does in a schedule
    by_scale = {group["scale"]: group["weight_decay"] for group in optimizer.param_groups if group["role"] == "filters"}
    assert by_scale[1.0] == by_scale[0.25]


def test_timm_optimizer_equals_timm() -> None:
    """AdamW of the recipe against torch's, step by step, with decay of matrices only."""
    settings = OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1, options={"betas": [0.8, 0.95]})
    ours, theirs = parameters(), parameters()
    for roles in (ours, theirs):
        torch.manual_seed(5)
        roles["head"].append(nn.Parameter(torch.randn(5)))
    optimizer = build_optimizer(ours, settings, batch_size=100)
    decayed = [theirs["filters"][0], theirs["head"][0]]
    others = [theirs["stem_bias"][0], theirs["rest"][0], theirs["head"][1]]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01, betas=(0.8, 0.95)
    )
    for step in range(5):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step()
        reference.step()
    for role, group in ours.items():
        torch.testing.assert_close(group, theirs[role])


def test_decay_of_everything() -> None:
    optimizer = build_optimizer(
        parameters(), OptimizerSettings(name="lion", lr=0.01, weight_decay=0.1, decay_all=True), 1
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}
    by_default = build_optimizer(parameters(), OptimizerSettings(name="lion", lr=0.01, weight_decay=0.1), 1)
    decays = {group["role"]: group["weight_decay"] for group in by_default.param_groups}
    assert decays == {"filters": 0.1, "stem_bias": 0.0, "rest": 0.0, "head": 0.1}


@pytest.mark.parametrize("name", [{"muon": "timm_muon", "sgd": "timm_sgd"}.get(name, name) for name in timm_names()])
def test_every_timm_optimizer_lowers_the_loss(name: str) -> None:
    roles = parameters()
    optimizer = build_optimizer(roles, OptimizerSettings(name=name, lr=0.01), 10)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = sum((group[0] ** 2).sum() for group in roles.values())
        assert isinstance(loss, Tensor)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0]
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    torch.load(saved, weights_only=True)


def test_timm_muon_uses_adamw_for_the_head() -> None:
    optimizer = build_optimizer(parameters(), OptimizerSettings(name="timm_muon", lr=0.02), 10)
    assert type(optimizer).__name__ == "Muon"
    assert {group["role"]: group["use_fallback"] for group in optimizer.param_groups} == {
        "filters": False, "stem_bias": True, "rest": True, "head": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "error", "parts"),
    [
        ({"name": "adamv"}, UnknownNameError, ["'adamv'", "'adam"]),
        ({"name": "fusedadam"}, UnknownNameError, ["'fusedadam'"]),
        ({"name": "timm_fly"}, UnknownNameError, ["'timm_fly'", "muon"]),
        ({"name": "adamw", "options": {"beta": 1}}, RecipeError, ["'adamw'", "beta"]),
        (
            {"name": "adamw", "options": {"betas": [2.0, 0.9]}},
            RecipeError,
            ["'adamw'", "2.0"],
        ),
    ],
)
def test_unknown_optimizers_and_options(settings: dict[str, Any], error: type[Exception], parts: list[str]) -> None:
    with pytest.raises(error) as caught:
        build_optimizer(parameters(), OptimizerSettings(lr=0.01, **settings), 10)
    assert all(part in str(caught.value) for part in parts)
