"""The teacher of knowledge distillation: a trained run whose logits the student learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from thirtytwo.augment.geometry import resized
from thirtytwo.errors import ModelFileError, RecipeError, RunError
from thirtytwo.inference.session import INPUT, open_session
from thirtytwo.models.base import build_trained, read_run_weights
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import even_batches, scored_batch_size

KEY = "train.distill.run"


@dataclass(frozen=True)
class Teacher:
    """A finished run that gives logits for the student's training images.

    `mean` and `std` are the student's, on the scale 0 to 1; `_predict` takes images on that scale, `(B, 3, H, W)`, of
    the teacher's input size.
    """

    size: int
    mean: Tensor
    std: Tensor
    _predict: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits float32 `(B, C)` for the student's normalized images float `(B, 3, h, w)` of any size."""
        most = scored_batch_size(self.size) if images.device.type == "cpu" else len(images)
        parts = [images[part] for part in even_batches(len(images), most)]
        return torch.cat([self._predict(resized(part.float() * self.std + self.mean, self.size)) for part in parts])


def read_teacher(
    path: str,
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    arithmetic: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Teacher:
    """Load the teacher of the run directory `path`, from its weights or else from its model.onnx.

    Args:
        path: the run directory.
        classes: the student's class names, in order.
        mean: the student's channel means, on the scale 0 to 1.
        std: the student's channel standard deviations, on the same scale.
        device: device of the student.
        arithmetic: dtype of the teacher's forward pass.
        memory_format: of the teacher's weights and maps.

    Raises:
        RunError: the run does not exist, is not finished, or is damaged.
        RecipeError: its classes are not the student's.
    """
    run = open_teacher(path)
    if run.weights.is_file():
        metadata, predict = _from_weights(run, device, arithmetic, memory_format)
    else:
        metadata, predict = _from_onnx(run.onnx)
    _check_classes(run, metadata, classes)
    mean_rgb, std_rgb = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
    return Teacher(int(metadata["input_size"]), mean_rgb, std_rgb, predict)


def check_teacher(path: str, classes: tuple[str, ...]) -> None:
    """Check the teacher of the run directory `path` without building its network; errors are as in `read_teacher`."""
    run = open_teacher(path)
    metadata = read_run_weights(run)[1] if run.weights.is_file() else _from_onnx(run.onnx)[0]
    _check_classes(run, metadata, classes)


def open_teacher(path: str) -> RunDir:
    """The run directory of a teacher, which has weights or a model file.

    Raises:
        RunError: there is no run, or its training did not finish.
    """
    try:
        run = RunDir.open(path)
    except RunError as error:
        fix = f"Set {KEY} to a run directory; to continue a training, move the run back to that place."
        raise RunError(f"{KEY}: {error.message}", fix) from None
    if not run.weights.is_file() and not run.onnx.is_file():
        raise RunError(
            f"{KEY} is {str(run.path)!r}, which has neither weights nor a model file: its training did not finish.",
            run.resume_hint(),
        )
    return run


def _check_classes(run: RunDir, metadata: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    if tuple(metadata["classes"]) != classes:
        raise RecipeError(
            f"{KEY} is {str(run.path)!r}, a run with {len(metadata['classes'])} classes; "
            f"expected the {len(classes)} classes of this data in the same order.",
            "Name a run trained on the same classes.",
        )


def _from_weights(
    run: RunDir, device: torch.device, arithmetic: torch.dtype, memory_format: torch.memory_format
) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    tensors, metadata = read_run_weights(run)
    net = build_trained(run, len(metadata["classes"]), tensors).requires_grad_(False)
    # not `net.to(memory_format=…)`, which fails for an ensemble: its normalization has five dimensions
    net = convert_conv2d_weight_memory_format(net.to(device), memory_format)
    mean_rgb, std_rgb = (torch.tensor(metadata[key], device=device).view(3, 1, 1) for key in ("mean", "std"))

    def predict(images: Tensor) -> Tensor:
        with torch.autocast(device.type, arithmetic, enabled=arithmetic != torch.float32):
            found: Tensor = net(((images - mean_rgb) / std_rgb).contiguous(memory_format=memory_format))
        return found.float()

    return metadata, predict


def _from_onnx(file: Path) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    try:
        session, info = open_session(file)
    except ModelFileError as error:
        raise RunError(
            f"{file} is not a model file of thirtytwo or is damaged: {error.message}",
            "Name another run, or train this one again.",
        ) from None

    def predict(images: Tensor) -> Tensor:
        pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        (found,) = session.run(["logits"], {INPUT: pixels.cpu().numpy()})
        return torch.from_numpy(found).to(images.device)

    return info.model_dump(), predict
