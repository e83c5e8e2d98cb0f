"""Gradient-based heatmaps of a run's network: Grad-CAM and integrated gradients, with Captum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.explain.faithfulness import blurred
from thirtytwo.explain.overlay import Heat
from thirtytwo.images.pixels import Pixels
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.models import Network
from thirtytwo.models.base import load_network
from thirtytwo.rundir import RunDir

INTEGRATION_STEPS = 24
SMOOTHING = 1 / 16
"""Standard deviation of the Gaussian that smooths pixel-wise maps, as a share of the image's side."""


class Gradients:
    """A network with the normalization of its input, for gradient-based heatmaps."""

    def __init__(self, net: Network, info: ModelInfo) -> None:
        self.net = net.eval().float().cpu()
        self.wrapped = _WithMapsModule(self.net)
        self.mean = torch.tensor(info.mean).view(3, 1, 1)
        self.std = torch.tensor(info.std).view(3, 1, 1)

    def grad_cam(self, images: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
        """Compute Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391), float32 `(N, h, w)`.

        The maps are those of `Network.forward_with_tap`, and the gradient is that of `Network.class_score`. Negative
        values, evidence against the class, are kept.

        Args:
            images: uint8 `(N, S, S, 3)`.
            classes: int64 `(N,)`.
        """
        method = LayerGradCam(self.wrapped, self.wrapped.tap)
        with torch.enable_grad():
            attribution = method.attribute(self._normalize(images), additional_forward_args=torch.from_numpy(classes))
        return _to_numpy(attribution)

    def integrated(self, images: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
        """Compute integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365), float32 `(N, S, S)`.

        The baseline is the blurred image. Attributions are summed over channels and smoothed, because those of single
        pixels are noisy. The arguments are those of `grad_cam`.
        """
        inputs = self._normalize(images)
        baselines = self._normalize(np.stack([blurred(image) for image in images]))
        attribution = IntegratedGradients(self.net).attribute(
            inputs,
            baselines,
            target=torch.from_numpy(classes),
            n_steps=INTEGRATION_STEPS,
            internal_batch_size=len(inputs),
        )
        return _to_numpy(_smooth(attribution.sum(dim=1, keepdim=True), SMOOTHING * inputs.shape[-1]))

    def _normalize(self, images: Pixels) -> Tensor:
        pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
        return (pixels - self.mean) / self.std


class _WithMapsModule(nn.Module):
    """Scores of classes by a network whose feature maps pass through the module `tap`, as Captum requires."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        self.tap = nn.Identity()

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        return self.net.class_score(self.net.forward_with_tap(images, self.tap), classes)


def read_gradients(run: RunDir, info: ModelInfo) -> Gradients:
    """Load the network of a run for gradient-based heatmaps.

    Raises:
        RunError: the run has no weights, or they do not match the network.
    """
    return Gradients(load_network(run, len(info.classes)), info)


def _to_numpy(attribution: Tensor) -> Heat:
    """`(N, 1, h, w)` → float32 `(N, h, w)`."""
    return attribution.detach().squeeze(1).float().numpy()


def _smooth(maps: Tensor, deviation: float) -> Tensor:
    """Blur `(N, 1, H, W)` with a Gaussian, border pixels replicated."""
    reach = max(1, round(3 * deviation))
    places = torch.arange(-reach, reach + 1, dtype=maps.dtype)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    weights = weights / weights.sum()
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
