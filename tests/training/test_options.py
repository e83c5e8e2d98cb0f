"""Options of training steps, each against a loop in plain PyTorch, and after resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import read_recipe_values, resolve_recipe
from thirtytwo.config.settings import parse_settings
from thirtytwo.data.channels import channel_statistics
from thirtytwo.errors import RecipeError
from thirtytwo.models.base import build_network
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import to_device
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.callbacks import HistoryCallback
from thirtytwo.training.ema import EMA
from thirtytwo.training.fit import Fitted
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.optimizers import MuonSGD
from thirtytwo.training.sam import perturb_weights, preserve_statistics, sam_closure
from thirtytwo.workflows.prepare import check_optimizer, check_training

Train = Callable[..., Fitted]
Same = Callable[[Fitted, Fitted], bool]
CHOICES: dict[str, dict[str, Any]] = {
    "ema": {"train__ema": 0.9},
    "ema, best": {"train__ema": 0.9, "train__keep": "best", "train__monitor": "val_loss"},
    "sam": {"optimizer__sam": 0.1},
    "accumulate": {"schedule__accumulate": 2, "train__ema": 0.5, "train__clip": 0.01},
    "plateau": {"schedule__name": "plateau", "schedule__patience": 1, "train__monitor": "val_macro_f1"},
    "adamw": {"optimizer__name": "adamw", "optimizer__lr": 0.01, "schedule__name": "cosine", "train__clip": 1.0},
    "adamw, bfloat16": {
        "optimizer__name": "adamw",
        "optimizer__lr": 0.01,
        "train__clip": 1.0,
        "train__precision": "bfloat16",
    },
    "lion, sam": {"optimizer__name": "lion", "optimizer__lr": 0.001, "optimizer__sam": 0.1, "train__focal": 2.0},
    "one-cycle": {"schedule__name": "one-cycle", "schedule__warmup": 0.3, "train__sampler": "balanced"},
    "selection": {"train__selection__share": 0.5, "train__selection__random": 0.2},
    "selection, cutmix": {"train__selection__share": 0.5, "augment__cutmix": 1.0},
}


def make_images(recipe: Recipe, tiny: SimpleNamespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Every batch of the run, in order."""
    images = tiny.images(48)
    pixels, labels = to_device(images, torch.device("cpu"))
    batches = TrainingBatches(pixels, labels, *channel_statistics(images.images), recipe, torch.channels_last)
    for batches.epoch in range(recipe.schedule.epochs):
        yield from batches


def plain_recipe(tiny: SimpleNamespace, plain_net: str, **changes: Any) -> Recipe:
    recipe: Recipe = tiny.recipe(model__name=plain_net, augment__flip="none", **changes)
    return recipe


