"""Transfer in two stages: the head on a frozen base, then layers below it; cached features against images."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thirtytwo.config.augmentation import AugmentSettings
from thirtytwo.config.recipe import ModelSettings, Recipe
from thirtytwo.data.channels import channel_statistics
from thirtytwo.errors import RecipeError
from thirtytwo.models import MODELS, Network
from thirtytwo.tensors import normalize, to_device
from thirtytwo.training import callbacks
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.callbacks import HistoryCallback
from thirtytwo.training.fit import Fitted, build_training
from thirtytwo.training.hardware import choose_hardware
from thirtytwo.training.lr_finder import run_lr_finder, run_lr_ramp
from thirtytwo.training.transfer import (
    TransferBatches,
    TransferModule,
    describe_stages,
    is_augmented,
    resolve_transfer,
    set_modes,
    unfrozen_layers,
    with_run_settings,
)

GROUPS = [{"width": 8}, {"width": 16}]
TEN = tuple(f"kind {number}" for number in range(10))
PLAIN: dict[str, Any] = {"augment__flip": "none"}
NETWORKS: dict[str, ModelSettings] = {
    "fastnet": ModelSettings(name="fastnet", options={"groups": GROUPS}),
    "textbook": ModelSettings(name="textbook", options={"widths": [4, 8], "convolutions": 1, "dense": [8, 6]}),
    "timm": ModelSettings(
        name="timm",
        options={
            "architecture": "resnet18",
            "arguments": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
            "drop_rate": 0.3,
            "head": [8],
            "head_dropout": 0.5,
        },
    ),
}
Train = Callable[..., Fitted]
Pretrain = Callable[..., Any]
Starter = Callable[..., tuple[Recipe, Network]]


@pytest.fixture
def started(pretrain: Pretrain, tiny: SimpleNamespace) -> Starter:
    """`started(network, **changes)`: a recipe that starts from a run of that network, and the run's network."""

    def make(network: str = "fastnet", **changes: Any) -> tuple[Recipe, Network]:
        path, net = pretrain(NETWORKS[network], TEN)
        shape = {"model__name": NETWORKS[network].name, "model__options": NETWORKS[network].options}
        return tiny.recipe(**shape, transfer__pretrained=str(path), **changes), net

    return make


def base_of(net: Network) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if name.split(".")[0] not in net.head_modules}


def changed(net: Network, before: Network) -> set[str]:
    """Names of the tensors in which two networks differ."""
    theirs = before.state_dict()
    return {name for name, value in net.state_dict().items() if not torch.equal(value, theirs[name])}


def loop_of(recipe: Recipe, tiny: SimpleNamespace) -> tuple[TransferModule, TransferBatches]:
    loop, batches, _, _ = build_training(recipe, tiny.images(48), choose_hardware(recipe.train, "cpu"))
    assert isinstance(loop, TransferModule)
    assert isinstance(batches, TransferBatches)
    return loop, batches


@pytest.mark.parametrize("network", NETWORKS)
def test_cached_features_train_the_same_head(network: str, started: Starter, train: Train) -> None:
    fast, before = started(network, transfer__head_until=1, **PLAIN)
    slow = fast.model_copy(update={"transfer": fast.transfer.model_copy(update={"views": 0})})
    quick, anew = train("fast", fast), train("slow", slow)
    theirs = anew.net.state_dict()
    for name, value in quick.net.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)
    base = base_of(before)
    assert all(torch.equal(value, base[name]) for name, value in base_of(quick.net).items()), "statistics included"
    assert not torch.equal(quick.net.state_dict()["head.weight"], before.state_dict()["head.weight"][:3])


