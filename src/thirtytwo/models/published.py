"""Published networks in their CIFAR variants, built by timm: ResNet, VGG and DenseNet.

K. He et al. (arXiv 1512.03385); K. Simonyan and A. Zisserman (arXiv 1409.1556), with BatchNorm; G. Huang et al. (arXiv
1608.06993).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator
from torch import nn

from thirtytwo.config.settings import parse_settings
from thirtytwo.models.base import MODELS
from thirtytwo.models.timm import HeadSettings, TimmNet, TimmSettings

Width = Annotated[int, Field(ge=1)]


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
    growth: int = Field(12, ge=1)
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
    net.choices, net.settled = (), {}
    return net


def _resnet(classes: int, options: Mapping[str, Any], name: str) -> TimmNet:
    settings = parse_settings(ResNetSettings, options, f"model.options of {name}")
    shape = {"zero_init_last": settings.zero_init_last, "channels": settings.channels}
    return _build_timm(classes, name, name, settings, shape)


@MODELS.register("resnet18")
def resnet18(classes: int, options: Mapping[str, Any]) -> TimmNet:
    """ResNet-18 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, options, "resnet18")


@MODELS.register("resnet34")
def resnet34(classes: int, options: Mapping[str, Any]) -> TimmNet:
    """ResNet-34 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, options, "resnet34")


@MODELS.register("resnet50")
def resnet50(classes: int, options: Mapping[str, Any]) -> TimmNet:
    """ResNet-50 with a 3×3 stem and no first max-pool."""
    return _resnet(classes, options, "resnet50")


@MODELS.register("vgg16")
def vgg16(classes: int, options: Mapping[str, Any]) -> TimmNet:
    """VGG-16 with BatchNorm, and mean pooling instead of its hidden layers."""
    settings = parse_settings(HeadSettings, options, "model.options of vgg16")
    return _build_timm(classes, "vgg16_bn", "vgg16", settings)


@MODELS.register("densenet")
def densenet(classes: int, options: Mapping[str, Any]) -> TimmNet:
    """A DenseNet-BC with three blocks; depth 100 and growth rate 12 by default."""
    settings = parse_settings(DenseNetSettings, options, "model.options of densenet")
    shape = {"growth_rate": settings.growth, "block_config": [(settings.depth - 4) // 6] * 3}
    net = _build_timm(classes, "densenet121", "densenet", settings, shape)
    net.body.features.norm0 = nn.Identity()  # the CIFAR variant has no normalization before the first block
    return net
