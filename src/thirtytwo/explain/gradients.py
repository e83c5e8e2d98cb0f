"""Maps from the gradients of a run's network, by Captum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.explain.faithfulness import blurred
from thirtytwo.explain.overlay import Heat, Pixels
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models import Net
from thirtytwo.rundir import RunDir
from thirtytwo.training.build import trained_net

INTEGRATION_STEPS = 24
SMOOTHING = 1 / 16
"""Deviation of the Gaussian that smooths pixel-wise maps, as a share of the picture's side."""


class Gradients:
    """A network with the normalisation that its pictures need."""

    def __init__(self, net: Net, info: ModelInfo) -> None:
        self.net = net.eval().float().cpu()
        self.tapped = _Tapped(self.net)
        self.mean = torch.tensor(info.mean).view(3, 1, 1)
        self.std = torch.tensor(info.std).view(3, 1, 1)

    def grad_cam(self, pictures: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
        """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) at the maps of `Net.tapped`, float32 `(N, h, w)`.

        Negative values are kept: places that speak against the class.

        Args:
            pictures: uint8 `(N, S, S, 3)`.
            classes: int64 `(N,)`.
        """
        method = LayerGradCam(self.tapped, self.tapped.tap)
        with torch.enable_grad():
            found = method.attribute(self._normalised(pictures), target=torch.from_numpy(classes))
        return _as_heat(found)

    def integrated(self, pictures: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
        """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), float32 `(N, S, S)`.

        Along the way from the blurred picture to the picture; summed over colours and smoothed, since single pixels
        say little. Arguments as those of `grad_cam`.
        """
        images = self._normalised(pictures)
        start = self._normalised(np.stack([blurred(picture) for picture in pictures]))
        found = IntegratedGradients(self.net).attribute(
            images,
            start,
            target=torch.from_numpy(classes),
            n_steps=INTEGRATION_STEPS,
            internal_batch_size=len(images),
        )
        return _as_heat(_smooth(found.sum(dim=1, keepdim=True), SMOOTHING * images.shape[-1]))

    def _normalised(self, pictures: Pixels) -> Tensor:
        pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
        return (pixels - self.mean) / self.std


class _Tapped(nn.Module):
    """A network whose maps pass through `tap`, where Captum can look at them."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        self.tap = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.net.tapped(images, self.tap)


def read_gradients(run: RunDir, info: ModelInfo) -> Gradients:
    """The network of a run from its recipe and weights.

    Raises:
        RunError: no weights, or they do not fit.
    """
    return Gradients(trained_net(run, len(info.classes)), info)


def _as_heat(found: Tensor) -> Heat:
    """`(N, 1, h, w)` → float32 `(N, h, w)`."""
    return found.detach().squeeze(1).float().numpy()


def _smooth(maps: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of `(N, 1, H, W)`, edges continued."""
    reach = max(1, round(3 * deviation))
    places = torch.arange(-reach, reach + 1, dtype=maps.dtype)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    weights = weights / weights.sum()
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