def test_fast_equals_a_plain_loop_exactly(train: Train, tiny: SimpleNamespace) -> None:
    """Weights are bit-identical to those of a loop in plain PyTorch."""
    groups = [{"width": 16}, {"width": 24, "body": [3, 1], "body_width": 20, "residual": True}]
    brief = {"schedule.batch_size": 16, "schedule.epochs": 3, "schedule.resolution": [{"size": 12, "until": 0.5}]}
    overrides = tiny.overrides | {"model.options.groups": groups} | brief
    overrides.pop("model.options")
    recipe = resolve_recipe(read_recipe_values("fast"), overrides, classes=3, rows=5000)
    assert recipe.optimizer.name == "muon"
    fitted = train("run", recipe, val=False)

    images = tiny.images(48)
    net = build_network(recipe, 3).to(memory_format=torch.channels_last)
    mean, std = channel_statistics(images.images)
    scale = torch.tensor([1 / (255 * value) for value in std])
    offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    net.prepare((torch.from_numpy(images.images).float() * scale + offset).permute(0, 3, 1, 2))
    roles = net.parameter_groups()
    optimizer = MuonSGD(
        [
            {"params": roles["filters"], "lr": 0.24, "momentum": 0.6, "muon": True, "renormalise": True},
            {"params": roles["stem_bias"], "lr": 0.1, "weight_decay": 2e-6 * 16 / 0.1},
            {"params": roles["rest"], "lr": 0.1, "weight_decay": 2e-6 * 16 / 0.1},
            {"params": roles["head"], "lr": 3.0, "weight_decay": 2e-6 * 16 / 3.0},
        ]
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step, (batch, labels) in enumerate(make_images(recipe, tiny)):
        progress = step / 9
        factor = (step + 1) / (0.2 * 9 + 1) if progress < 0.2 else (1 - progress) / (1 - 0.2)
        for place, (group, peak) in enumerate(zip(optimizer.param_groups, peaks, strict=True)):
            group["lr"] = peak * (max(0.0, 1 - progress / 0.375) if place == 1 else factor)
        optimizer.zero_grad()
        roles["stem_bias"][0].requires_grad_(step < 0.375 * 9)
        F.cross_entropy(net(batch), labels, label_smoothing=0.2, reduction="sum").backward()
        optimizer.step()
    for name, value in net.state_dict().items():
        assert torch.equal(value, fitted.net.state_dict()[name]), name


@pytest.mark.parametrize(("name", "per_image"), [("sgd", True), ("timm_sgd", False)])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_accumulated_and_clipped(
    name: str, per_image: bool, clip: float, train: Train, tiny: SimpleNamespace, plain_net: str
) -> None:
    """Three accumulated batches of 10: an epoch of 48 images has a step of 30 and one of 10."""
    changes = {"optimizer__lr_rest": 0.002, "optimizer__lr_head": 0.002} if per_image else {"optimizer__lr": 0.05}
    recipe = plain_recipe(
        tiny, plain_net, optimizer__name=name, optimizer__weight_decay=0.0, optimizer__momentum_rest=0.9,
        schedule__name="constant", schedule__batch_size=10, schedule__accumulate=3, train__clip=clip, **changes,
    )  # fmt: skip
    fitted = train("run", recipe, val=False)
    net = build_network(recipe, 3)
    rates = {"rest": 0.002, "head": 0.002} if per_image else {"rest": 0.05, "head": 0.05}
    groups = [{"params": net.parameter_groups()[role], "lr": lr} for role, lr in rates.items()]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    batches = list(make_images(recipe, tiny))
    assert len(batches) == 12
    for start in range(0, 12, 4):
        for group in (batches[start : start + 3], batches[start + 3 : start + 4]):
            images, labels = (torch.cat(part) for part in zip(*group, strict=True))
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            if clip:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            if per_image:
                for parameter in net.parameters():
                    assert parameter.grad is not None
                    parameter.grad *= len(labels)
            optimizer.step()
    torch.testing.assert_close(fitted.net.state_dict(), net.state_dict(), rtol=1e-4, atol=1e-6)


def quadratic() -> tuple[nn.Linear, Callable[[], Tensor]]:
    """x² + 10 y² at (3, 0.4), and a closure that computes its gradient."""
    net = nn.Linear(2, 1, bias=False)
    net.weight.data = torch.tensor([[3.0, 0.4]])

    def closure() -> Tensor:
        net.zero_grad()
        loss = (net.weight**2 * torch.tensor([1.0, 10.0])).sum()
        loss.backward()
        return loss

    return net, closure


def test_sam_by_hand() -> None:
    net, closure = quadratic()
    loss = sam_closure(closure, net, 0.5)()
    # the gradient is (6, 8), so that half a step uphill ends at (3.3, 0.8)
    assert loss.item() == pytest.approx(3.3**2 + 10 * 0.8**2)
    assert net.weight.grad is not None
    torch.testing.assert_close(net.weight.grad, torch.tensor([[6.6, 16.0]]))
    assert torch.equal(net.weight.detach(), torch.tensor([[3.0, 0.4]])), "weights are restored exactly"


def test_sam_with_zero_gradient() -> None:
    net, closure = quadratic()
    net.weight.data.zero_()
    closure()
    with perturb_weights(net, 0.5):
        assert net.weight.tolist() == [[0, 0]]


def test_sam_keeps_running_statistics() -> None:
    norm = nn.BatchNorm1d(2)
    batch = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    expected = norm(batch)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with preserve_statistics(norm):
        torch.testing.assert_close(norm(2 * batch), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    norm(batch)
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_training_with_sam(train: Train, tiny: SimpleNamespace, plain_net: str, tmp_path: Path) -> None:
    recipe = plain_recipe(
        tiny, plain_net, optimizer__name="timm_sgd", optimizer__lr=0.1, optimizer__sam=0.2, schedule__name="constant"
    )
    fitted = train("run", recipe, val=False)
    net = build_network(recipe, 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    losses = []
    for images, labels in make_images(recipe, tiny):
        loss = F.cross_entropy(net(images), labels)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        before = [parameter.detach().clone() for parameter in net.parameters()]
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter += 0.2 * gradient / norm
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), before, strict=True):
                parameter.copy_(value)
        optimizer.step()
    torch.testing.assert_close(fitted.net.state_dict(), net.state_dict(), rtol=1e-4, atol=1e-6)
    logged = [row["train_loss"] for row in RunDir(tmp_path / "run").read_history()]
    assert logged == pytest.approx([sum(losses[start : start + 3]) / 3 for start in (0, 3, 6)], rel=1e-5), (
        "metrics of the first SAM pass"
    )


def test_ema_by_hand() -> None:
    norm = nn.BatchNorm1d(1)
    ema = EMA(norm, 0.3)
    ema.initialize()
    value = 1.0
    for update, weight in enumerate((2.0, 5.0, -1.0, 4.0, 4.0)):
        with torch.no_grad():
            norm.weight.fill_(weight)
            norm.running_mean.fill_(weight)  # type: ignore[union-attr]
            norm.num_batches_tracked.fill_(update)  # type: ignore[union-attr]
        ema.update()
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3][update]
        value = decay * value + (1 - decay) * weight
        assert ema.average["weight"].item() == pytest.approx(value)
        assert ema.average["num_batches_tracked"].item() == update
    assert norm.weight.item() == 4.0
    ema.copy_to_network()
    assert norm.weight.item() == pytest.approx(value)


