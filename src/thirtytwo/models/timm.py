"""Any architecture of timm as a `Network`, adapted to small images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import timm
import torch
from pydantic import Field
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.recipe import ModelSettings
from thirtytwo.config.settings import Choice, Settings, parse_settings
from thirtytwo.errors import RecipeError, UnknownNameError, did_you_mean
from thirtytwo.models.base import MAX_WIDTH, MODELS, Network, layers_of, roles_by_kind, takes_options
from thirtytwo.models.small_stems import SMALL_STEMS
from thirtytwo.text import first_line

WHERE = "model.options of timm"
DEFAULT_SIZE = 32
TYPICAL_REDUCTION = 32
MIN_POSITIONS = 4
TOLERANCE = 1e-4

Mode = Literal["stem", "upsample", "none"]


class HeadSettings(Settings):
    """Options of the head, and dropout."""

    drop_rate: float | None = Field(None, ge=0, lt=1)
    """Dropout before the classifier; timm's default if not set."""
    head: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = ()
    """Widths of hidden layers between the features and the classes, such as [512, 256]."""
    head_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after each hidden layer."""


class TimmSettings(HeadSettings):
    """The architecture, and how it handles small images."""

    architecture: str
    """An architecture of timm, with or without the tag of its weights."""
    small_images: Literal["auto", "stem", "upsample", "none"] = "auto"
    """`stem`: a stem with less stride or smaller patches; `upsample`: images are enlarged inside the network; `none`:
    the network as published. `auto` chooses by family and by `pretrained`."""
    input_size: int = Field(0, ge=0, le=1024)
    """Side to which images are resized inside the network; 0: not resized, or the size that `upsample` needs."""
    pretrained: bool = False
    """Pretrained weights will be loaded, so every layer keeps its published shape."""
    drop_path_rate: float | None = Field(None, ge=0, lt=1)
    """Share of residual branches dropped in training (stochastic depth); timm's default if not set."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of timm's builder of this architecture."""


class TimmNet(Network):
    """A timm architecture without its classifier (`body`), and a head.

    The last maps are the output of `body.forward_features`, with tokens laid out as `(N, D, h, w)`. If the logits come
    from a class token, the maps are all tokens in one row `(N, D, 1, T)`, and `forward_with_tap` uses the patch tokens
    that the last block mixes into the class token.
    """

    head_modules = ("hidden", "head")

    def __init__(self, classes: int, settings: TimmSettings, where: str = WHERE) -> None:
        """`where` names the options in error messages."""
        super().__init__()
        family = _family(settings.architecture, where)
        mode, why = _choose_mode(family, settings, where)
        self.size, why_size = _choose_size(family, mode, settings)
        self.architecture = settings.architecture
        self.arguments = _arguments(family, mode, self.size, settings)
        self.body = _build(classes, family, mode, self.arguments, settings, where)
        self.choices = _choices(family, mode, why, self.size, why_size)
        self.resolved_options = {"small_images": mode, "input_size": self.size}
        config = getattr(self.body, "pretrained_cfg", None) or {}
        if settings.pretrained and config.get("mean") and config.get("std"):
            self.statistics = (tuple(config["mean"]), tuple(config["std"]))
        classifier = self.body.get_classifier()
        self.body.reset_classifier(0)
        width = self._probe_layout(where)
        self.hidden, self.head = _head(classifier, width, classes, settings)
        self._norm: str | None = None
        self.has_heatmaps = not settings.head and self._features_are_means()

    def forward_features(self, images: Tensor) -> Tensor:
        found: Tensor = self.body.forward_features(self._resized(images))
        if self._layout == "NHWC":
            return found.permute(0, 3, 1, 2)
        if self._layout == "row":
            return found.transpose(1, 2).unsqueeze(2)
        if self._layout == "tokens":
            return self._on_grid(found[:, self._prefix :])
        return found

    def pool(self, maps: Tensor) -> Tensor:
        """Input of timm's classifier, `(N, F)`."""
        if self._layout == "NHWC":
            maps = maps.permute(0, 2, 3, 1)
        elif self._layout != "NCHW":
            maps = maps.flatten(2).transpose(1, 2)
            if self._layout == "tokens":
                maps = F.pad(maps, (0, 0, self._prefix, 0))  # pooling excludes the prefix tokens
        pooled: Tensor = self.body.forward_head(maps, pre_logits=True)
        return pooled

    def forward_head(self, pooled: Tensor, pre_logits: bool = False) -> Tensor:
        return super().forward_head(self.hidden(pooled), pre_logits)

    def layers(self) -> list[list[str]]:
        """Names of the body's parameters by layer, in timm's order from the input."""
        matcher = getattr(self.body, "group_matcher", None)
        if matcher is None:
            layers = layers_of(self.body, self.body.named_parameters())
        else:
            layers = list(group_parameters(self.body, matcher(coarse=False)).values())
        return [[f"body.{name}" for name in names] for names in layers]

    def reset_head(self) -> None:
        """Set the last layer to zero; with timm's random one, pretrained features have a loss of several times ln C."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        weights: Tensor = self.head.weight
        return weights

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps `(N, h, w)`; their mean is the class's logit up to a constant.

        A LayerNorm between mean and classifier (ConvNeXt) is treated as a linear map, with the scale computed from the
        image's own features.
        """
        weights = self.class_weights()[classes].to(maps.dtype)  # (N, D)
        if self._norm is not None:
            norm: Any = self.body.get_submodule(self._norm)
            spread = maps.mean(dim=(2, 3)).var(dim=1, unbiased=False, keepdim=True)
            weights = weights * norm.weight.to(maps.dtype) * torch.rsqrt(spread + norm.eps)
            weights = weights - weights.mean(dim=1, keepdim=True)
        return torch.einsum("ndhw,nd->nhw", maps, weights)

    def forward_with_tap(self, images: Tensor, tap: Callable[[Tensor], Tensor]) -> Tensor:
        if self._layout != "row" or not hasattr(self.body, "blocks") or not hasattr(self.body.blocks[-1], "norm1"):
            return super().forward_with_tap(images, tap)

        def hook(_: nn.Module, __: Any, tokens: Tensor) -> Tensor:
            prefix = tokens.shape[1] - self._grid[0] * self._grid[1]  # some networks add the class token later
            patches = tap(self._on_grid(tokens[:, prefix:]))
            return torch.cat([tokens[:, :prefix], patches.flatten(2).transpose(1, 2)], dim=1)

        handle = self.body.blocks[-1].norm1.register_forward_hook(hook)
        try:
            logits: Tensor = self(images)
            return logits
        finally:
            handle.remove()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return roles_by_kind(self, self.head)

    def _resized(self, images: Tensor) -> Tensor:
        if not self.size or images.shape[-2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """Tokens `(N, T, D)` → maps `(N, D, h, w)`."""
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *self._grid)

    def _probe_layout(self, where: str) -> int:
        """Detect the layout of the body's features by a forward pass of zeros; return the width for the head."""
        body, training = self.body, self.body.training
        body.eval()
        size = self.size or DEFAULT_SIZE
        try:
            with torch.inference_mode():
                found = body.forward_features(torch.zeros((1, 3, size, size)))
                self._layout, self._prefix, self._grid = _layout(body, found)
                maps = self.forward_features(torch.zeros((1, 3, size, size)))
                width = self.pool(maps).shape[1]
        except (RuntimeError, ValueError, AssertionError, AttributeError, TypeError, IndexError) as error:
            raise RecipeError(
                f"{where}: this architecture does not accept images of {size}×{size} pixels: {first_line(error)}.",
                "Set small_images or input_size, or choose another architecture.",
            ) from error
        body.train(training)
        self._shape = maps.shape[1:]
        return int(width)

    def _features_are_means(self) -> bool:
        """Whether features are the mean of the last maps, or a LayerNorm of it; tested on synthetic maps."""
        if self._layout == "row":
            return False
        body, training = self.body, self.body.training
        body.eval()
        width = self._shape[0]
        maps = torch.sin(torch.arange(2 * self._shape.numel()).float()).view(2, *self._shape)
        with torch.inference_mode():
            features, means = self.pool(maps), maps.mean(dim=(2, 3))
        body.train(training)
        if features.shape != means.shape:
            return False
        if torch.allclose(features, means, atol=TOLERANCE):
            return True
        for name in ("fc_norm", "head.norm"):
            norm = _submodule(body, name)
            if isinstance(norm, nn.LayerNorm):
                normed = F.layer_norm(means, (width,), norm.weight.detach(), norm.bias.detach(), norm.eps)
                if torch.allclose(features, normed, atol=TOLERANCE):
                    self._norm = name
                    return True
        return False