def test_base_runs_once_with_cached_features(started: Starter, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, _ = started(transfer__head_until=1, schedule__epochs=5, **PLAIN)
    seen = 0
    kind = type(MODELS.get("fastnet")(3, {"groups": GROUPS}))
    plain = kind.forward_features

    def forward_features(self: Any, images: Tensor) -> Tensor:
        nonlocal seen
        seen += len(images)
        return plain(self, images)

    monkeypatch.setattr(kind, "forward_features", forward_features)
    train("run", recipe)
    assert seen == 1 + 1 + 48 + 12, (
        "one for the width and one to fold BatchNorm, then each training and validation image"
    )


def test_cached_views_equal_the_first_epochs(started: Starter, tiny: SimpleNamespace) -> None:
    recipe, _ = started(
        transfer__head_until=1, transfer__views=2, schedule__epochs=3, augment__translate=2, augment__mixup=0.4
    )
    loop, batches = loop_of(recipe, tiny)
    shown = TrainingBatches(
        *to_device(tiny.images(48), torch.device("cpu")),
        (0.4, 0.5, 0.6),
        (0.2, 0.25, 0.3),
        recipe,
        torch.contiguous_format,
        tiny.images(48).classes,
    )
    for epoch in range(3):
        data, targets = shown.batch(torch.arange(16, 32), epoch % 2, 1)
        with torch.no_grad():
            expected = loop.net.pool(loop.net.forward_features(data))
        features, labels = batches.batch(torch.tensor([20, 17]), epoch, 0)
        torch.testing.assert_close(features, expected[[4, 1]], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(labels, targets[[4, 1]])
        assert labels.shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "unfreeze", "trained", "kept"),
    [
        ("fastnet", "all", {"stem.bias", "groups.0.widen.weight", "groups.1.widen.weight"}, {"stem.weight"}),
        ("fastnet", "groups.1", {"groups.1.widen.weight"}, {"stem.bias", "groups.0.widen.weight"}),
        ("textbook", "stages.5", {"stages.5.weight", "hidden.0.weight"}, {"stages.0.weight", "stages.1.running_mean"}),
        ("timm", "layer4", {"body.layer4.0.conv1.weight", "hidden.0.weight"}, {"body.layer3.0.conv1.weight"}),
        ("timm", "layer2", {"body.layer2.0.conv1.weight"}, {"body.conv1.weight", "body.bn1.weight"}),
        ("timm", 0.6, {"body.layer3.0.conv1.weight"}, {"body.conv1.weight", "body.layer1.0.conv1.weight"}),
        ("fastnet", 0.01, {"groups.1.widen.weight"}, {"stem.bias", "groups.0.widen.weight"}),
    ],
)
@pytest.mark.parametrize("batchnorm", ["frozen", "trained"])
def test_unfreezing_from_a_named_layer(
    batchnorm: str,
    network: str,
    unfreeze: str | float,
    trained: set[str],
    kept: set[str],
    started: Starter,
    train: Train,
) -> None:
    recipe, before = started(
        network, transfer__unfreeze=unfreeze, transfer__batchnorm=batchnorm, optimizer__renormalise=False, **PLAIN
    )
    found = {name for name in changed(train("run", recipe).net, train_nothing(before)) if not name.startswith("head.")}
    assert trained <= found
    assert not kept & found
    parameters = {name for layer in unfrozen_layers(before, recipe.transfer) for name in layer}
    statistics = {name for name in found if "running" in name or "num_batches" in name}
    below = {name for name in statistics if name.split(".")[0] not in before.head_modules}
    assert bool(below) is (batchnorm == "trained")
    assert all(name.rpartition(".")[0] + ".bias" in parameters for name in below), "those of frozen layers stay"


def train_nothing(net: Network) -> Network:
    """The network with a new head for three classes, for the comparison."""
    net.head = nn.Linear(net.head.in_features, 3, bias=net.head.bias is not None)  # type: ignore[union-attr, arg-type]
    return net


def test_rates_by_hand(started: Starter, tiny: SimpleNamespace) -> None:
    """3 steps per epoch, one epoch for the head; each stage falls linearly from its peak."""
    recipe, _ = started(
        schedule__epochs=3,
        transfer__head_until=0.34,
        transfer__rate=0.1,
        transfer__layer_decay=0.5,
        optimizer__lr=0.2,
        optimizer__lr_head=0.6,
    )
    loop, _ = loop_of(recipe, tiny)
    made = loop.configure_optimizers()
    groups, factors = made["optimizer"].param_groups, made["lr_scheduler"]["scheduler"].lr_lambdas
    peaks = {(group["role"], group["scale"]): group["initial_lr"] for group in groups}
    assert peaks["head", 1.0] == pytest.approx(0.6)
    assert peaks["filters", 0.5] == pytest.approx(0.2 * 0.5), "the group next to the head"
    assert peaks["filters", 0.25] == pytest.approx(0.2 * 0.25)
    assert peaks["stem_bias", 0.125] == pytest.approx(recipe.optimizer.lr_rest * 0.125)
    head = factors[[group["role"] for group in groups].index("head")]
    assert [head(step) for step in (0, 1, 2)] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [head(step) for step in (3, 4, 8)] == pytest.approx([0.1, 0.1 * 5 / 6, 0.1 / 6])


