"""Transfer learning from pretrained weights: first the head is trained, then layers below it as well.

A frozen layer keeps its weights and BatchNorm statistics, and its dropout is off. While the whole base is frozen, the
features of an image do not change, so they are computed once and cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thirtytwo.config.augmentation import AugmentSettings
from thirtytwo.config.recipe import Recipe, TransferSettings
from thirtytwo.config.settings import Choice
from thirtytwo.errors import RecipeError, did_you_mean
from thirtytwo.models import Network
from thirtytwo.models.base import preserve_modes
from thirtytwo.models.pretrained import run_settings, source_kind, weights_name
from thirtytwo.tensors import send
from thirtytwo.text import counted
from thirtytwo.training.batches import Batch, TrainingBatches
from thirtytwo.training.module import ClassifierModule
from thirtytwo.training.processes import current
from thirtytwo.training.schedules import lr_factor

CACHE_BYTES = 2**31
RENORMALIZATION_RANGE = (0.5, 2.0)
KEY = "transfer.unfreeze"


def with_run_settings(values: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Add the network and learning rates of the pretrained run to a recipe's tables, if the recipe asks for them.

    Args:
        values: the recipe's tables.
        recipe: the recipe that they resolve to. Changes from the command line are applied after this.

    Raises:
        RecipeError: `transfer.network` is `run`, and `transfer.pretrained` is not set.
        ThirtytwoError: the pretrained weights do not exist.
    """
    settings = recipe.transfer
    if settings.network == "run" and not settings.pretrained:
        raise RecipeError(
            f"Recipe {recipe.name!r} continues from a finished run (transfer.network is 'run'), and no run is given.",
            "Give one: --pretrained runs/NAME",
        )
    if not settings.pretrained or source_kind(settings.pretrained) != "run" or settings.network == "recipe":
        return dict(values)
    from_run = run_settings(settings.pretrained)
    return {**values, **from_run, "data": {**values.get("data", {}), **from_run["data"]}}


def resolve_transfer(recipe: Recipe) -> Recipe:
    """Adapt the recipe to its pretrained weights: an architecture of timm keeps its published layers.

    Settings taken from a run (`with_run_settings`) become the recipe's own, so that the recipe can be rerun.

    Raises:
        ThirtytwoError: the pretrained weights do not exist.
    """
    source, model = recipe.transfer.pretrained, recipe.model
    if not source:
        return recipe
    kind = source_kind(source)
    if kind == "timm":
        weights_name(source, model)
    if kind == "run":
        return recipe.model_copy(update={"transfer": recipe.transfer.model_copy(update={"network": "recipe"})})
    if model.name != "timm" or "pretrained" in model.options:
        return recipe
    published = model.model_copy(update={"options": {**model.options, "pretrained": True}})
    return recipe.model_copy(update={"model": published})


def unfrozen_layers(net: Network, settings: TransferSettings) -> list[list[str]]:
    """Names of the parameters below the head that are trained in the second stage, layer by layer from the input.

    Raises:
        RecipeError: the network has no such layer.
    """
    layers = net.layers()
    if settings.unfreeze == "all":
        return layers
    if isinstance(settings.unfreeze, float):
        return layers[-max(1, round(settings.unfreeze * len(layers))) :]
    wanted = settings.unfreeze.removeprefix("body.")
    for index, names in enumerate(layers):
        if any(f"{name.removeprefix('body.')}.".startswith(f"{wanted}.") for name in names):
            return layers[index:]
    paths = [name.removeprefix("body.").split(".") for names in layers for name in names]
    known = dict.fromkeys(part for path in paths for part in (path[0], ".".join(path[:2])) if len(path) > 2)
    raise RecipeError(
        f"{KEY} is {settings.unfreeze!r}, which is not a layer of this network.", did_you_mean(wanted, ["all", *known])
    )


def lr_scales(net: Network, settings: TransferSettings) -> dict[nn.Parameter, float]:
    """Factor on the learning rate of each parameter below the head; it decays with the distance from the head."""
    parameters = dict(net.named_parameters())
    layers = unfrozen_layers(net, settings)
    return {
        parameters[name]: settings.layer_decay ** (len(layers) - index)
        for index, names in enumerate(layers)
        for name in names
    }


def check_rescaling(net: Network, recipe: Recipe) -> None:
    """Check that Muon's renormalization roughly keeps the norms of pretrained filters.

    Raises:
        RecipeError: it would change the norm of a filter bank too much.
    """
    if (
        recipe.optimizer.name != "muon"
        or not recipe.optimizer.renormalise
        or recipe.head_epochs == recipe.schedule.epochs
    ):
        return
    below = {name for names in unfrozen_layers(net, recipe.transfer) for name in names}
    filters = {id(value) for value in net.parameter_groups()["filters"]}
    for name, value in net.named_parameters():
        if name in below and id(value) in filters:
            factor = len(value) ** 0.5 / max(float(value.detach().norm()), 1e-12)
            if not RENORMALIZATION_RANGE[0] < factor < RENORMALIZATION_RANGE[1]:
                raise RecipeError(
                    f"optimizer.renormalise would scale the pretrained filters {name!r} by {factor:.2g}.",
                    "Set optimizer.renormalise to false, or choose another optimizer, such as adamw.",
                )