def _family(architecture: str, where: str) -> str:
    """Name of the timm module that defines `architecture`."""
    name = architecture.partition(".")[0]
    if "/" in architecture or ":" in architecture or not timm.is_model(name):
        known = timm.list_models()
        raise UnknownNameError(
            f"{where}: timm {timm.__version__} has no architecture {architecture!r}.", did_you_mean(name, known)
        )
    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def _choose_mode(family: str, settings: TimmSettings, where: str) -> tuple[Mode, str]:
    stem = SMALL_STEMS.get(family)
    if settings.small_images == "stem" and stem is None:
        raise RecipeError(
            f"{where}: no stem for small images is available for {settings.architecture} (family {family}).",
            f"Set small_images to 'upsample' or 'none', or choose from these families: {', '.join(SMALL_STEMS)}.",
        )
    if settings.small_images != "auto":
        return settings.small_images, "set in the recipe"
    if settings.pretrained:
        return "upsample", "pretrained weights fit only the published layers, and were trained on larger images"
    if stem is None:
        return "upsample", f"no stem for small images is available for the family {family}"
    return "stem", f"{stem.because}; layers may change when training from scratch"


def _choose_size(family: str, mode: Mode, settings: TimmSettings) -> tuple[int, str]:
    """Side of the body's input images, and the reason; 0: not resized."""
    if settings.input_size:
        return settings.input_size, "set in the recipe"
    built_for_one = family in SMALL_STEMS and SMALL_STEMS[family].fixed_size
    if mode == "upsample":
        config = timm.models.get_pretrained_cfg(settings.architecture, allow_unregistered=True)
        if config is not None and (built_for_one or config.fixed_input_size):
            return int(config.input_size[-1]), "the published input size of this architecture"
        return (
            MIN_POSITIONS * TYPICAL_REDUCTION,
            f"leaves {MIN_POSITIONS}×{MIN_POSITIONS} positions after a reduction by {TYPICAL_REDUCTION}",
        )
    return (DEFAULT_SIZE, "the layers are built for one size") if built_for_one else (0, "")


