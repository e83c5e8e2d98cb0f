"""Published networks in their CIFAR variants, built by timm: ResNet, VGG and DenseNet.

K. He et al. (arXiv 1512.03385); K. Simonyan and A. Zisserman (arXiv 1409.1556), with BatchNorm; G. Huang et al. (arXiv
1608.06993).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.models.base import MAX_WIDTH, MODELS, Network, roles_by_kind, takes_options
from thirtytwo.models.timm import HeadSettings, TimmNet, TimmSettings


class WideResNetSettings(Settings):
    """Shape of a WideResNet: WRN-`depth`-`width`."""

    depth: int = 28
    """Number of convolutions: 6 n + 4 for n blocks per group."""
    width: int = Field(10, ge=1, le=100)
    """Channels as a multiple of 16, 32 and 64."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout between the convolutions of a block."""

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError("depth must be 6 n + 4, such as 16, 28 or 40")
        return depth


class PreResNetSettings(Settings):
    """Shape of a pre-activation ResNet-18."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout between the convolutions of a block."""


class Block(nn.Module):
    """BatchNorm, ReLU and 3×3 convolution, twice; the shortcut has a 1×1 convolution where the shape changes."""

    def __init__(self, width_in: int, width_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        changes = stride != 1 or width_in != width_out
        self.shortcut = nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False) if changes else None

    def forward(self, maps: Tensor) -> Tensor:
        activated = F.relu(self.norm1(maps))
        skip = maps if self.shortcut is None else self.shortcut(activated)
        inner = F.relu(self.norm2(self.conv1(activated)))
        found: Tensor = self.conv2(self.dropout(inner)) + skip
        return found


class PreActivationNet(Network):
    """3×3 convolution, groups of blocks (all but the first halve the side), BatchNorm, ReLU, mean, linear layer."""

    def __init__(
        self, classes: int, stem: int, widths: Sequence[int], blocks: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        before = stem
        for group, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                layers.append(Block(before, width, 2 if group and not index else 1, dropout))
                before = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.blocks(self.stem(images))))

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return roles_by_kind(self, self.head)


@MODELS.register("wideresnet")
@takes_options(partial(parse_settings, WideResNetSettings, where="model.options of wideresnet"))
def wideresnet(classes: int, settings: WideResNetSettings) -> PreActivationNet:
    """A WideResNet; WRN-28-10 by default."""
    blocks = [(settings.depth - 4) // 6] * 3
    return PreActivationNet(
        classes, 16, [16 * settings.width * 2**group for group in range(3)], blocks, settings.dropout
    )


@MODELS.register("preresnet18")
@takes_options(partial(parse_settings, PreResNetSettings, where="model.options of preresnet18"))
def preresnet18(classes: int, settings: PreResNetSettings) -> PreActivationNet:
    """A pre-activation ResNet-18 with a 3×3 stem."""
    return PreActivationNet(classes, 64, (64, 128, 256, 512), (2, 2, 2, 2), settings.dropout)


Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]


class ResNetSettings(HeadSettings):
    """Options of a ResNet."""

    zero_init_last: bool = True
    """Initialize the last BatchNorm weight of every residual branch with 0 (arXiv 1706.02677)."""
    channels: tuple[Width, ...] = Field((64, 128, 256, 512), min_length=4, max_length=4)
    """Channels of the four stages; with bottlenecks, a quarter of each stage's output channels."""


class DenseNetSettings(HeadSettings):
    """Shape of a DenseNet-BC."""

    depth: int = 100
    """Number of convolutions plus the last layer: 6 n + 4 for n layers per block."""
    growth: int = Field(12, ge=1, le=1024)
    """Growth rate: channels that each layer adds."""

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError("depth must be 6 n + 4, such as 40, 100 or 190")
        return depth


def _build_timm(
    classes: int, architecture: str, name: str, settings: HeadSettings, arguments: Mapping[str, Any] | None = None
) -> TimmNet:
    shared = settings.model_dump(include=set(HeadSettings.model_fields))
    whole = TimmSettings(architecture=architecture, small_images="stem", arguments=dict(arguments or {}), **shared)
    net = TimmNet(classes, whole, f"model.options of {name}")
    net.choices, net.resolved_options = (), {}
    return net


def _resnet(classes: int, settings: ResNetSettings, name: str) -> TimmNet:
    shape = {"zero_init_last": settings.zero_init_last, "channels": settings.channels}
    return _build_timm(classes, name, name, settings, shape)


@MODELS.register("resnet18")
@takes_options(partial(parse_settings, ResNetSettings, where="model.options of resnet18"))
def resnet18(classes: int, settings: ResNetSettings) -> TimmNet:
    """ResNet-18 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, settings, "resnet18")


@MODELS.register("resnet34")
@takes_options(partial(parse_settings, ResNetSettings, where="model.options of resnet34"))
def resnet34(classes: int, settings: ResNetSettings) -> TimmNet:
    """ResNet-34 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, settings, "resnet34")


@MODELS.register("resnet50")
@takes_options(partial(parse_settings, ResNetSettings, where="model.options of resnet50"))
def resnet50(classes: int, settings: ResNetSettings) -> TimmNet:
    """ResNet-50 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, settings, "resnet50")


@MODELS.register("vgg16")
@takes_options(partial(parse_settings, HeadSettings, where="model.options of vgg16"))
def vgg16(classes: int, settings: HeadSettings) -> TimmNet:
    """VGG-16 with BatchNorm, and mean pooling instead of its hidden layers."""
    return _build_timm(classes, "vgg16_bn", "vgg16", settings)


@MODELS.register("densenet")
@takes_options(partial(parse_settings, DenseNetSettings, where="model.options of densenet"))
def densenet(classes: int, settings: DenseNetSettings) -> TimmNet:
    """A DenseNet-BC with three blocks; depth 100 and growth rate 12 by default."""
    shape = {"growth_rate": settings.growth, "block_config": [(settings.depth - 4) // 6] * 3}
    net = _build_timm(classes, "densenet121", "densenet", settings, shape)
    net.body.features.norm0 = nn.Identity()  # the CIFAR variant has no normalization before the first block
    return net
