"""Training: deterministic, equal after resuming, and equal to a loop in plain PyTorch."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.channels import channel_statistics
from thirtytwo.errors import DivergedError, OutputError, RunError
from thirtytwo.models.base import build_network
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import normalize, to_device
from thirtytwo.training import callbacks
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.callbacks import HISTORY_COLUMNS, HistoryCallback
from thirtytwo.training.fit import Fitted
from thirtytwo.training.module import ClassifierModule

AUGMENTED: dict[str, Any] = {
    "augment__flip": "alternating",
    "augment__translate": 2,
    "augment__cutout": 3,
    "augment__policy": ["randaugment", "augmix"],
    "augment__erase": 0.3,
    "augment__mixup": 0.4,
    "augment__cutmix": 1.0,
}
Train = Callable[..., Fitted]


def same_weights(one: Fitted, other: Fitted) -> bool:
    theirs = other.net.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.net.state_dict().items())


def history(path: Path) -> list[dict[str, float]]:
    rows = RunDir(path).read_history()
    return [{key: row[key] for key in row if key not in ("seconds", "images_per_second")} for row in rows]


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int, error: type[BaseException] = KeyboardInterrupt) -> None:
    """Make the training stop after this many batches."""
    count = 0
    plain = HistoryCallback.on_train_batch_end

    def on_train_batch_end(self: HistoryCallback, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == batches:
            raise error
        plain(self, *arguments)

    monkeypatch.setattr(HistoryCallback, "on_train_batch_end", on_train_batch_end)


@pytest.mark.slow
def test_weights_depend_only_on_the_seed(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    one = train("one", tiny.recipe(**AUGMENTED))
    torch.manual_seed(99)
    again = train("again", tiny.recipe(**AUGMENTED))
    other = train("other", tiny.recipe(seed=1, **AUGMENTED))
    assert same_weights(one, again)
    assert not same_weights(one, other)
    assert history(tmp_path / "one") == history(tmp_path / "again")


def test_history_and_result(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    fitted = train("run", tiny.recipe())
    rows = RunDir(tmp_path / "run").read_history()
    assert (tmp_path / "run" / "history.csv").read_text().splitlines()[0] == ",".join(HISTORY_COLUMNS)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert set(rows[0]) == set(HISTORY_COLUMNS)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert fitted.epochs == 3
    assert fitted.seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert not fitted.net.training
    assert (fitted.mean, fitted.std) == channel_statistics(tiny.images(48).images)


def test_of_many_short_epochs_not_every_one_is_logged(
    train: Train,
    tiny: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "EPOCH_LINE_SECONDS", 3600.0)
    train("run", tiny.recipe(schedule__epochs=8), show=True)
    logged = [line.split()[1] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert logged == ["1/8", "8/8"]
    assert len(RunDir(tmp_path / "run").read_history()) == 8


def test_time_left_counts_the_larger_images_of_later_steps(
    train: Train, tiny: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a step takes a second for each pixel of its images, the time left is right at any step."""
    clock = [0.0]
    plain = HistoryCallback.on_train_batch_end

    def on_train_batch_end(self: HistoryCallback, trainer: Any, module: Any, outputs: Any, batch: Any, at: int) -> None:
        clock[0] += batch[0].shape[-1] ** 2
        plain(self, trainer, module, outputs, batch, at)

    monkeypatch.setattr(HistoryCallback, "on_train_batch_end", on_train_batch_end)
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(callbacks, "duration", lambda seconds: f"{seconds:.1f}")
    monkeypatch.setattr(callbacks, "PLAIN_LINE_SECONDS", 0.0)
    stages = [{"size": 8, "until": 0.375}, {"size": 12, "until": 0.8125}]
    changes = {"schedule__epochs": 4, "schedule__batch_size": 12, "schedule__resolution": stages}
    train("run", tiny.recipe(data__image_size=16, **changes), show=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    pixels = [8**2] * 6 + [12**2] * 7 + [16**2] * 3
    expected = [sum(pixels[done:]) for done in range(1, 17) if done % 4 != 1]  # the first step of an epoch has no line
    assert [float(line.split("about ")[1].split()[0]) for line in lines] == pytest.approx(expected)


def test_history_has_the_learning_rate_of_the_last_step_not_of_the_next(
    train: Train, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    drop = {"name": "step", "milestones": [0.5], "drop": 0.1, "warmup": 0.0, "epochs": 2}
    train("run", tiny.recipe(**{f"schedule__{key}": value for key, value in drop.items()}))
    first, second = (row["lr"] for row in history(tmp_path / "run"))
    assert second == pytest.approx(0.1 * first)


@pytest.mark.slow
@pytest.mark.parametrize(("batches", "freeze"), [(1, ()), (5, ()), (4, ({"layers": 2, "until": 0.4},))])
def test_resumed_equals_uninterrupted(
    batches: int,
    freeze: tuple[dict[str, float], ...],
    train: Train,
    tiny: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny.recipe(train__keep="best", optimizer__weight_decay=1e-5, schedule__freeze=freeze, **AUGMENTED)
    straight = train("straight", recipe)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as stopping:
        stop_after(stopping, batches)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    assert signal.getsignal(signal.SIGINT) == handler, "a later Ctrl-C still works"
    assert len(history(tmp_path / "stopped")) == batches // 3
    resumed = train("stopped", recipe, resume=True)
    assert same_weights(straight, resumed)
    assert history(tmp_path / "stopped") == history(tmp_path / "straight")


def test_checkpoints_of_earlier_versions_can_be_resumed(
    train: Train, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They held the network's weights a second time."""
    recipe = tiny.recipe()
    straight = train("straight", recipe)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 4)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    weights = checkpoint["state_dict"]
    assert all(name.startswith("net.") for name in weights)
    checkpoint["state_dict"] = weights | {f"_run_{name}": value for name, value in weights.items()}
    torch.save(checkpoint, last)
    assert same_weights(straight, train("stopped", recipe, resume=True))


def test_resuming_a_finished_run_does_not_train(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    recipe = tiny.recipe()
    one = train("run", recipe)
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    again = train("run", recipe, resume=True)
    assert same_weights(one, again)
    assert again.epochs == 3
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_resuming_from_a_damaged_checkpoint(
    content: bytes | None, train: Train, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    recipe = tiny.recipe(schedule__epochs=1)
    train("run", recipe)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(RunError, match=r"last\.ckpt"):
        train("run", recipe, resume=True)


@pytest.mark.parametrize("content", [b"junk", None])
def test_resuming_without_the_weights_of_the_best_epoch(
    content: bytes | None, train: Train, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    recipe = tiny.recipe(schedule__epochs=1, train__keep="best")
    train("run", recipe)
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    best.unlink() if content is None else best.write_bytes(content)
    with pytest.raises(RunError, match=r"best\.ckpt"):
        train("run", recipe, resume=True)


def test_resuming_with_another_network(train: Train, tiny: SimpleNamespace) -> None:
    train("run", tiny.recipe(schedule__epochs=1))
    wider = tiny.recipe(schedule__epochs=1, model__options={"groups": [{"width": 8}, {"width": 24}]})
    with pytest.raises(RunError, match=r"last\.ckpt"):
        train("run", wider, resume=True)


def test_checkpoints_contain_no_code(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    train("run", tiny.recipe(train__keep="best", train__patience=5))
    files = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert files == ["best.ckpt", "last.ckpt"]
    for name in files:
        torch.load(tmp_path / "run" / "checkpoints" / name, weights_only=True)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    """Replace validation metrics by a script; return the validated weights by epoch."""
    seen: dict[int, dict[str, Tensor]] = {}

    def validation_step(self: ClassifierModule, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        seen[self.current_epoch] = {name: value.clone() for name, value in self.net.state_dict().items()}
        accuracy = [0.5, 0.7, 0.6, 0.65, 0.6, 0.9][self.current_epoch]
        self.log("val_accuracy", accuracy, batch_size=1)
        self.log("val_loss", 1 - accuracy, batch_size=1)

    monkeypatch.setattr(ClassifierModule, "validation_step", validation_step)
    return seen


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_loss"])
def test_patience_and_best(
    monitor: str, train: Train, tiny: SimpleNamespace, tmp_path: Path, scripted: dict[int, dict[str, Tensor]]
) -> None:
    recipe = tiny.recipe(schedule__epochs=6, train__patience=2, train__keep="best", train__monitor=monitor)
    fitted = train("run", recipe)
    assert fitted.epochs == 4, "best in epoch 2, then two validations without improvement"
    state = fitted.net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in scripted[1].items())
    assert not all(torch.equal(state[name], value) for name, value in scripted[3].items())
    again = train("run", recipe, resume=True)
    assert again.epochs == 4, "early stopping persists"
    assert same_weights(fitted, again)


@pytest.mark.parametrize(
    ("changes", "epochs", "like"),
    [({}, 6, 5), ({"train__keep": "best"}, 6, 5), ({"train__patience": 1}, 3, 2)],
)
def test_keep(
    changes: dict[str, Any],
    epochs: int,
    like: int,
    train: Train,
    tiny: SimpleNamespace,
    scripted: dict[int, dict[str, Tensor]],
) -> None:
    fitted = train("run", tiny.recipe(schedule__epochs=6, **changes))
    assert fitted.epochs == epochs
    state = fitted.net.state_dict()
    assert all(torch.equal(state[name], value) for name, value in scripted[like].items())


@pytest.mark.parametrize(
    ("every", "epochs", "validated"), [(1, 3, [1, 2, 3]), (2, 3, [2, 3]), (2, 4, [2, 4]), (9, 3, [3])]
)
def test_validate_every(
    every: int, epochs: int, validated: list[int], train: Train, tiny: SimpleNamespace, tmp_path: Path
) -> None:
    train("run", tiny.recipe(train__validate_every=every, schedule__epochs=epochs))
    assert [row["epoch"] for row in history(tmp_path / "run") if "val_accuracy" in row] == validated


def test_best_with_rare_validation(train: Train, tiny: SimpleNamespace, scripted: dict[int, dict[str, Tensor]]) -> None:
    """Validation after epochs 2, 4 and 5: the first is best."""
    fitted = train("run", tiny.recipe(schedule__epochs=5, train__validate_every=2, train__keep="best"))
    state = fitted.net.state_dict()
    assert sorted(scripted) == [1, 3, 4]
    assert all(torch.equal(state[name], value) for name, value in scripted[1].items())


@pytest.mark.slow
def test_resuming_with_rare_validation(
    train: Train, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.recipe(schedule__epochs=5, train__validate_every=2, train__keep="best")
    straight = train("straight", recipe)
    with monkeypatch.context() as stopping:
        stop_after(stopping, 10)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    assert same_weights(straight, train("stopped", recipe, resume=True))
    assert history(tmp_path / "stopped") == history(tmp_path / "straight")


@pytest.mark.parametrize("moved", [shutil.move, shutil.copytree])
def test_a_moved_run_keeps_its_best_weights(
    moved: Callable[[Path, Path], Any],
    train: Train,
    tiny: SimpleNamespace,
    tmp_path: Path,
    scripted: dict[int, dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny.recipe(schedule__epochs=5, train__keep="best")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 10)  # in the fourth epoch; the second is the best of all five
        with pytest.raises(KeyboardInterrupt):
            train("a", recipe)
    moved(tmp_path / "a", tmp_path / "b")
    state = train("b", recipe, resume=True).net.state_dict()
    assert sorted(scripted) == [0, 1, 2, 3, 4]
    assert all(torch.equal(state[name], value) for name, value in scripted[1].items())
    assert sorted(path.name for path in (tmp_path / "b" / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_no_validation_images(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    fitted = train("run", tiny.recipe(train__keep="best", train__patience=1), val=False)
    assert fitted.epochs == 3
    assert "val_loss" not in history(tmp_path / "run")[0]


def test_diverged_loss(train: Train, tiny: SimpleNamespace) -> None:
    with pytest.raises(DivergedError, match=r"\d.*(nan|inf)") as raised:
        train("run", tiny.recipe(optimizer__weight_decay=1000))
    assert "optimizer.lr" in str(raised.value.fix)


def test_tensorboard_on_request(train: Train, tiny: SimpleNamespace, tmp_path: Path) -> None:
    train("without", tiny.recipe(schedule__epochs=1))
    assert not (tmp_path / "without" / "tensorboard").exists()
    train("run", tiny.recipe(train__tensorboard=True, schedule__epochs=1))
    (events,) = (tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*")
    written = events.read_bytes()
    for name in (b"val_loss", b"val_accuracy", b"train_loss", b"train_accuracy", b"lr"):
        assert name in written


def test_full_disk(train: Train, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refuse)
        with pytest.raises(OutputError, match=r"history\.csv.*No space left on device"):
            train("run", tiny.recipe())
    assert list((tmp_path / "run").iterdir()) == [], "no partial file"


def batches_of(recipe: Recipe, tiny: SimpleNamespace) -> TrainingBatches:
    images = tiny.images(48)
    pixels, labels = to_device(images, torch.device("cpu"))
    return TrainingBatches(
        pixels, labels, *channel_statistics(images.images), recipe, torch.contiguous_format, images.classes
    )


def test_sizes_rise_as_the_recipe_says(tiny: SimpleNamespace) -> None:
    stages = [{"size": 8, "until": 0.25}, {"size": 12, "until": 0.75}]
    batches = batches_of(tiny.recipe(schedule__resolution=stages, schedule__epochs=4), tiny)
    sizes = []
    for epoch in range(4):
        batches.epoch = epoch
        sizes += [images.shape[-1] for images, _ in batches]
    assert sizes == [8] * 3 + [12] * 6 + [16] * 3


def test_stages_never_enlarge(tiny: SimpleNamespace) -> None:
    batches = batches_of(tiny.recipe(schedule__resolution=[{"size": 24, "until": 0.5}]), tiny)
    assert {images.shape[-1] for images, _ in batches} == {16}


def test_batches_are_deterministic(tiny: SimpleNamespace) -> None:
    one, other = (batches_of(tiny.recipe(**AUGMENTED), tiny) for _ in range(2))
    list(other)
    one.epoch = other.epoch = 2
    for (images, labels), (again, names) in zip(one, other, strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, names)


def test_labels_go_with_their_images(tiny: SimpleNamespace) -> None:
    images = tiny.images(48)
    batches = batches_of(tiny.recipe(augment__flip="none"), tiny)
    plain = normalize(torch.from_numpy(images.images), *channel_statistics(images.images))
    for data, labels in batches:
        for image, label in zip(data, labels, strict=True):
            (place,) = [number for number in range(48) if torch.equal(plain[number], image)]
            assert int(label) == images.labels[place]


def test_not_only_the_first_images_initialize_the_network(
    train: Train, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images of a folder are sorted by class."""
    recipe, images = tiny.recipe(schedule__epochs=1), tiny.images(48)
    mean, std = channel_statistics(images.images)
    first = build_network(recipe, 3)
    first.prepare(normalize(torch.from_numpy(images.images[:24]), mean, std))
    monkeypatch.setattr("thirtytwo.training.fit.PREPARE_IMAGES", 24)
    fitted = train("run", recipe, val=False)
    stems = [net.get_parameter("stem.weight").detach() for net in (first, fitted.net)]
    assert stems[0].shape == stems[1].shape
    assert not torch.allclose(*stems, atol=1e-3)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_training_equals_a_plain_loop(name: str, train: Train, tiny: SimpleNamespace) -> None:
    recipe = tiny.recipe(
        optimizer__name=name,
        optimizer__lr=0.01,
        optimizer__weight_decay=1e-5,
        schedule__warmup=0.2,
        train__label_smoothing=0.1,
        train__memory_format="contiguous",
        **AUGMENTED,
    )
    fitted = train("run", recipe, val=False)
    torch.testing.assert_close(
        fitted.net.state_dict(), plain_loop(recipe, tiny), rtol=1e-4 if name == "sgd" else 1e-3, atol=1e-5
    )


def plain_loop(recipe: Recipe, tiny: SimpleNamespace) -> dict[str, Tensor]:
    """The recipe without Lightning, with schedule and learning rates by hand and torch's SGD where possible."""
    from timm.optim.muon import zeropower_via_newtonschulz

    images = tiny.images(48)
    mean, std = channel_statistics(images.images)
    net = build_network(recipe, 3)
    net.prepare(((torch.from_numpy(images.images) / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2))
    settings, batch = recipe.optimizer, 16
    roles = net.parameter_groups()
    rates = {"filters": settings.lr, "stem_bias": settings.lr_rest, "rest": settings.lr_rest, "head": settings.lr_head}
    if settings.name == "muon":
        rates.pop("filters")
    sgd = torch.optim.SGD(
        [
            {
                "params": roles[role],
                "lr": lr,
                "momentum": settings.momentum if role == "filters" else settings.momentum_rest,
                "weight_decay": settings.weight_decay * batch / lr,
            }
            for role, lr in rates.items()
        ],
        momentum=0.5,
        nesterov=True,
    )
    buffers = {parameter: torch.zeros_like(parameter) for parameter in roles["filters"]}
    batches, step = batches_of(recipe, tiny), 0
    for epoch in range(3):
        batches.epoch = epoch
        for data, labels in batches:
            factor = (step + 1) / (0.2 * 9 + 1) if step / 9 < 0.2 else (1 - step / 9) / 0.8
            stem = max(0.0, 1 - step / 9 / 0.375)
            for group, (role, lr) in zip(sgd.param_groups, rates.items(), strict=True):
                group["lr"] = lr * (stem if role == "stem_bias" else factor)
            net.train()
            net.zero_grad()
            loss = len(labels) * F.cross_entropy(net(data), labels, label_smoothing=0.1)
            loss.backward()
            if stem == 0.0:
                roles["stem_bias"][0].grad = None
            sgd.step()
            if settings.name == "muon":
                with torch.no_grad():
                    for weight, buffer in buffers.items():
                        assert weight.grad is not None
                        buffer.mul_(settings.momentum).add_(weight.grad)
                        look_ahead = (weight.grad + settings.momentum * buffer).flatten(1)
                        move = zeropower_via_newtonschulz(
                            look_ahead, 3, [(3.4445, -4.7750, 2.0315)], dtype=torch.float32
                        )
                        weight.mul_(math.sqrt(len(weight)) / weight.norm())
                        weight.sub_(settings.lr * factor * move.reshape(weight.shape))
            step += 1
    return net.state_dict()
