"""Pretrained weights from timm, a local file, or a finished run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from thirtytwo.config.recipe import ModelSettings
from thirtytwo.config.settings import Choice
from thirtytwo.errors import DataError, OfflineError, RecipeError, RunError, UnknownNameError, did_you_mean, require
from thirtytwo.io import expand_home, is_directory, is_file
from thirtytwo.models.base import MODELS, Network, preserve_modes, read_run_weights, read_weights
from thirtytwo.models.packaged import WEIGHTS, ImageNetWeights, find_weights, packaged_weights
from thirtytwo.models.timm import TimmNet
from thirtytwo.process import hub_is_reachable, hub_offline, quiet_loggers
from thirtytwo.rundir import RunDir

KEY = "transfer.pretrained"
IMAGENET = "imagenet"
"""Use the weights registered for this architecture in `WEIGHTS`, else timm's from the hub."""
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
MAX_LISTED = 4
MAX_LINE_LENGTH = 150
TOLERANCE = 1e-4
FREE_OPTIONS = ("input_size", "pretrained", "head", "head_dropout", "dense", "dense_dropout")
"""Options that may differ from those of the run whose weights are used."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on the scale 0 to 1."""
Kind = Literal["run", "file", "timm"]


@dataclass(frozen=True)
class Initialization:
    """How a network was initialized from pretrained weights.

    `statistics` must normalize images, so that pretrained features stay valid; None if the source does not record
    them. `fresh` lists the parameters without pretrained weights.
    """

    origin: str
    statistics: Statistics | None
    fresh: tuple[str, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class WeightSource:
    """Weights by parameter name of the receiving network, with their origin, normalization and classes."""

    origin: str
    weights: Mapping[str, Tensor]
    statistics: Statistics | None = None
    classes: tuple[str, ...] | None = None
    why: str = ""
    """Why these weights were chosen, for the log."""


def source_kind(pretrained: str) -> Kind:
    """Kind of source that `transfer.pretrained` names; no weights are read.

    Raises:
        RecipeError: the file is not a .safetensors file, or does not exist.
        RunError: the path does not exist, or the folder is not a run directory.
    """
    path = expand_home(pretrained)
    if is_directory(path):
        RunDir.open(path)
        return "run"
    if path.suffix in PICKLED:
        raise RecipeError(
            f"{KEY} is {pretrained!r}: {path.suffix} files may contain code, so they are not read.",
            f"If you trust the file, convert it to .safetensors: python -c {shlex.quote(_conversion(path))}",
        )
    if is_file(path) or path.suffix == ".safetensors":
        if not is_file(path) or path.suffix != ".safetensors":
            found = "does not exist" if not is_file(path) else "is not a .safetensors file"
            raise RecipeError(f"{KEY} is {pretrained!r}, which {found}.", "Name a .safetensors file.")
        return "file"
    if len(path.parts) > 1:
        raise RunError(f"{KEY} is {pretrained!r}, which is neither a run directory nor a file.", "Correct the path.")
    return "timm"


def _conversion(path: Path) -> str:
    """Python code that writes the tensors of a file of PyTorch beside it, as a .safetensors file."""
    loaded = f'torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=True)'
    target = json.dumps(str(path.with_suffix(".safetensors")))
    return f"import torch; from safetensors.torch import save_file; save_file({loaded}, {target})"


def run_settings(pretrained: str) -> dict[str, Any]:
    """Settings of the run `pretrained` that go with its weights, as tables of a recipe.

    These are its network, its optimizer settings, and the side of its images in pixels.

    Raises:
        RunError: the run is not finished, or is damaged.
    """
    run = RunDir.open(pretrained)
    recipe, metadata = run.read_recipe(), read_run_weights(run)[1]
    tables = {"model": recipe.model, "optimizer": recipe.optimizer}
    found = {name: table.model_dump(mode="json", exclude_none=True) for name, table in tables.items()}
    return found | {"data": {"image_size": int(metadata["input_size"])}}


def start_from(net: Network, pretrained: str, model: ModelSettings, classes: tuple[str, ...]) -> Initialization:
    """Load pretrained weights into `net`.

    The base must fit completely. Hidden layers of the head are loaded if they fit, the last layer only from a model
    with the same `classes`.

    Args:
        net: the network to initialize.
        pretrained: value of `transfer.pretrained`.
        model: the recipe's `[model]` that describes `net`.
        classes: class names, in order.

    Raises:
        RecipeError: the weights do not fit; the message lists the mismatches.
        RunError: the run or file is damaged, or the run is not finished.
        OfflineError: timm's weights are not on this machine, and cannot be downloaded.
        UnknownNameError: timm has no weights with that tag.
    """
    kind = source_kind(pretrained)
    if kind == "run":
        source = _from_run(RunDir.open(pretrained))
    elif kind == "file":
        source = _from_file(expand_home(pretrained), net)
    else:
        source = _from_timm(pretrained, net, model)
    selected = _select_weights(net, source, classes, model)
    net.load_state_dict(selected, strict=False)
    if kind == "timm" and isinstance(net, TimmNet):
        net.reset_head()
    if kind == "run":
        _check_features(net, source, RunDir.open(pretrained), model)
    fresh = tuple(name for name, _ in net.named_parameters() if name not in selected)
    return Initialization(source.origin, source.statistics, fresh, (_choice(source, classes, fresh),))


def _choice(source: WeightSource, classes: tuple[str, ...], fresh: tuple[str, ...]) -> Choice:
    known = "those of the weights" if source.classes is None else f"{len(source.classes)} others"
    why = f"{len(classes)} classes, not {known}" if fresh else "same classes"
    value = f"{source.origin}, {'all but the head' if fresh else 'all'}"
    return Choice("pretrained weights", value, f"{source.why}; {why}" if source.why else why)


def _from_own_weights(origin: str, weights: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> WeightSource:
    return WeightSource(origin, weights, (tuple(metadata["mean"]), tuple(metadata["std"])), tuple(metadata["classes"]))


def _from_run(run: RunDir) -> WeightSource:
    return _from_own_weights(str(run.path), *read_run_weights(run))


def _from_file(file: Path, net: Network) -> WeightSource:
    """Weights of a local file, with the parameter names of thirtytwo or of timm."""
    weights, metadata = read_weights(file)
    if "mean" in metadata:
        return _from_own_weights(str(file), weights, metadata)
    if isinstance(net, TimmNet) and not any(name.startswith("body.") for name in weights):
        config = timm.models.get_pretrained_cfg(net.architecture, allow_unregistered=True)
        classifiers = [] if config is None else _as_list(config.classifier or ())
        counts = [len(weights[f"{name}.weight"]) for name in classifiers if f"{name}.weight" in weights]
        overlay = {"file": str(file), "num_classes": counts[0] if counts else 0, "custom_load": False}
        try:
            found = _timm_weights(net, net.architecture, overlay)
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise _mismatch_error(str(file), net.architecture, _mismatches_in(error)) from None
        return WeightSource(str(file), found, net.statistics)
    return WeightSource(str(file), weights, net.statistics)


def _as_list(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _from_registered(registered: ImageNetWeights, net: TimmNet) -> WeightSource:
    """Registered ImageNet weights; a .safetensors file is resized by timm where the network has another input size."""
    file = registered.locate()
    if file.suffix == ".safetensors":
        source = _from_file(file, net)
    else:
        config = timm.models.get_pretrained_cfg(net.architecture, allow_unregistered=True)
        heads = tuple(f"{name}." for name in _as_list((config and config.classifier) or ()))
        found = {
            name: value for name, value in packaged_weights(net.architecture).items() if not name.startswith(heads)
        }
        source = WeightSource("", {f"body.{name}": value for name, value in found.items()}, net.statistics)
    statistics = (registered.mean, registered.std) if registered.mean and registered.std else source.statistics
    return replace(
        source,
        origin=registered.origin,
        statistics=statistics,
        why="registered for this architecture, so no hub is needed",
    )


def _from_timm(pretrained: str, net: Network, model: ModelSettings) -> WeightSource:
    assert isinstance(net, TimmNet)
    name = weights_name(pretrained, model)
    if pretrained == IMAGENET and (registered := find_weights(name)) is not None:
        return _from_registered(registered, net)
    config = timm.models.get_pretrained_cfg(name)
    count = config.num_classes if config is not None else 0
    why = f"no package with ImageNet weights of {net.architecture} is known" if pretrained == IMAGENET else ""
    mismatch = (RuntimeError, KeyError, ValueError, TypeError, AttributeError)
    for offline in (True, False):
        if not offline and not hub_is_reachable():
            break
        try:
            with _describe_hub_errors(), hub_offline() if offline else nullcontext():
                found = _timm_weights(net, name, {"num_classes": count})
                return WeightSource(f"timm's {name}", found, net.statistics, why=why)
        except _unreachable():
            continue
        except mismatch as error:
            raise _mismatch_error(f"timm's {name}", net.architecture, _mismatches_in(error)) from None
    hub_id = getattr(config, "hf_hub_id", None) or name
    raise OfflineError(
        f"The weights {name} are not on this machine, and the Hugging Face hub cannot be reached.",
        f"Connect to the internet; or download model.safetensors of {hub_id} from the hub on another machine, copy it "
        f"to {name}.safetensors, and use that file: --pretrained {name}.safetensors; or choose an architecture whose "
        f"weights need no hub, with --pretrained imagenet: {', '.join(WEIGHTS)}",
    )


def weights_name(pretrained: str, model: ModelSettings) -> str:
    """Full name of timm's weights for this network, with the tag in `pretrained` if there is one.

    With `imagenet`, it is the architecture where its weights are registered in `WEIGHTS`.

    Raises:
        UnknownNameError: timm has no such weights.
        RecipeError: the weights belong to another architecture, or timm has none for this one.
    """
    if model.name != "timm":
        raise RecipeError(
            f"{KEY} is {pretrained!r}, which is neither a run directory nor a file, and timm has no weights for the "
            f"network {model.name!r} of this recipe.",
            "Name a run directory or a .safetensors file, or use a network of timm: set model.name to 'timm' and "
            "model.options.architecture.",
        )
    architecture = str(model.options.get("architecture", ""))
    if pretrained == IMAGENET and find_weights(architecture) is not None:
        return architecture
    plain = architecture.partition(".")[0]
    tags = [name.partition(".")[2] for name in timm.list_models(f"{plain}.*", pretrained=True)]
    if not tags:
        raise RecipeError(
            f"{KEY} is {pretrained!r}, and timm has no weights for {plain}.",
            "Choose another architecture, or name a .safetensors file.",
        )
    if pretrained in ("timm", IMAGENET):
        tag = architecture.partition(".")[2]
    elif timm.is_model(pretrained.partition(".")[0]):
        other, _, tag = pretrained.partition(".")
        if other != plain:
            raise RecipeError(
                f"{KEY} is {pretrained!r}, weights of {other}, but the network is {plain}.",
                f"Set {KEY} to 'timm', or model.options.architecture to {other!r}.",
            )
    else:
        tag = pretrained
    if tag and tag not in tags:
        raise UnknownNameError(
            f"{KEY} is {pretrained!r}, which is neither a run directory, a file, 'imagenet', 'timm', nor a tag of "
            f"{plain}'s weights.",
            did_you_mean(tag, tags),
        )
    return f"{plain}.{tag}" if tag else plain


def _timm_weights(net: TimmNet, name: str, overlay: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights for the body of `net`, loaded and resized by timm, which checks that they are complete."""
    overlay = dict(overlay)
    with quiet_loggers("timm", "huggingface_hub"):  # warnings about layers that are omitted intentionally, and retries
        loaded: Any = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=overlay["num_classes"],
            **net.arguments,
        )
    loaded.reset_classifier(0)
    return {f"body.{key}": value for key, value in loaded.state_dict().items()}


def _select_weights(
    net: Network, source: WeightSource, classes: tuple[str, ...], model: ModelSettings
) -> dict[str, Tensor]:
    """Weights that `net` loads: all of its base, and the layers of its head that fit."""
    own = net.state_dict()
    in_head = {name: name.split(".")[0] in net.head_modules for name in own}
    mismatches = []
    for name, value in own.items():
        theirs = source.weights.get(name)
        if not in_head[name] and (theirs is None or theirs.shape != value.shape):
            mismatches.append(f"{name} is {_shape(value)} in the network and {_shape(theirs)} in the weights")
    mismatches += [
        f"{name} is {_shape(value)} in the weights and missing in the network"
        for name, value in source.weights.items()
        if name not in own and name.split(".")[0] not in net.head_modules
    ]
    if mismatches:
        raise _mismatch_error(source.origin, model.name, mismatches)
    selected = {name: source.weights[name] for name in own if not in_head[name]}
    for part in net.head_modules:
        names = [name for name in own if name.split(".")[0] == part]
        fits = all(name in source.weights and source.weights[name].shape == own[name].shape for name in names)
        if not fits:
            break  # layers after a fresh layer were trained with other inputs
        if part != "head" or source.classes == classes:
            selected |= {name: source.weights[name] for name in names}
    return selected


def _check_features(net: Network, source: WeightSource, run: RunDir, model: ModelSettings) -> None:
    """Check that the base computes the run's features; weights also fit if only an activation or pooling differs.

    Raises:
        RecipeError: the features differ; the message lists the differing options.
    """
    theirs = run.read_recipe().model
    if (theirs.name, theirs.options) == (model.name, model.options):
        return
    keys = {key for key in {*theirs.options, *model.options} if theirs.options.get(key) != model.options.get(key)}
    if model.options.get("input_size") not in (None, theirs.options.get("input_size")):
        return  # another input size is intended, and changes the features
    assert source.classes is not None
    state = torch.get_rng_state()
    other = MODELS.get(theirs.name)(len(source.classes), theirs.options)
    images = torch.randn((2, 3, *[int(read_run_weights(run)[1]["input_size"])] * 2))
    torch.set_rng_state(state)
    other.load_state_dict(dict(source.weights))
    with preserve_modes(net), torch.inference_mode():
        ours, others = _pooled(net.eval(), images), _pooled(other.eval(), images)
        same = torch.allclose(ours, others, atol=TOLERANCE, rtol=TOLERANCE)
    if not same:
        differences = ", ".join(
            f"{key} ({model.options.get(key)!r} here, {theirs.options.get(key)!r} in that run)"
            for key in sorted(keys - {*FREE_OPTIONS})
        )
        raise RecipeError(
            f"{KEY} is {str(run.path)!r}, whose weights fit but give other features: options differ: {differences}.",
            f"Use that run's network: --set transfer.network=run, or --recipe {run.path}",
        )


def _pooled(net: Network, images: Tensor) -> Tensor:
    """What the base passes to the head, `(N, F)`."""
    return net.pool(net.forward_features(images))


def _mismatch_error(origin: str, network: str, mismatches: Iterable[str]) -> RecipeError:
    lines = list(mismatches)
    more = f"; and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
    return RecipeError(
        f"{KEY}: the weights of {origin} do not fit the network {network}: {'; '.join(lines[:MAX_LISTED])}{more}.",
        "Set [model] to the network they were trained in; for a run, --set transfer.network=run does that.",
    )


def _shape(value: Tensor | None) -> str:
    if value is None:
        return "missing"
    return "×".join(str(side) for side in value.shape) or "a number"


def _mismatches_in(error: Exception) -> list[str]:
    """Mismatches reported by torch, one entry per kind, with long lists of names shortened."""
    lines = [shorten(line.strip().rstrip(". "), MAX_LINE_LENGTH, placeholder=" …") for line in str(error).splitlines()]
    return [line for line in lines[1:] if line] or [lines[0] if lines else type(error).__name__]


def _unreachable() -> tuple[type[Exception], ...]:
    """Exceptions of the hub's client for files that are neither cached nor reachable."""
    errors: Any = require("huggingface_hub.errors", "train")
    return (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HTTPError, ConnectionError)


@contextmanager
def _describe_hub_errors() -> Iterator[None]:
    """Turn file-system errors of the hub's client into a `DataError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, _unreachable()):
            raise
        raise DataError(
            f"The weights could not be downloaded: {error}.",
            f"Check disk space and permissions, or name a file in {KEY}.",
        ) from error
