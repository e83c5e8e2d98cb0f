"""Run a network on images in batches: logits, features and test-time augmentation (TTA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thirtytwo.augment.geometry import padded
from thirtytwo.evaluation.ood import class_mean
from thirtytwo.models import Network
from thirtytwo.models.base import apply_curvature, features_of, preserve_modes
from thirtytwo.tensors import normalize, scored_batch_size


@dataclass(frozen=True)
class Scorer:
    """A network with the settings it needs to process raw pixels."""

    net: Network
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    precision: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last

    def logits(
        self, images: npt.NDArray[np.uint8], tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Single-view logits: uint8 `(N, H, W, 3)` → float32 `(N, C)`; `tick` is called with each batch size."""
        return self._run_batches(images, self.net, tick)

    def outputs(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Compute single-view logits `(N, C)` and features `(N, D)`, float32, of images uint8 `(N, H, W, 3)`."""
        classes = 0

        def features_and_logits(batch: Tensor) -> Tensor:
            nonlocal classes
            features = features_of(self.net, self.net.forward_features(batch))
            logits = self.net.classify(features)
            classes = logits.shape[1]
            return torch.cat([logits.float(), features.float()], dim=1)

        result = self._run_batches(images, features_and_logits, None)
        return result[:, :classes], result[:, classes:]

    def known_scores(
        self, features: npt.NDArray[np.float32], means: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Compute OOD scores `(N,)`, larger for known images, from features `(N, D)` and class means `(C, D)`."""
        if not self.net.scores_known:
            return class_mean(features, means)
        with torch.inference_mode():
            result = self.net.known_score(torch.from_numpy(features).to(self.device))
        return result.cpu().double().numpy()  # Apple's GPUs have no float64

    def tta_logits(
        self,
        images: npt.NDArray[np.uint8],
        shift: int,
        tick: Callable[[int], None] | None = None,
        *,
        curvature: float = 0.0,
        single: npt.NDArray[np.float32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Compute logits averaged over six views: the image and two shifted copies, each also mirrored.

        The unshifted pair has the weight of the four shifted views together (arXiv 2404.00498).

        Args:
            images: uint8 `(N, H, W, 3)`.
            shift: shift in pixels; 0: only mirror.
            tick: called with the size of each batch.
            curvature: of the model's calibration, applied to the logits of each view before they are averaged, as
                prediction does; the result is then only to be divided by the temperature.
            single: logits `(N, C)` of the images as they are, where they are known: not computed again.
        """
        done = 0

        def average_views(batch: Tensor) -> Tensor:
            nonlocal done
            size = batch.shape[-1]
            known = None if single is None else torch.from_numpy(single[done : done + len(batch)]).to(batch.device)
            done += len(batch)
            total = 0.5 * self._mirror_average(batch, curvature, known)
            if not shift:
                return 2 * total
            padded_batch = padded(batch, shift)
            for offset in (0, 2 * shift):
                crop = padded_batch[:, :, offset : offset + size, offset : offset + size]
                crop = crop.contiguous(memory_format=self.memory_format)
                total = total + 0.25 * self._mirror_average(crop, curvature)
            return total

        return self._run_batches(images, average_views, tick)

    def _mirror_average(self, batch: Tensor, curvature: float, known: Tensor | None = None) -> Tensor:
        """Mean of the logits of a batch and of its mirror images; `known` are those of the batch."""
        mirror = batch.flip(-1).contiguous(memory_format=self.memory_format)
        one = self.net(batch).float() if known is None else known
        other = self.net(mirror).float()
        return 0.5 * (apply_curvature(one, curvature) + apply_curvature(other, curvature))

    def _run_batches(
        self,
        images: npt.NDArray[np.uint8],
        forward: Callable[[Tensor], Tensor],
        tick: Callable[[int], None] | None,
    ) -> npt.NDArray[np.float32]:
        outputs = []
        autocast = torch.autocast(self.device.type, self.precision, self.precision != torch.float32)
        with preserve_modes(self.net), torch.inference_mode(), autocast:
            self.net.eval()
            size = scored_batch_size(images.shape[1]) if len(images) else 1
            for start in range(0, len(images), size):
                pixels = torch.from_numpy(np.array(images[start : start + size])).to(self.device)
                batch = normalize(pixels, self.mean, self.std).contiguous(memory_format=self.memory_format)
                outputs.append(forward(batch).float().cpu().numpy())
                if tick:
                    tick(len(batch))
        return np.concatenate(outputs) if outputs else np.zeros((0, 0), dtype=np.float32)