def cached_view_count(recipe: Recipe, rows: int, width: int) -> int:
    """Number of augmented views of each image whose features are cached; 0: features are computed in every epoch.

    Args:
        recipe: the recipe.
        rows: number of training images.
        width: number of features of an image.
    """
    head = recipe.head_epochs
    wanted = recipe.transfer.views if is_augmented(recipe.augment) else min(1, recipe.transfer.views)
    if recipe.train.distill.run:  # the teacher needs images, not features
        return 0
    return min(wanted, head, CACHE_BYTES // (4 * rows * width))


def is_augmented(settings: AugmentSettings) -> bool:
    """Whether the settings change any image."""
    plain = AugmentSettings(flip="none")
    without_effect = {key: getattr(plain, key) for key in ("fill", "mix_share", "magnitude", "num_ops", "crop_ratio")}
    return bool(settings.model_copy(update=without_effect) != plain)


def feature_width(net: Network, size: int) -> int:
    """Number of features of an image of side `size`, in pixels."""
    parameter = next(net.parameters())
    with preserve_modes(net), torch.no_grad():
        images = torch.zeros((1, 3, size, size), device=parameter.device, dtype=parameter.dtype)
        found = net.eval().pool(net.forward_features(images))
    return int(found.shape[1])


def describe_stages(recipe: Recipe, net: Network, rows: int, size: int) -> tuple[Choice, ...]:
    """Describe the stages of training, for the log.

    Args:
        recipe: the recipe.
        net: its network.
        rows: number of training images.
        size: side of the images, in pixels.

    Raises:
        RecipeError: the recipe's `[transfer]` does not fit this network.
    """
    settings, head, epochs = recipe.transfer, recipe.head_epochs, recipe.schedule.epochs
    missing = [part for part in net.head_modules if not isinstance(getattr(net, part, None), nn.Module)]
    if missing:
        raise RecipeError(
            f"The network {recipe.model.name!r} has no module {missing[0]!r}, which its head_modules lists.",
            "Correct head_modules of the network.",
        )
    layers = unfrozen_layers(net, settings)
    check_rescaling(net, recipe)
    views = cached_view_count(recipe, rows, feature_width(net, size))
    inputs = f"on features of {views} view{'s' * (views > 1)} computed once" if views else "on newly augmented images"
    choices = [
        Choice(
            "frozen base", f"{head} of {counted(epochs, 'epoch')}, {inputs}", "transfer.head_until and transfer.views"
        )
    ]
    if head < epochs:
        factors = f"learning rates × {settings.rate:g}, × {settings.layer_decay:g} per layer"
        value = (
            f"{len(layers)} of {len(net.layers())} layers and the head for {counted(epochs - head, 'epoch')}, {factors}"
        )
        choices.append(Choice("trained base", value, f"transfer.unfreeze = {settings.unfreeze!r}"))
    else:
        reason = f"transfer.head_until = 1, for {rows:,} training images; thirtytwo teach FOLDER does this in seconds"
        choices.append(Choice("trained base", "none, training ends with the head", reason))
    return tuple(choices)


class TransferBatches(TrainingBatches):
    """Training batches that yield cached features `(B, F)` instead of images while the base is frozen."""

    def __init__(self, recipe: Recipe, embed: Callable[[Tensor], Tensor], views: int, **rest: Any) -> None:
        """`embed` computes features of normalized images; those of `views` augmented views are cached, 0: none."""
        super().__init__(recipe=recipe, **rest)
        self._head_epochs = recipe.head_epochs
        self._embed, self._views = embed, views
        self._cached_views: list[tuple[Tensor, Tensor]] = []

    @property
    def cached_epochs(self) -> int:
        return self._head_epochs if self._views else 0

    def size_at(self, progress: float) -> int:
        start = self._head_epochs * len(self) / self.steps
        if progress < start or start >= 1:
            return int(self._pixels.shape[1])
        return super().size_at((progress - start) / (1 - start))

    def batch(self, positions: Tensor, epoch: int, step: int) -> Batch:
        if epoch >= self._head_epochs or not self._views:
            return super().batch(positions, epoch, step)
        if not self._cached_views:
            self._cached_views = [self._view(number) for number in range(self._views)]
        features, labels = self._cached_views[epoch % self._views]
        positions = send(positions, features.device)
        return features[positions], labels[positions]

    @torch.no_grad()
    def _view(self, number: int) -> tuple[Tensor, Tensor]:
        """Features float `(N, F)` and labels of all images with the augmentation of epoch `number`.

        Of several processes, each computes those of its share of the batches, and gets the others.
        """
        found: tuple[Tensor, Tensor] | None = None
        for step, start in enumerate(range(0, self.count, self.batch_size)):
            if step % current().world_size != current().rank and found is not None:
                continue
            positions = torch.arange(start, min(start + self.batch_size, self.count))
            images, truth, *_ = super().batch(positions, number, step)
            features = self._embed(images).float()
            if found is None:
                found = (
                    features.new_zeros((self.count, features.shape[1])),
                    truth.new_zeros((self.count, *truth.shape[1:])),
                )
            if step % current().world_size == current().rank:
                found[0][positions], found[1][positions] = features, truth
        assert found is not None
        return current().total(found[0]), current().total(found[1])


class TransferModule(ClassifierModule):
    """Training in two stages: the head on a frozen base, then also layers of the base at lower learning rates.

    Each stage runs the recipe's schedule from its start.
    """

    def __init__(self, net: Network, recipe: Recipe, batches: int, **rest: Any) -> None:
        super().__init__(net, recipe, batches, scales=lr_scales(net, recipe.transfer), **rest)
        self._head_epochs = recipe.head_epochs
        self._head_steps = self.steps // recipe.schedule.epochs * self._head_epochs
        self._trainable = [value for value in net.parameters() if value.requires_grad]
        names = dict(net.named_parameters())
        self._head = {id(value) for name, value in names.items() if name.split(".")[0] in net.head_modules}
        self._unfrozen = {id(names[name]) for layer in unfrozen_layers(net, recipe.transfer) for name in layer}
        self._trained_until = {one: until for one, until in self._trained_until.items() if id(one) in self._unfrozen}
        self._cached_features: dict[int, Tensor] = {}
        self.set_trainable(0)

    def set_trainable(self, epoch: int) -> None:
        """Freeze the parameters that are frozen in `epoch` and unfreeze all others."""
        trained = self._head if epoch < self._head_epochs else self._head | self._unfrozen
        for parameter in self._trainable:
            parameter.requires_grad_(id(parameter) in trained)
        set_modes(self.net, trained & {id(parameter) for parameter in self._trainable})
        if self.recipe.transfer.batchnorm == "frozen":
            for name, module in self.net.named_modules():
                if isinstance(module, _BatchNorm) and name.split(".")[0] not in self.net.head_modules:
                    module.eval()

    @property
    def first_epochs(self) -> int:
        return self._head_epochs or self.recipe.schedule.epochs

    @property
    def first_lr_factor(self) -> float:
        return self._stage(0)[2]

    def configure_optimizers(self) -> Any:
        frozen = [parameter for parameter in self._trainable if not parameter.requires_grad]
        for parameter in frozen:  # networks list the roles of trainable parameters only
            parameter.requires_grad_(True)
        found = super().configure_optimizers()
        for parameter in frozen:
            parameter.requires_grad_(False)
        return found

    def _stage(self, step: int) -> tuple[int, int, float]:
        """First step, number of steps and learning-rate factor of the stage that contains `step`."""
        if step < self._head_steps:
            return 0, self._head_steps, 1.0
        return self._head_steps, self.steps - self._head_steps, self.recipe.transfer.rate

    def _factor(self, role: str, until: float, step: int) -> float:
        start, steps, rate = self._stage(step)
        scale = self.plateau.scale if self.plateau else 1.0
        return scale * rate * lr_factor(self.recipe.schedule, role, step - start, steps, until)

    def freeze_stopped(self, step: int) -> None:
        start, steps, _ = self._stage(step)
        for parameter, until in self._trained_until.items():
            parameter.requires_grad_(self._head_steps <= step < start + until * steps)

    def training_logits(self, images: Tensor) -> Tensor:
        return self.net.forward_head(images) if images.ndim == 2 else super().training_logits(images)

    def validation_logits(self, images: Tensor, batch: int) -> Tensor:
        if self.current_epoch >= self._head_epochs:
            self._cached_features.clear()
            return super().validation_logits(images, batch)
        if batch not in self._cached_features:
            self._cached_features[batch] = self.net.pool(self.net.forward_features(images))
        return self.net.forward_head(self._cached_features[batch])


def set_modes(module: nn.Module, trained: Iterable[int], before: bool = False) -> bool:
    """Put modules with a parameter in `trained` (ids) into training mode, and all others into evaluation mode.

    A module without parameters, such as dropout, gets the mode of the module `before` it. Returns the mode of `module`.
    """
    wanted = set(trained)
    parameters = list(module.parameters())
    module.training = any(id(parameter) in wanted for parameter in parameters) if parameters else before
    for child in module.children():
        before = set_modes(child, wanted, before)
    return module.training


def build_embedder(net: Network, device: torch.device, arithmetic: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A function that computes features of normalized images in the precision of training."""
    return partial(_embed_images, net, device, arithmetic)


def _embed_images(net: Network, device: torch.device, arithmetic: torch.dtype, images: Tensor) -> Tensor:
    with torch.autocast(device.type, arithmetic, enabled=arithmetic != torch.float32):
        return net.pool(net.forward_features(images))
