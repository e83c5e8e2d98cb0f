"""The interface of all networks, and the registry of networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from thirtytwo.config.recipe import ModelSettings, Recipe
from thirtytwo.config.settings import Choice
from thirtytwo.errors import RecipeError, RunError
from thirtytwo.io import CHECKSUM_KEY, METADATA_KEY
from thirtytwo.registry import Registry
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import generator_for, preserve_random_state
from thirtytwo.text import first_line


class Network(nn.Module):
    """A network in steps, so that features and heatmaps need no hooks; the steps are named as in timm.

    `forward_features` float `(N, 3, H, W)` → maps `(N, K, h, w)`; `pool` → `(N, F)`; `forward_head` → logits `(N, C)`.
    Input images are normalized by the data's mean and standard deviation.
    """

    has_heatmaps: bool = True
    """Whether `heatmaps` can be computed from the last maps."""
    choices: tuple[Choice, ...] = ()
    """Settings that the network chose automatically, for the log."""
    resolved_options: Mapping[str, Any] = MappingProxyType({})
    """Resolved values of its `auto` options, for the saved recipe."""
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation that images must be normalized by, if pretrained weights require it."""
    scores_known: bool = False
    """Whether the network computes `known_score` itself; otherwise class means of features are used."""
    can_be_recorded: bool = False
    """Whether its training step can run as a CUDA graph: every trained parameter has an influence on the logits, and no
    operation is random, waits for the CPU, or depends on anything but parameters, buffers and images."""
    head_modules: tuple[str, ...] = ("head",)
    """Names of the modules that compute logits from the base's features; all other modules are the base."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Last feature maps `(N, K, h, w)` of images `(N, 3, H, W)`."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """Pooled features `(N, F)`, the head's input."""
        raise NotImplementedError

    def forward_head(self, pooled: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits `(N, C)` of pooled maps `(N, F)`; with `pre_logits` the features `(N, D)` of the last linear layer.

        Override it where the head has hidden layers.
        """
        return pooled if pre_logits else self.classify(pooled)

    def classify(self, features: Tensor) -> Tensor:
        """Logits `(N, C)` of features `(N, D)`: the last linear layer."""
        raise NotImplementedError

    def class_weights(self) -> Tensor:
        """Weights of the last linear layer, `(C, D)`."""
        raise NotImplementedError

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps `(N, h, w)` of `classes` int64 `(N,)`.

        The last maps weighted by the class's own row of the last layer (Zhou et al. 2016, arXiv 1512.04150).
        """
        weights = self.class_weights()[classes].to(maps.dtype)  # (N, D)
        return torch.einsum("ndhw,nd->nhw", maps, weights)

    def known_score(self, features: Tensor) -> Tensor:
        """Score `(N,)` from features `(N, D)`; larger for in-distribution images."""
        raise NotImplementedError

    def forward_with_tap(self, images: Tensor, tap: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits `(N, C)`, with `tap` applied to the maps `(N, K, h, w)` that Grad-CAM uses.

        `tap` receives these maps and returns them. They are the last maps, unless the logits do not depend on each of
        their positions.
        """
        return self.forward_head(self.pool(tap(self.forward_features(images))))

    def class_score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """What Grad-CAM explains, `(N,)`: the logit of each of `classes`, int64 `(N,)`, among logits `(N, C)`."""
        return logits.gather(1, classes[:, None]).squeeze(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, `(N, C)`."""
        return self.forward_head(self.pool(self.forward_features(images)))

    def layers(self) -> list[list[str]]:
        """Names of the base's parameters, layer by layer from the input.

        A layer is a submodule, or one member of a list of submodules; a normalization belongs to the layer before it.
        """
        named = [
            (name, value) for name, value in self.named_parameters() if name.split(".")[0] not in self.head_modules
        ]
        return layers_of(self, named)

    def prepare(self, images: Tensor) -> None:
        """Initialize parameters that depend on the data, from normalized images `(N, 3, H, W)`, before training."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by role: `filters` (matrices that Muon may update), `stem_bias`, `rest`, `head`."""
        raise NotImplementedError


def features_of(net: Network, maps: Tensor) -> Tensor:
    """Features `(N, D)` of the last maps `(N, K, h, w)`: the input of the last linear layer."""
    return net.forward_head(net.pool(maps), pre_logits=True)


@contextmanager
def preserve_modes(net: nn.Module) -> Iterator[None]:
    """Restore the training or evaluation mode of each module of `net` on exit."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def layers_of(module: nn.Module, named: Iterable[tuple[str, nn.Parameter]]) -> list[list[str]]:
    """Names of `module`'s parameters grouped into layers, in their order."""
    found: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, value in named:
        part, *rest = name.split(".")
        listed = isinstance(getattr(module, part), nn.Sequential | nn.ModuleList)
        found.setdefault(f"{part}.{rest[0]}" if listed else part, []).append((name, value))
    layers: list[list[str]] = []
    for members in found.values():
        names = [name for name, _ in members]
        if layers and all(value.ndim < 2 for _, value in members):
            layers[-1] += names
        else:
            layers.append(names)
    return layers


def roles_by_kind(net: nn.Module, head: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Trainable parameters by role, for networks without a whitening stem.

    Weights of convolutions and linear layers are `filters`, the last layer is `head`, and all others (biases,
    normalization, tokens, position embeddings) are `rest`.
    """
    in_head = {id(parameter) for parameter in head.parameters()}
    matrices = {id(layer.weight) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    roles: dict[str, list[nn.Parameter]] = {"filters": [], "stem_bias": [], "rest": [], "head": []}
    for parameter in net.parameters():
        if parameter.requires_grad:
            role = "head" if id(parameter) in in_head else "filters" if id(parameter) in matrices else "rest"
            roles[role].append(parameter)
    return roles


NetworkBuilder = Callable[[int, Mapping[str, Any]], Network]
"""Builds a network with fresh weights from the number of classes and `model.options`."""

MAX_WIDTH = 16_384
"""Largest number of channels of a layer in the options of networks."""
MODELS: Registry[NetworkBuilder] = Registry("network", "thirtytwo.models")
"""Every network by name."""

S = TypeVar("S")


def takes_options(
    parse: Callable[[Mapping[str, Any]], S], check: Callable[[S], object] | None = None
) -> Callable[[Callable[[int, S], Network]], NetworkBuilder]:
    """Make a builder of networks from a function of the number of classes and parsed options.

    Options of such a builder are validated before the data is read; without it, when the network is built.

    Args:
        parse: parses `model.options`; raises a `RecipeError` where they are wrong.
        check: further checks of the parsed options that are too slow to repeat when the network is built.
    """

    def decorate(build: Callable[[int, S], Network]) -> NetworkBuilder:
        @wraps(build)
        def builder(classes: int, options: Mapping[str, Any]) -> Network:
            return build(classes, parse(options))

        def check_options(options: Mapping[str, Any]) -> None:
            parsed = parse(options)
            if check is not None:
                check(parsed)

        builder.check_options = check_options  # type: ignore[attr-defined]
        return builder

    return decorate


def check_options(model: ModelSettings) -> None:
    """Check `model.options` without building the network, where its builder `takes_options`.

    Raises:
        UnknownNameError: the model is not registered.
        RecipeError: the options are wrong.
    """
    check = getattr(MODELS.get(model.name), "check_options", None)
    if check is None:
        return
    try:
        check(model.options)
    except RecipeError as error:
        fix = "To use the network's defaults, for instance after another model.name: --set 'model.options={}'."
        raise RecipeError(error.message, fix if error.fix is None else f"{error.fix} {fix}") from None


def apply_curvature(logits: Tensor, curvature: float) -> Tensor:
    """Logits `(N, C)` corrected for curvature, before calibration divides them by the temperature.

    The same as `evaluation.calibration.Calibration.logits`, for tensors.
    """
    return logits - curvature * torch.log_softmax(logits, dim=1) ** 2 if curvature else logits


def build_network(recipe: Recipe, classes: int) -> Network:
    """Build the recipe's network with weights that depend only on its seed.

    Raises:
        UnknownNameError: the model is not registered.
        RecipeError: `model.options` do not fit it.
    """
    torch.manual_seed(generator_for(recipe.seed, 0, "weights").initial_seed())
    return MODELS.get(recipe.model.name)(classes, recipe.model.options)


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a `.safetensors` file.

    Returns:
        Its tensors by name, and the metadata that thirtytwo wrote; empty if the file has none.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        content = file.read_bytes()  # the library takes only paths in UTF-8
        tensors = load(content)
        texts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        metadata = json.loads(texts.get(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged: {first_line(error)}.", _AGAIN) from None
    if not isinstance(metadata, dict):
        raise RunError(f"{file} is damaged: its metadata is not a table.", _AGAIN)
    if CHECKSUM_KEY in texts and texts[CHECKSUM_KEY] != tensors_checksum(content):
        raise RunError(f"{file} is damaged: its checksum does not match its content.", _AGAIN)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and torch.isnan(tensor).any():
            raise RunError(f"{file} contains weights that are not numbers (NaN), in {name}.", _AGAIN)
    return tensors, metadata


_AGAIN = "Train the run again, or download the file again."


def tensors_checksum(content: bytes) -> str:
    """SHA-256 of the tensors in the bytes of a `.safetensors` file, without its header."""
    header = int.from_bytes(content[:8], "little")
    return sha256(memoryview(content)[8 + header :]).hexdigest()


def read_run_weights(run: RunDir) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the final weights of a run, and the metadata with its classes, input size and normalization.

    Raises:
        RunError: its training did not finish, or the file is damaged or has no metadata.
    """
    tensors, metadata = _read_finished_weights(run)
    if not {"mean", "std", "classes", "input_size"} <= metadata.keys():
        raise RunError(f"{run.weights} has no metadata about its training data.", run.restore_hint())
    return tensors, metadata


def _read_finished_weights(run: RunDir) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`read_weights` of a finished run.

    Raises:
        RunError: the file is missing, since its training did not finish, or damaged.
    """
    if not run.weights.is_file():
        raise RunError(
            f"{run.path} has no {run.weights.name}: its training did not finish.",
            run.resume_hint(),
        )
    try:
        return read_weights(run.weights)
    except RunError as error:
        raise RunError(error.message, run.restore_hint()) from None


def with_resolved_options(model: ModelSettings, net: Network) -> ModelSettings:
    """`[model]` with the values that `net` resolved its `auto` options to."""
    return model.model_copy(update={"options": {**model.options, **net.resolved_options}})


def load_network(run: RunDir, classes: int) -> Network:
    """Load the network of a run with its final weights, in evaluation mode.

    Raises:
        RunError: the weights are missing, damaged, or do not fit the run's recipe.
    """
    tensors, _ = _read_finished_weights(run)
    return build_trained(run, classes, tensors)


def build_trained(run: RunDir, classes: int, tensors: Mapping[str, Tensor]) -> Network:
    """Build the network of a run's recipe with weights that were read from the run, in evaluation mode.

    Raises:
        RunError: the weights do not fit the run's recipe.
    """
    with preserve_random_state():
        net = build_network(run.read_recipe(), classes)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{run.weights} does not fit the run's recipe: {first_line(error)}.", run.restore_hint()
        ) from None
    return net.eval()
