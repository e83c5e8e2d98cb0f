"""A finished run as a teacher, from its weights and from its model file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RecipeError, RunError
from thirtytwo.export.onnx import export_onnx
from thirtytwo.models.base import build_network
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import normalize
from thirtytwo.training.distillation import Teacher, check_teacher, read_teacher
from thirtytwo.training.fit import Fitted, build_training, fit
from thirtytwo.training.hardware import choose_hardware
from thirtytwo.training.losses import distillation
from thirtytwo.workflows.finish import model_info, save_weights

CLASSES = ("class 0", "class 1", "class 2")
OWN = ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
"""Mean and deviation of a student's images that are not the teacher's."""


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> tuple[Path, Fitted]:
    """A run of 16×16 images with weights and model file, and the result of its training."""
    data = tiny.images(48, seed=3)
    recipe = tiny.recipe()
    run = RunDir.create(tmp_path_factory.mktemp("teacher") / "run")
    fitted = fit(recipe, data, None, run, choose_hardware(recipe.train, "cpu"), show=False)
    dataset = DataSet("colours", data, None, data, "abc")
    info = model_info(fitted, recipe, dataset, Parts(data, None, data))
    run.write_recipe(recipe)
    save_weights(fitted.net, info, run)
    export_onnx(fitted.net, info, run.onnx)
    return run.path, fitted


def read(path: Path, layout: torch.memory_format = torch.contiguous_format) -> Teacher:
    return read_teacher(str(path), CLASSES, *OWN, torch.device("cpu"), memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("source", ["weights.safetensors", "model.onnx"])
def test_teacher_logits_equal_the_run(
    source: str,
    layout: torch.memory_format,
    teacher_run: tuple[Path, Fitted],
    tiny: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thirtytwo.training.distillation.scored_batch_size", lambda side: 5)
    path, fitted = teacher_run
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.toml", source):
        shutil.copy(path / name, run / name)
    images = torch.from_numpy(tiny.images(12, seed=9).images)
    with torch.no_grad():
        expected = fitted.net(normalize(images, fitted.mean, fitted.std))
    teacher = read(run, layout)
    layouts = []
    with torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: layouts.append(inputs[0].is_contiguous(memory_format=layout))
    ):
        found = teacher.logits(normalize(images, *OWN))
    assert layouts[:1] == ([True] if source == "weights.safetensors" else [])
    assert found.shape == (12, 3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert not found.requires_grad


def test_a_student_of_another_size(teacher_run: tuple[Path, Fitted], tiny: SimpleNamespace) -> None:
    large = torch.from_numpy(tiny.images(12, size=24, seed=9).images)
    path, fitted = teacher_run
    shrunk = F.interpolate(large.float().permute(0, 3, 1, 2) / 255, (16, 16), mode="bilinear", antialias=True)
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (fitted.mean, fitted.std))
    with torch.no_grad():
        expected = fitted.net((shrunk - middle) / spread)
    torch.testing.assert_close(read(path).logits(normalize(large, *OWN)), expected, rtol=1e-3, atol=1e-4)


def test_distilled_loss_by_hand(teacher_run: tuple[Path, Fitted], tiny: SimpleNamespace) -> None:
    path, fitted = teacher_run
    data = tiny.images(48)
    recipe = tiny.recipe(
        train__distill={"run": str(path), "temperature": 3.0, "weight": 0.25}, train__label_smoothing=0.1, seed=2
    )
    loop, batches, mean, std = build_training(recipe, data, choose_hardware(recipe.train, "cpu"))
    images, labels, *given = next(iter(batches))
    loop.train()
    found = loop.training_step((images, labels, *given), 0)["loss"]
    net = build_network(recipe, 3)
    net.load_state_dict(loop.net.state_dict())
    net.train()
    logits = net(images)
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    there = images * spread + middle
    middle, spread = (torch.tensor(values).view(3, 1, 1) for values in (fitted.mean, fitted.std))
    with torch.no_grad():
        taught = fitted.net((there - middle) / spread)
    hard = F.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    torch.testing.assert_close(found, 0.75 * hard + 0.25 * distillation(logits, taught, 3.0), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("augment", [{}, {"translate": 2}, {"cutmix": 1.0, "mix_share": 1.0}])
def test_the_teacher_sees_images_at_full_size(
    augment: dict[str, float], teacher_run: tuple[Path, Fitted], tiny: SimpleNamespace
) -> None:
    changes = {f"augment__{key}": value for key, value in augment.items()} | {
        "train__distill": {"run": str(teacher_run[0])}
    }

    def first(**schedule: Any) -> tuple[Tensor, ...]:
        recipe = tiny.recipe(**changes, **schedule)
        return tuple(next(iter(build_training(recipe, tiny.images(48), choose_hardware(recipe.train, "cpu"))[1])))

    large, small = first(), first(schedule__resolution=[{"size": 8, "until": 0.5}])
    assert (large[0].shape[-1], small[0].shape[-1]) == (16, 8)
    torch.testing.assert_close(small[0], F.interpolate(large[0], (8, 8), mode="bilinear", antialias=True))
    torch.testing.assert_close(small[2], large[2])
    torch.testing.assert_close(small[1], large[1])


def test_distilled_student_predicts_as_its_teacher(
    train: Callable[..., Fitted], teacher_run: tuple[Path, Fitted], tiny: SimpleNamespace
) -> None:
    path, fitted = teacher_run
    recipe = tiny.recipe(train__distill={"run": str(path), "weight": 1.0}, schedule__epochs=8, seed=5)
    student = train("student", recipe)
    images = torch.from_numpy(tiny.images(60, seed=11).images)
    with torch.no_grad():
        calls = [one.net(normalize(images, one.mean, one.std)).argmax(1) for one in (student, fitted)]
    assert (calls[0] == calls[1]).float().mean() > 0.9


def test_resumed_student_equals_uninterrupted(
    train: Callable[..., Fitted],
    same_weights: Callable[[Fitted, Fitted], bool],
    teacher_run: tuple[Path, Fitted],
    tiny: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from thirtytwo.training.callbacks import HistoryCallback

    recipe = tiny.recipe(train__distill={"run": str(teacher_run[0])})
    straight = train("straight", recipe)
    plain = HistoryCallback.on_train_epoch_end

    def stop(self: HistoryCallback, *arguments: Any) -> None:
        plain(self, *arguments)
        if len(self.rows) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(HistoryCallback, "on_train_epoch_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", recipe)
    assert same_weights(straight, train("stopped", recipe, resume=True))


@pytest.mark.parametrize("source", ["weights.safetensors", "model.onnx"])
def test_a_damaged_teacher(source: str, teacher_run: tuple[Path, Fitted], tmp_path: Path) -> None:
    shutil.copy(teacher_run[0] / "recipe.toml", tmp_path / "recipe.toml")
    (tmp_path / source).write_bytes((teacher_run[0] / source).read_bytes()[:1000])
    with pytest.raises(RunError, match=re.escape(str(source))):
        read(tmp_path)
    with pytest.raises(RunError, match=re.escape(str(source))):
        check_teacher(str(tmp_path), CLASSES)


@pytest.mark.parametrize("source", ["weights.safetensors", "model.onnx"])
def test_a_teacher_is_checked_without_its_network(
    source: str, teacher_run: tuple[Path, Fitted], tiny: SimpleNamespace, tmp_path: Path
) -> None:
    run = RunDir(tmp_path)
    run.write_recipe(tiny.recipe(model__name="not registered"))
    shutil.copy(teacher_run[0] / source, tmp_path / source)
    check_teacher(str(tmp_path), CLASSES)
    with pytest.raises(RecipeError, match=r"train.distill.run.*\b3\b.*\b2\b"):
        check_teacher(str(tmp_path), CLASSES[:2])


def test_invalid_teachers(teacher_run: tuple[Path, Fitted], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gone"):
        read(tmp_path / "gone")
    shutil.copy(teacher_run[0] / "recipe.toml", tmp_path / "recipe.toml")
    with pytest.raises(RunError, match=r"train.distill.run: There is no run directory .*gone"):
        check_teacher(str(tmp_path / "gone"), CLASSES)
    with pytest.raises(RunError, match="train.distill.run"):
        read(tmp_path)
    with pytest.raises(RecipeError, match=r"train.distill.run.*\b3\b.*\b2\b"):
        read_teacher(str(teacher_run[0]), CLASSES[:2], *OWN, torch.device("cpu"))
