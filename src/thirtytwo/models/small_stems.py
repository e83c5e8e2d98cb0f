"""Adaptations of timm families to small images: a stem with less stride, or smaller patches.

Published stems divide the side by 4 before the first block and by 32 in total, which reduces a 32-pixel image to a
single position. A family is the timm module that defines its architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class SmallStem:
    """How a family is adapted to images of about 32 pixels."""

    does: str
    """What is changed, for the log and the docs."""
    because: str
    """Why the published network does not suit this size, for the log and the docs."""
    change: Callable[[Any], None] | None = None
    """Changes a network built by timm."""
    arguments: Callable[[int], Mapping[str, Any]] | None = None
    """From the side of the images to arguments of timm's builder."""
    fixed_size: bool = False
    """Whether networks of the family are built for one image size."""


def _convolution(width_in: int, width_out: int, *, bias: bool = False) -> nn.Conv2d:
    conv = nn.Conv2d(width_in, width_out, 3, stride=1, padding=1, bias=bias)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _remove_stride(module: nn.Module, count: int) -> None:
    """Set the stride of the first `count` strided convolutions of `module` to 1; its weights still fit."""
    for conv in module.modules():
        if count and isinstance(conv, nn.Conv2d) and conv.stride != (1, 1):
            conv.stride = (1, 1)
            count -= 1


def _resnet(body: Any) -> None:
    if isinstance(body.conv1, nn.Conv2d):
        body.conv1 = _convolution(body.conv1.in_channels, body.conv1.out_channels)
    else:  # a stem of several 3×3 convolutions
        _remove_stride(body.conv1, 1)
    body.maxpool = nn.Identity()


def _resnetv2(body: Any) -> None:
    if hasattr(body.stem, "conv"):
        old = body.stem.conv
        kept = type(old)(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=old.bias is not None)
        nn.init.kaiming_normal_(kept.weight, mode="fan_out", nonlinearity="relu")
        body.stem.conv = kept
    else:
        _remove_stride(body.stem, 1)
    if hasattr(body.stem, "pad"):
        body.stem.pad = nn.Identity()
    body.stem.pool = nn.Identity()


def _densenet(body: Any) -> None:
    features = body.features
    if isinstance(features.conv0, nn.Conv2d) and features.conv0.kernel_size != (3, 3):
        features.conv0 = _convolution(features.conv0.in_channels, features.conv0.out_channels)
    else:
        _remove_stride(features.conv0, 1)
    features.pool0 = nn.Identity()


def _vgg(body: Any) -> None:
    body.features[-1] = nn.Identity()
    body.pre_logits = nn.Identity()
    body.head.fc = nn.Linear(body.num_features, body.num_classes)
    nn.init.normal_(body.head.fc.weight, 0, 0.01)
    nn.init.zeros_(body.head.fc.bias)


def _efficientnet(body: Any) -> None:
    _remove_stride(body.conv_stem, 1)
    _remove_stride(body.blocks, 1)


def _convnext(body: Any) -> None:
    patches = body.stem[0]
    conv = nn.Conv2d(patches.in_channels, patches.out_channels, 3, stride=1, padding=1)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    if len(body.stem) == 2:
        body.stem[0] = conv
    else:  # a stem of overlapping convolutions
        _remove_stride(body.stem, 2)


def _regnet(body: Any) -> None:
    _remove_stride(body.stem, 1)
    _remove_stride(body.s1, 2)  # the block's own and its shortcut's


def _narrow_hidden_layers(_: int) -> dict[str, Any]:
    return {"mlp_ratio": 1 / 4096}  # these layers are removed afterwards: skip most of their initialization


def _transformer(size: int) -> dict[str, Any]:
    return {"img_size": size, "patch_size": max(1, size // 8)}


def _windows(size: int) -> dict[str, Any]:
    return {"img_size": size, "patch_size": max(1, size // 16), "window_size": 4}


_ONE_POSITION = "as published, it reduces a 32-pixel image to one position"
_THREE = "a 3×3 convolution with stride 1 and no max-pool"
_HALF = "no stride in the stem and in the first strided stage: the side is divided by 8, not by 32"
_NO_HIDDEN = "no last max-pool, and mean pooling instead of two hidden layers of 4096"
_TOKENS = SmallStem(
    "patches of an eighth of the side, so 8×8 tokens",
    "as published, a 32-pixel image gives 2×2 patches",
    arguments=_transformer,
    fixed_size=True,
)
_WINDOWS = SmallStem(
    "patches of a sixteenth of the side, windows of 4×4 tokens", _ONE_POSITION, arguments=_windows, fixed_size=True
)

SMALL_STEMS: dict[str, SmallStem] = {
    "resnet": SmallStem(_THREE, _ONE_POSITION, _resnet),
    "resnetv2": SmallStem(_THREE, _ONE_POSITION, _resnetv2),
    "densenet": SmallStem(_THREE, _ONE_POSITION, _densenet),
    "vgg": SmallStem(_NO_HIDDEN, _ONE_POSITION, _vgg, arguments=_narrow_hidden_layers),
    "efficientnet": SmallStem(_HALF, _ONE_POSITION, _efficientnet),
    "mobilenetv3": SmallStem(_HALF, _ONE_POSITION, _efficientnet),
    "regnet": SmallStem(_HALF, _ONE_POSITION, _regnet),
    "convnext": SmallStem("a 3×3 convolution with stride 1 instead of 4×4 patches", _ONE_POSITION, _convnext),
    "vision_transformer": _TOKENS,
    "deit": _TOKENS,
    "swin_transformer": _WINDOWS,
    "swin_transformer_v2": _WINDOWS,
}
"""Adaptations by family, the name of its timm module."""