def test_frozen_layers_have_no_dropout(started: Starter, tiny: SimpleNamespace) -> None:
    loop, _ = loop_of(started("textbook", transfer__unfreeze="stages.5")[0], tiny)
    drops = [module for module in loop.net.stages if isinstance(module, nn.Dropout)]  # type: ignore[union-attr]
    norms = [module for module in loop.net.modules() if isinstance(module, _BatchNorm)]
    assert [drop.training for drop in drops] == [False, False]
    assert [norm.training for norm in norms] == [False, False, True, True], "those of the dense head are trained"
    loop.set_trainable(2)
    assert [drop.training for drop in drops] == [False, True]
    assert [norm.training for norm in norms] == [False, False, True, True]


def test_modes_follow_trained_parameters() -> None:
    linear, drop = nn.Linear(2, 2), nn.Dropout()
    net = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.ReLU(), nn.Sequential(linear, drop))
    set_modes(net, {id(linear.weight)})
    assert [net.training, *(part.training for part in net), drop.training] == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("views", "expected"), [(1, {2, 3}), (0, {1, 2, 3})])
def test_no_time_left_in_the_epoch_that_computes_features(
    views: int,
    expected: set[int],
    started: Starter,
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where only the head is trained."""
    monkeypatch.setattr(callbacks, "PLAIN_LINE_SECONDS", 0.0)
    recipe, _ = started(transfer__head_until=1, transfer__views=views, **PLAIN)
    train("run", recipe, show=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ") and "done" not in line]
    assert {int(line.split()[1].split("/")[0]) for line in lines} == {1, 2, 3}
    assert {int(line.split()[1].split("/")[0]) for line in lines if " left" in line} == expected


@pytest.mark.parametrize("batches", [1, 4, 7])
def test_resumed_equals_uninterrupted(
    batches: int,
    started: Starter,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    same_weights: Callable[..., bool],
) -> None:
    """Interrupted while the head is trained, just after, and later."""
    recipe, _ = started("textbook", transfer__head_until=0.34, train__ema=0.5, augment__translate=2)
    straight = train("straight", recipe)
    count = 0
    plain = HistoryCallback.on_train_batch_end

    def on_train_batch_end(self: HistoryCallback, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == batches:
            raise KeyboardInterrupt
        plain(self, *arguments)

    with monkeypatch.context() as stopping:
        stopping.setattr(HistoryCallback, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    assert same_weights(straight, train("stopped", recipe, resume=True))


def test_images_are_normalised_as_in_the_run(started: Starter, train: Train, tiny: SimpleNamespace) -> None:
    recipe, before = started(transfer__head_until=1)
    fitted = train("run", recipe)
    assert (fitted.mean, fitted.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert channel_statistics(tiny.images(48).images)[0] != fitted.mean
    images = torch.from_numpy(tiny.images(4).images)
    with torch.inference_mode():
        data = normalize(images, fitted.mean, fitted.std)
        trained, original = (net.pool(net.forward_features(data)) for net in (fitted.net, before))
        torch.testing.assert_close(trained, original)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer__name": "adamw", "optimizer__lr": 1e-3},
        {"optimizer__sam": 0.05},
        {"schedule__accumulate": 2, "train__clip": 1.0, "schedule__name": "cosine"},
        {"schedule__resolution": [{"size": 12, "until": 0.5}], "transfer__views": 0},
        {"train__patience": 5, "train__ema": 0.9},
        {"train__sampler": "balanced", "transfer__head_until": 0},
        {"train__selection__share": 0.5},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_transfer_with_other_training_options(changes: dict[str, Any], started: Starter, train: Train) -> None:
    recipe, before = started(transfer__unfreeze="groups.1", **changes)
    fitted = train("run", recipe)
    assert all(math.isfinite(float(value.sum())) for value in fitted.net.state_dict().values())
    found = changed(fitted.net, train_nothing(before))
    assert "groups.1.widen.weight" in found
    assert "groups.0.widen.weight" not in found


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """Every network that is built from now on, in order."""
    made: list[Network] = []

    def keeping(build: Callable[..., Any]) -> Callable[..., Any]:
        def keep(*arguments: Any) -> Any:
            made.append(build(*arguments))
            return made[-1]

        return keep

    for settings in NETWORKS.values():
        monkeypatch.setitem(MODELS._entries, settings.name, keeping(MODELS.get(settings.name)))
    return made


def frozen_part(net: Network, recipe: Recipe) -> dict[str, Tensor]:
    """Weights and buffers that the first stage does not train."""
    if recipe.transfer.head_until:
        return base_of(net)
    trained = {name.rpartition(".")[0] for layer in unfrozen_layers(net, recipe.transfer) for name in layer}
    keeps = recipe.transfer.batchnorm == "frozen"

    def frozen(name: str) -> bool:
        buffer = name not in dict(net.named_parameters())
        return name.rpartition(".")[0] not in trained or (buffer and keeps)

    return {name: value for name, value in base_of(net).items() if frozen(name)}


@pytest.mark.long
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "changes",
    [
        {"transfer__head_until": 0.34},
        {"transfer__head_until": 0.34, "transfer__views": 0, "augment__translate": 2},
        {"transfer__head_until": 0.34, "transfer__batchnorm": "trained", "optimizer__sam": 0.05, "train__ema": 0.9},
        {"transfer__head_until": 1, "transfer__views": 2, "augment__translate": 2},
        {"transfer__head_until": 0},
        {"transfer__head_until": 0, "transfer__batchnorm": "trained"},
    ],
    ids=str,
)
def test_lr_finder_keeps_frozen_parameters(
    network: str, changes: dict[str, Any], started: Starter, tiny: SimpleNamespace, built: list[Network]
) -> None:
    """Every weight and buffer is restored."""
    layers = {"fastnet": "groups.1", "textbook": "stages.5", "timm": "layer4"}
    recipe, before = started(network, transfer__unfreeze=layers[network], optimizer__renormalise=False, **changes)
    kept = {name: value.clone() for name, value in frozen_part(before, recipe).items()}
    built.clear()
    calls = 0

    def look(_: str) -> None:
        nonlocal calls
        calls += 1
        (net,) = [one for one in built if any(parameter.grad is not None for parameter in one.parameters())]
        now = net.state_dict()
        assert not {name for name, value in kept.items() if not torch.equal(now[name], value)}
        assert not torch.equal(now["head.weight"], before.state_dict()["head.weight"][:3])

    found = run_lr_finder(recipe, tiny.images(48), choose_hardware(recipe.train, "cpu"), steps=40, log=look)
    assert calls
    assert len(found.rates) > 10
    assert all(math.isfinite(loss) for loss in found.losses)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("head_until", [0, 0.34])
def test_lr_finder_restores_the_network(
    head_until: float, network: str, started: Starter, tiny: SimpleNamespace
) -> None:
    recipe, _ = started(network, transfer__head_until=head_until, optimizer__renormalise=False)
    loop, batches = loop_of(recipe, tiny)
    loop.net.eval()
    next(loop.net.children()).train()  # a mode of its own, which is to stay
    batches.epoch = 2
    before = {name: value.clone() for name, value in loop.net.state_dict().items()}
    modes = [module.training for module in loop.net.modules()]
    trained = [parameter.requires_grad for parameter in loop.net.parameters()]
    torch.manual_seed(3)
    random = torch.get_rng_state()
    assert run_lr_ramp(loop, batches, choose_hardware(recipe.train, "cpu"), steps=20).rates
    assert all(torch.equal(value, before[name]) for name, value in loop.net.state_dict().items())
    assert [module.training for module in loop.net.modules()] == modes
    assert [parameter.requires_grad for parameter in loop.net.parameters()] == trained
    assert all(parameter.grad is None for parameter in loop.net.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert batches.epoch == 2


def test_sizes_rise_after_the_head(started: Starter, tiny: SimpleNamespace) -> None:
    recipe, _ = started(
        schedule__resolution=[{"size": 8, "until": 0.5}],
        schedule__epochs=4,
        transfer__head_until=0.25,
        transfer__views=0,
    )
    _, batches = loop_of(recipe, tiny)
    sizes = [batches.batch(torch.arange(4), epoch, 0)[0].shape[-1] for epoch in range(4)]
    assert sizes == [16, 8, 8, 16]


@pytest.mark.parametrize(
    ("changes", "views"),
    [
        ({}, 0),
        ({"flip": "none"}, 1),
        ({"flip": "none", "fill": "edge", "mix_share": 0.5}, 1),
        ({"flip": "none", "translate": 1}, 0),
        ({"flip": "none", "policy": "augmix"}, 0),
        ({"flip": "none", "classes": {"cat": {"flip": "random"}}}, 0),
    ],
)
def test_is_augmented(changes: dict[str, Any], views: int) -> None:
    assert is_augmented(AugmentSettings.model_validate(changes)) is not bool(views)


def test_stages_are_described(started: Starter) -> None:
    recipe, net = started(schedule__epochs=10, transfer__views=8, transfer__unfreeze="groups.1")
    frozen, trained = describe_stages(recipe, net, 48, 16)
    assert frozen.value == "3 of 10 epochs, on features of 3 views computed once"
    assert trained.value == "1 of 3 layers and the head for 7 epochs, learning rates × 0.1, × 0.8 per layer"
    many = recipe.model_copy(update={"transfer": recipe.transfer.model_copy(update={"views": 1})})
    assert describe_stages(many, net, 2**31, 16)[0].value == "3 of 10 epochs, on newly augmented images"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transfer__unfreeze": "group.1"}, r"transfer\.unfreeze is 'group\.1'.*'groups\.1'"),
        ({"transfer__unfreeze": "head"}, r"transfer\.unfreeze is 'head'"),
    ],
)
def test_unknown_layers(changes: dict[str, Any], expected: str, started: Starter) -> None:
    recipe, net = started(**changes)
    with pytest.raises(RecipeError, match=expected):
        describe_stages(recipe, net, 48, 16)


def test_renormalisation_of_pretrained_filters(started: Starter) -> None:
    recipe, net = started()
    with torch.no_grad():
        net.state_dict()["groups.0.widen.weight"].mul_(10)
    with pytest.raises(RecipeError, match=r"groups\.0\.widen\.weight.* 0\.1"):
        describe_stages(recipe, net, 48, 16)
    behind = recipe.transfer.model_copy(update={"unfreeze": "groups.1"})
    assert describe_stages(recipe.model_copy(update={"transfer": behind}), net, 48, 16)


@pytest.mark.parametrize("network", ["recipe", "run"])
def test_network_of_the_run(network: str, started: Starter) -> None:
    recipe, _ = started("textbook", transfer__network=network)
    values = {"model": {"name": "timm"}, "optimizer": {"lr": 1.0}, "data": {"image_size": 224, "resize": "pad"}}
    found = with_run_settings(values, recipe)
    if network == "recipe":
        assert found == values
        return
    assert found["model"] == NETWORKS["textbook"].model_dump()
    assert found["optimizer"]["lr"] == Recipe(name="any", model=ModelSettings(name="any")).optimizer.lr
    assert found["data"] == {"image_size": 16, "resize": "pad"}


def test_timm_keeps_its_published_layers(tmp_path: Path, tiny: SimpleNamespace) -> None:
    (tmp_path / "w.safetensors").touch()
    recipe = tiny.recipe(
        model__name="timm",
        model__options={"architecture": "resnet18"},
        transfer__pretrained=str(tmp_path / "w.safetensors"),
    )
    assert resolve_transfer(recipe).model.options == {"architecture": "resnet18", "pretrained": True}


def test_source_is_not_needed_afterwards(started: Starter, train: Train) -> None:
    recipe, _ = started()
    fitted = train("run", recipe)
    shutil.rmtree(recipe.transfer.pretrained)
    again = MODELS.get("fastnet")(3, recipe.model.options)
    again.load_state_dict(fitted.net.state_dict())