@pytest.mark.slow
def test_ema_is_validated_saved_and_returned(
    train: Train, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Tensor] = []
    trained: list[Tensor] = []

    def validation_step(self: ClassifierModule, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        shown.append(self.net.head.weight.detach().clone())  # type: ignore[union-attr, operator]
        self.log("val_accuracy", [0.2, 0.9, 0.5, 0.6][self.current_epoch], batch_size=1)

    def on_train_batch_end(self: ClassifierModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        trained.append(self.net.head.weight.detach().clone())  # type: ignore[union-attr, operator]

    monkeypatch.setattr(ClassifierModule, "validation_step", validation_step)
    monkeypatch.setattr(ClassifierModule, "on_train_batch_end", on_train_batch_end)
    recipe = tiny.recipe(train__ema=0.8, schedule__epochs=4)
    last = train("last", recipe)
    average = build_network(recipe, 3).head.weight.detach().clone()
    for update, weight in enumerate(trained):
        average.lerp_(weight, 1 - min(0.8, (1 + update) / (10 + update)))
        if update % 3 == 2:
            torch.testing.assert_close(shown[update // 3], average)
    torch.testing.assert_close(last.net.head.weight.detach(), average)
    assert not torch.allclose(average, trained[-1], rtol=1e-3)
    validated = list(shown)
    stopped = train("stopped", tiny.recipe(train__ema=0.8, train__keep="best", train__patience=1, schedule__epochs=4))
    assert stopped.epochs == 3
    assert torch.equal(stopped.net.head.weight.detach(), validated[1]), "the best, as it was validated"
    again = train("last", recipe, resume=True)
    assert torch.equal(again.net.head.weight, last.net.head.weight), "also after resuming a finished run"


@pytest.mark.long
@pytest.mark.parametrize("name", CHOICES)
def test_resumed_equals_uninterrupted(
    name: str, train: Train, same_weights: Same, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.recipe(schedule__epochs=5, augment__translate=2, **CHOICES[name])
    straight = train("straight", recipe)
    plain, count = HistoryCallback.on_train_batch_end, 0

    def stop(self: HistoryCallback, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 11:  # in the fourth epoch
            raise KeyboardInterrupt
        plain(self, *arguments)

    with monkeypatch.context() as stopping:
        stopping.setattr(HistoryCallback, "on_train_batch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    resumed = train("stopped", recipe, resume=True)
    assert same_weights(straight, resumed)
    rows = [
        [{key: row[key] for key in row if "second" not in key} for row in RunDir(tmp_path / run).read_history()]
        for run in ("straight", "stopped")
    ]
    assert rows[0] == rows[1]


def test_plateau_lowers_learning_rates(
    train: Train, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: dict[int, set[float]] = {}

    def validation_step(self: ClassifierModule, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", [0.5, 0.6, 0.4, 0.4, 0.4, 0.4][self.current_epoch], batch_size=1)

    def on_train_batch_end(self: ClassifierModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.trainer.optimizers[0]
        used.setdefault(self.current_epoch, set()).add(self._used / optimizer.param_groups[0]["initial_lr"])

    def on_before_optimizer_step(self: ClassifierModule, optimizer: Any) -> None:
        self._used = optimizer.param_groups[0]["lr"]

    for hook in (validation_step, on_train_batch_end, on_before_optimizer_step):
        monkeypatch.setattr(ClassifierModule, hook.__name__, hook)
    schedule = {"name": "plateau", "patience": 1, "drop": 0.5, "final": 0.2, "epochs": 6}
    train(
        "run", tiny.recipe(train__monitor="val_loss", **{f"schedule__{key}": value for key, value in schedule.items()})
    )
    found = [used[epoch] for epoch in range(6)]
    assert found == [{1.0}, {1.0}, {0.5}, {0.5}, {0.25}, {0.2}]


def test_soft_labels_in_a_step(tiny: SimpleNamespace, plain_net: str) -> None:
    recipe = plain_recipe(tiny, plain_net, train__label_smoothing=0.1, optimizer__name="adamw", optimizer__lr=0.01)
    loop = ClassifierModule(build_network(recipe, 3), recipe, 3)
    images = torch.randn(16, 3, 8, 8)
    labels = torch.randint(0, 3, (16,))
    shares = 0.7 * F.one_hot(labels, 3) + 0.3 * F.one_hot(labels.flip(0), 3)
    soft = loop.training_step((images, shares), 0)
    logits = loop.net(images)
    expected = F.cross_entropy(logits, shares, label_smoothing=0.1)
    torch.testing.assert_close(soft["loss"], expected)
    torch.testing.assert_close(soft["mean_loss"], expected)
    torch.testing.assert_close(soft["accuracy"], (logits.argmax(1) == labels).float().mean())


def test_class_weights_and_sampler_reach_the_step(train: Train, tiny: SimpleNamespace, plain_net: str) -> None:
    """A class with a small weight is rarely predicted."""
    shares = []
    for weights in ("none", {"class 1": 1e-6}):
        recipe = plain_recipe(
            tiny, plain_net, train__class_weights=weights, optimizer__name="adam", optimizer__lr=0.1, schedule__epochs=8
        )
        net = train(f"run {len(shares)}", recipe, val=False).net
        batches = list(make_images(recipe, tiny))
        calls = torch.cat([net(images).argmax(1) for images, _ in batches[:3]])
        shares.append((calls == 1).float().mean().item())
    assert shares[0] == pytest.approx(1 / 3, abs=0.05)
    assert shares[1] == 0


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"optimizer": {"sam": 0.1}, "schedule": {"accumulate": 2}}, ["schedule.accumulate", "1"]),
        (
            {"train": {"class_weights": "balanced", "sampler": "balanced"}},
            ["train.class_weights", "train.sampler"],
        ),
        (
            {"train": {"selection": {"share": 0.5}, "sampler": "balanced"}},
            ["train.selection", "train.sampler"],
        ),
        ({"train": {"selection": {"share": 0}}}, ["train.selection.share"]),
        ({"schedule": {"name": "one-cycle"}}, ["'schedule'", "one-cycle", "warmup"]),
        ({"schedule": {"milestones": [0.5, 0.4]}}, ["'schedule'", "milestones"]),
        ({"optimizer": {"name": "adamw"}}, ["'optimizer'", "0.24", "adamw"]),
        (
            {"optimizer": {"options": {"eps": 1}}},
            ["'optimizer'", "options", "muon"],
        ),
        ({"train": {"class_weights": {"cat": 0}}}, ["'train.class_weights'"]),
        (
            {"train": {"class_weights": "balance"}},
            ["'train.class_weights'", "'none'", "'balanced'", "'balance'"],
        ),
        ({"train": {"distill": {"rn": "x"}}}, ["'train.distill.rn'", "'run'"]),
    ],
)
def test_conflicting_settings(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_settings(Recipe, {"name": "own", "model": {"name": "fastnet"}} | values, "Recipe 'own'")
    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["timm_sgd", "adadelta", "muon", "sgd", "lars"])
def test_large_learning_rates_that_are_valid(name: str, tiny: SimpleNamespace) -> None:
    check_optimizer(tiny.recipe(optimizer__name=name, optimizer__lr=0.5))


def test_checks_that_need_the_data(tiny: SimpleNamespace) -> None:
    plateau = tiny.recipe(schedule__name="plateau")
    check_training(plateau, ("ant", "bee"), held_out=True)
    with pytest.raises(RecipeError, match="'plateau'"):
        check_training(plateau, ("ant", "bee"), held_out=False)
    with pytest.raises(RecipeError, match=r"train\.class_weights.*'cat'"):
        check_training(tiny.recipe(train__class_weights={"cat": 2.0}), ("ant", "bee"), held_out=True)
    with pytest.raises(RecipeError, match="'adam'"):
        check_optimizer(tiny.recipe(optimizer__name="adam", optimizer__lr=0.1, optimizer__options={"what": 1}))
