"""Train a network from a recipe and images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor

from thirtytwo.config.recipe import Recipe
from thirtytwo.data.channels import channel_statistics
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import RunError
from thirtytwo.models import Network
from thirtytwo.models.base import build_network, with_resolved_options
from thirtytwo.models.folding import folded_norms
from thirtytwo.models.pretrained import Initialization, start_from
from thirtytwo.process import environment, quiet_loggers
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import generator_for, normalize, scored_batch_size, to_device
from thirtytwo.training.batches import TrainingBatches
from thirtytwo.training.callbacks import (
    AtomicCheckpointIO,
    HistoryCallback,
    MemoryRelease,
    MovableCheckpoint,
    ResumableEarlyStopping,
)
from thirtytwo.training.distillation import read_teacher
from thirtytwo.training.ema import EMA
from thirtytwo.training.hardware import Hardware, UsageMeter, release_freed_memory
from thirtytwo.training.losses import Loss, class_weights, sampling_weights
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.processes import current
from thirtytwo.training.schedules import Plateau
from thirtytwo.training.strategy import ChangingDDP, OwnSigterm
from thirtytwo.training.tracking import Trackers, tracked
from thirtytwo.training.transfer import (
    TransferBatches,
    TransferModule,
    build_embedder,
    cached_view_count,
    feature_width,
)

PREPARE_IMAGES = 5000
"""Largest number of images that initialize a network, such as its whitening stem."""
_CHECKPOINT_KEYS = {"state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers"}


@dataclass(frozen=True)
class Fitted:
    """A trained network with its normalization and the cost of its training.

    `mean` and `std` are those of each channel, on the scale 0 to 1; `seconds` is the training time of all epochs.
    """

    net: Network
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class InitializedNetwork:
    """A network before its first step; `start` says which pretrained weights it has, None if it has none."""

    net: Network
    start: Initialization | None = None


def initialize_network(recipe: Recipe, classes: tuple[str, ...]) -> InitializedNetwork:
    """Build the network of a recipe for `classes`, and load its pretrained weights if it has any.

    Raises:
        RecipeError: `model.options` are wrong, or the pretrained weights do not fit.
        RunError: the pretrained weights cannot be used.
    """
    net = build_network(recipe, len(classes))
    source = recipe.transfer.pretrained
    if not source:
        return InitializedNetwork(net)
    return InitializedNetwork(net, start_from(net, source, with_resolved_options(recipe.model, net), classes))


class ValidationBatches:
    """Validation batches in order, without augmentation: normalized float `(B, 3, H, W)` and labels `(B,)`.

    Of several processes, each takes its share of the images.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._pixels, self._labels = current().share_of(pixels), current().share_of(labels)
        self._mean, self._std = mean, std
        self._size = scored_batch_size(int(pixels.shape[1]))

    def __len__(self) -> int:
        return -(-len(self._labels) // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._labels), self._size):
            part = slice(start, start + self._size)
            images = normalize(self._pixels[part], self._mean, self._std)
            yield images.contiguous(memory_format=torch.channels_last), self._labels[part]


def fit(
    recipe: Recipe,
    train: ImageSet,
    val: ImageSet | None,
    run: RunDir,
    hardware: Hardware,
    *,
    resume: bool = False,
    show: bool = True,
    should_stop: Callable[[Mapping[str, float]], bool] | None = None,
    meter: UsageMeter | None = None,
    initialized: InitializedNetwork | None = None,
    trackers: Trackers | None = None,
) -> Fitted:
    """Train by the recipe, and write checkpoints and history to `run`.

    Of several processes (`launch.joined`), each calls this with the same arguments; they part when it returns.

    Args:
        recipe: how to train.
        train: training images.
        val: validation images, or None.
        run: run directory.
        hardware: device, precision and layout.
        resume: whether to continue from the last checkpoint of `run`.
        show: whether to log progress on standard error.
        should_stop: called after each epoch with its row of the history; training stops if it returns True.
        meter: measures time and memory; stored in checkpoints and restored on resume.
        initialized: the network to train, which is modified; built from the recipe by default.
        trackers: where the history is logged to; opened for this training by default.

    Raises:
        DivergedError: the loss is infinite or NaN.
        KeyboardInterrupt: the user interrupted training; it can be resumed from the last complete epoch.
        RunError: `resume` is set and a checkpoint does not fit the recipe, is missing or damaged.
    """
    loop, batches, mean, std = build_training(recipe, train, hardware, initialized)
    ema = EMA(loop.net, recipe.train.ema) if recipe.train.ema else None
    callbacks: list[lightning.Callback] = [callback for callback in (ema, loop.plateau) if callback is not None]
    callbacks += [MemoryRelease()] if hardware.device.type == "cpu" else []
    val_batches = ValidationBatches(*to_device(val, hardware.device), mean, std) if val is not None else None
    folding = isinstance(loop, TransferModule) and not hardware.compile
    with (
        nullcontext(trackers) if trackers is not None else tracked(recipe, run) as opened,
        environment("OMP_NUM_THREADS", str(hardware.threads)) if current().several else nullcontext(),
        folded_norms(loop.net, train.images.shape[1]) if folding else nullcontext(),
    ):
        options: dict[str, Any] = {"show": show, "should_stop": should_stop, "meter": meter, "trackers": opened}
        options["cached_epochs"] = batches.cached_epochs
        history = HistoryCallback(run, loop.steps, recipe, **options)
        trainer = _trainer(recipe, run, hardware, [history, *callbacks, *_checkpoints(recipe, run, val is not None)])
        try:
            _run_trainer(trainer, loop, batches, val_batches, run, resume)
        finally:
            loop.release_graphs()
    current().parted.set()
    if recipe.train.keep == "best" and val is not None and current().is_first:  # it alone has the checkpoints
        _load_best(loop.net, run)
    elif ema is not None:
        ema.copy_to_network()
    seconds = sum(row["seconds"] for row in history.rows)
    loop.net.to(hardware.device)  # Lightning leaves it on the CPU
    release_freed_memory()
    return Fitted(loop.net.eval(), mean, std, len(history.rows), seconds)


def build_training(
    recipe: Recipe, train: ImageSet, hardware: Hardware, initialized: InitializedNetwork | None = None
) -> tuple[ClassifierModule, TrainingBatches, tuple[float, ...], tuple[float, ...]]:
    """Build the training module, its batches, and the mean and std that normalize images.

    Without `initialized`, the network is built from the recipe.

    Raises:
        RecipeError: the recipe does not fit these images or classes.
        RunError: the run of the teacher or of the pretrained weights cannot be used.
    """
    settings, device = recipe.train, hardware.device
    pretrained = bool(recipe.transfer.pretrained)
    pixels, labels = to_device(train, device)
    initialized = initialized or initialize_network(recipe, train.classes)
    net, mean, std = _prepare_network(initialized, recipe, train, pixels, hardware)
    options: dict[str, Any] = {"pixels": pixels, "labels": labels, "mean": mean, "std": std, "recipe": recipe}
    options |= {"memory_format": hardware.memory_format, "classes": train.classes, "large": train.large}
    if settings.distill.run:
        layout, arithmetic = hardware.memory_format, hardware.precision
        options["teacher"] = read_teacher(settings.distill.run, train.classes, mean, std, device, arithmetic, layout)
    if pretrained:
        options["views"] = cached_view_count(recipe, len(train), feature_width(net, int(pixels.shape[1])))
        options["embed"] = build_embedder(net, device, hardware.precision)
    batches = (TransferBatches if pretrained else TrainingBatches)(**options)
    if settings.sampler == "balanced":
        batches.chances = sampling_weights(labels, len(train.classes))
    weights = class_weights(settings.class_weights, train.counts, train.classes, settings.sampler)
    loop = (TransferModule if pretrained else ClassifierModule)(
        net,
        recipe,
        len(batches),
        loss_function=Loss(settings, weights if weights is None else weights.to(device)),
        plateau=Plateau(recipe.schedule, settings.monitor) if recipe.schedule.name == "plateau" else None,
        compile_net=hardware.compile,
        record=hardware.cuda_graphs,
        arithmetic=hardware.matrix_arithmetic,
    )
    return loop, batches, mean, std


def _prepare_network(
    initialized: InitializedNetwork, recipe: Recipe, train: ImageSet, pixels: Tensor, hardware: Hardware
) -> tuple[Network, tuple[float, ...], tuple[float, ...]]:
    """The network on its device before its first step, and the mean and std that normalize its images.

    Pretrained weights come with their own mean and std, so that their features stay valid.
    """
    start = initialized.start
    mean, std = (start and start.statistics) or channel_statistics(train.images)
    net = initialized.net.to(hardware.device).to(memory_format=hardware.memory_format)
    if start is None:
        torch.manual_seed(generator_for(recipe.seed, 0, "weights").initial_seed())
        if type(net).prepare is not Network.prepare:
            net.prepare(normalize(_some(pixels, PREPARE_IMAGES, recipe.seed), mean, std))
    return net, mean, std


def _some(pixels: Tensor, count: int, seed: int) -> Tensor:
    """At most `count` random images, as the first ones of a folder are of few classes."""
    if len(pixels) <= count:
        return pixels
    drawn = torch.randperm(len(pixels), generator=generator_for(seed, 0, "prepare"))[:count]
    return pixels[drawn.sort().values.to(pixels.device)]


def _run_trainer(
    trainer: lightning.Trainer,
    loop: ClassifierModule,
    batches: TrainingBatches,
    val_batches: ValidationBatches | None,
    run: RunDir,
    resume: bool,
) -> None:
    last = run.checkpoints / "last.ckpt"
    start_from = str(last) if resume and last.is_file() else None
    unusable = RunError(
        f"{last} does not fit this recipe or is damaged.", "Start a new run with another --run, or move that file away."
    )
    if start_from is not None:
        try:
            checkpoint = torch.load(start_from, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in many ways
            raise unusable from error
        if not isinstance(checkpoint, dict) or not checkpoint.keys() >= _CHECKPOINT_KEYS:
            raise unusable
    with _quiet_lightning():
        try:
            trainer.fit(loop, batches, val_batches, ckpt_path=start_from, weights_only=True)
        except SystemExit:  # Lightning exits so after Ctrl-C
            raise KeyboardInterrupt from None
        except (RuntimeError, KeyError) as error:
            if start_from is None or "state_dict" not in str(error):
                raise
            raise unusable from error


def _trainer(recipe: Recipe, run: RunDir, hardware: Hardware, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    accelerator = {"cuda": "gpu"}.get(hardware.device.type, hardware.device.type)
    processes = current()
    options: dict[str, Any] = {"devices": [hardware.device.index] if hardware.device.type == "cuda" else 1}
    plugins: list[Any] = [AtomicCheckpointIO()]
    if processes.several:
        options = {"devices": processes.devices, "num_nodes": processes.nodes, "strategy": ChangingDDP()}
        plugins.append(processes.environment)
        callbacks = [*callbacks, OwnSigterm()]
    with _quiet_lightning():
        return lightning.Trainer(
            default_root_dir=run.path,
            max_epochs=recipe.schedule.epochs,
            accelerator=accelerator,
            precision=hardware.lightning_precision,  # type: ignore[arg-type]
            callbacks=callbacks,
            plugins=plugins,
            use_distributed_sampler=False,
            **options,
            logger=False,
            check_val_every_n_epoch=recipe.train.validate_every,
            num_sanity_val_steps=0,
            accumulate_grad_batches=recipe.schedule.accumulate,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def _checkpoints(recipe: Recipe, run: RunDir, validated: bool) -> list[lightning.Callback]:
    callbacks: list[lightning.Callback] = []
    mode = "min" if recipe.train.monitor == "val_loss" else "max"
    if validated and recipe.train.patience:
        start = recipe.head_epochs if recipe.head_epochs < recipe.schedule.epochs else 0
        options: dict[str, Any] = {"mode": mode, "patience": recipe.train.patience, "start": start}
        callbacks.append(ResumableEarlyStopping(recipe.train.monitor, **options))
    if validated and recipe.train.keep == "best":
        callbacks.append(
            MovableCheckpoint(
                run.checkpoints,
                "best",
                monitor=recipe.train.monitor,
                mode=mode,
                save_weights_only=True,
                save_on_train_epoch_end=False,
                enable_version_counter=False,
            )
        )
    last = MovableCheckpoint(
        run.checkpoints, "last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return [*callbacks, last]


def _load_best(net: Network, run: RunDir) -> None:
    """Load the weights of the best epoch.

    Raises:
        RunError: their checkpoint is missing or damaged.
    """
    best = run.checkpoints / "best.ckpt"
    try:
        checkpoint = torch.load(best, map_location="cpu", weights_only=True)
        weights = {name.removeprefix("net."): tensor for name, tensor in checkpoint["state_dict"].items()}
        net.load_state_dict({name: weights[name] for name in net.state_dict()})
    except Exception as error:  # a damaged file fails in many ways
        raise RunError(
            f"{best}, with the weights of the best epoch, is missing or damaged.",
            "Restore it from a copy, or start a new run with another --run.",
        ) from error


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's warnings about intended settings, and one of torch.compile where there is no GPU."""
    loggers = ("lightning.pytorch", "lightning.fabric", "torch.utils.cpp_extension")
    with quiet_loggers(*loggers), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        yield