def fit_to_images(model: ModelSettings, size: int) -> ModelSettings:
    """The recipe's `[model]` for images of `size` pixels that are not enlarged inside the network.

    Architectures that are built for one size, such as vision transformers, get this one, unless another is set.
    """
    options = model.options
    if model.name != "timm" or options.get("small_images") != "none" or options.get("input_size"):
        return model
    settings = parse_settings(TimmSettings, options, WHERE)
    family = _family(settings.architecture, WHERE)
    if not (family in SMALL_STEMS and SMALL_STEMS[family].fixed_size):
        return model
    return model.model_copy(update={"options": {**options, "input_size": size}})


def _choices(family: str, mode: Mode, why: str, size: int, why_size: str) -> tuple[Choice, ...]:
    does = {"stem": SMALL_STEMS[family].does if mode == "stem" else "", "upsample": "enlarged inside the network"}
    choices = [Choice("small images", f"{mode}, {does.get(mode, 'the network as published')}", why)]
    return (*choices, Choice("network's input", f"{size}×{size}", why_size)) if size else tuple(choices)


def _arguments(family: str, mode: Mode, size: int, settings: TimmSettings) -> dict[str, Any]:
    """Arguments for timm's builder of this architecture."""
    arguments: dict[str, Any] = {}
    if family in SMALL_STEMS and SMALL_STEMS[family].fixed_size:
        arguments["img_size"] = size
    stem = SMALL_STEMS[family] if mode == "stem" else None
    if stem is not None and stem.arguments is not None:
        arguments |= stem.arguments(size)
    given = {"drop_rate": settings.drop_rate, "drop_path_rate": settings.drop_path_rate}
    arguments |= {name: value for name, value in given.items() if value is not None}
    return arguments | settings.arguments


