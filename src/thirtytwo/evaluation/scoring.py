"""Run a network over pictures: logits, features and test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thirtytwo.augment.fast import padded
from thirtytwo.data.batches import normalised
from thirtytwo.evaluation.ood import class_mean
from thirtytwo.models import Net
from thirtytwo.models.base import modes_kept

SCORE_BATCH = 500


@dataclass(frozen=True)
class Scorer:
    """A network with what it needs to look at raw pixels."""

    net: Net
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    precision: torch.dtype = torch.float32
    memory_format: torch.memory_format = torch.channels_last

    def logits(
        self, images: npt.NDArray[np.uint8], tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """One look at each picture: uint8 `(N, H, W, 3)` → logits float32 `(N, C)`; `tick` hears of each batch."""
        return self._over(images, self.net, tick)

    def outputs(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits float32 `(N, C)` and features `(N, D)` of one look at each picture uint8 `(N, H, W, 3)`."""
        classes = 0

        def both(batch: Tensor) -> Tensor:
            nonlocal classes
            features = self.net.pool(self.net.maps(batch))
            logits = self.net.classify(features)
            classes = logits.shape[1]
            return torch.cat([logits.float(), features.float()], dim=1)

        found = self._over(images, both, None)
        return found[:, :classes], found[:, classes:]

    def known_scores(
        self, features: npt.NDArray[np.float32], means: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """How known images look, `(N,)`, from their features `(N, D)`; `means` are those of the classes `(C, D)`."""
        if not self.net.scores_known:
            return class_mean(features, means)
        with torch.inference_mode():
            found = self.net.known_score(torch.from_numpy(features).to(self.device))
        return found.double().cpu().numpy()

    def tta_logits(
        self, images: npt.NDArray[np.uint8], shift: int, tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Logits averaged over six views: the picture and two shifted ones, each also mirrored.

        The unshifted pair weighs as much as the four shifted views together (arXiv 2404.00498).
        """

        def views(batch: Tensor) -> Tensor:
            size = batch.shape[-1]
            total = 0.5 * self._both_sides(batch)
            if not shift:
                return 2 * total
            wide = padded(batch, shift)
            for place in (0, 2 * shift):
                moved = wide[:, :, place : place + size, place : place + size]
                total = total + 0.25 * self._both_sides(moved.contiguous(memory_format=self.memory_format))
            return total

        return self._over(images, views, tick)

    def _both_sides(self, batch: Tensor) -> Tensor:
        mirror = batch.flip(-1).contiguous(memory_format=self.memory_format)
        total: Tensor = self.net(batch).float() + self.net(mirror).float()
        return 0.5 * total

    def _over(
        self,
        images: npt.NDArray[np.uint8],
        look: Callable[[Tensor], Tensor],
        tick: Callable[[int], None] | None,
    ) -> npt.NDArray[np.float32]:
        parts = []
        autocast = torch.autocast(self.device.type, self.precision, self.precision != torch.float32)
        with modes_kept(self.net), torch.inference_mode(), autocast:
            self.net.eval()
            for start in range(0, len(images), SCORE_BATCH):
                pixels = torch.from_numpy(np.array(images[start : start + SCORE_BATCH])).to(self.device)
                batch = normalised(pixels, self.mean, self.std).contiguous(memory_format=self.memory_format)
                parts.append(look(batch).float().cpu().numpy())
                if tick:
                    tick(len(batch))
        return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