def _build(classes: int, family: str, mode: Mode, arguments: dict[str, Any], settings: TimmSettings, where: str) -> Any:
    stem = SMALL_STEMS[family] if mode == "stem" else None
    try:
        body = timm.create_model(settings.architecture, pretrained=False, num_classes=classes, **arguments)
        if stem is not None and stem.change is not None:
            stem.change(body)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError, KeyError) as error:
        raise RecipeError(
            f"{where}: timm could not build {settings.architecture} with {arguments}: {first_line(error)}.",
            "Check that this architecture accepts drop_rate, drop_path_rate, small_images and arguments.",
        ) from error
    return body


def _head(classifier: Any, width: int, classes: int, settings: TimmSettings) -> tuple[nn.Module, nn.Linear]:
    """Hidden layers and the last linear layer; timm's own initialized classifier if it fits."""
    layers: list[nn.Module] = []
    for hidden in settings.head:
        linear = nn.Linear(width, hidden)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU(), nn.Dropout(settings.head_dropout)]
        width = hidden
    if not layers and type(classifier) is nn.Linear and classifier.in_features == width:
        return nn.Identity(), classifier
    last = nn.Linear(width, classes)
    nn.init.trunc_normal_(last.weight, std=0.02)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers), last


def _layout(body: Any, found: Tensor) -> tuple[str, int, tuple[int, int]]:
    """Layout of features (NCHW, NHWC, patch tokens, or tokens in a row), number of prefix tokens, and patch grid."""
    if found.ndim == 4:
        last = getattr(body, "output_fmt", "") == "NHWC" or found.shape[1] != body.num_features == found.shape[3]
        return ("NHWC", 0, (found.shape[1], found.shape[2])) if last else ("NCHW", 0, (found.shape[2], found.shape[3]))
    if found.ndim != 3:
        raise ValueError("its features have no spatial positions")
    prefix = int(getattr(body, "num_prefix_tokens", 0))
    grid = _grid(body, found.shape[1] - prefix)
    means = getattr(body, "global_pool", "") in ("avg", "max", "avgmax") and not getattr(
        body, "pool_include_prefix", False
    )
    if grid is not None and (means or not prefix):
        return "tokens", prefix, grid
    return "row", prefix, grid or (1, found.shape[1] - prefix)


def _grid(body: Any, count: int) -> tuple[int, int] | None:
    grid = getattr(getattr(body, "patch_embed", None), "grid_size", None)
    if grid is not None and grid[0] * grid[1] == count:
        return int(grid[0]), int(grid[1])
    side = round(count**0.5)
    return (side, side) if side * side == count else None


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _check_architecture(settings: TimmSettings) -> None:
    """Check that timm can build the architecture with these options.

    It is built on the meta device, where parameters have no values; with values only if that fails, since some
    architectures cannot be built without.

    Raises:
        UnknownNameError: timm has no such architecture.
        RecipeError: the options do not fit it.
    """
    family = _family(settings.architecture, WHERE)
    mode, _ = _choose_mode(family, settings, WHERE)
    arguments = _arguments(family, mode, _choose_size(family, mode, settings)[0], settings)
    build = partial(_build, 1, family, mode, arguments, settings, WHERE)
    try:
        with torch.device("meta"):
            build()
    except RecipeError:
        build()


@MODELS.register("timm")
@takes_options(partial(parse_settings, TimmSettings, where=WHERE), _check_architecture)
def timm_net(classes: int, settings: TimmSettings) -> TimmNet:
    """Any architecture of timm, with a stem for small images, or with images enlarged inside the network."""
    return TimmNet(classes, settings)
