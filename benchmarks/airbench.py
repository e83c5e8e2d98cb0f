"""airbench94 with Muon, the published network and training of arXiv 2404.00498, in plain PyTorch.

    python benchmarks/airbench.py [--data-root DIR] [--seeds 0,1] [--steps 20] [--device cpu]

Written from the paper's description as the yardstick of `benchmarks/record.py`: a whitening convolution from 5,000
training images, three groups of 64, 256 and 256 channels, alternating flip, translation by up to 2 pixels with
reflection, label smoothing 0.2, Muon for filters and Nesterov SGD for all else, 8 epochs of batches of 2,000, and
evaluation by six views. The paper states 94.01 % (n = 200). Two things differ here: weights stay in float32 under
autocast, since bfloat16 would lose their updates, and the format is bfloat16 where the machine has it, else float32.

Trains on all 50,000 training images and evaluates on test once for each seed; `--steps` trains that many steps only,
for a trial, with the schedule shortened to them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WHITENING_IMAGES = 5000
PATCH = 2
EIGENVALUE_FLOOR = 5e-4
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 3
SCORED = 500
"""Images of a batch without gradients."""


@dataclass(frozen=True)
class Settings:
    """The published settings; learning rates of SGD are for a loss that is summed over the batch."""

    widths: tuple[int, ...] = (64, 256, 256)
    epochs: int = 8
    batch_size: int = 2000
    label_smoothing: float = 0.2
    translate: int = 2
    lr_filters: float = 0.24
    momentum_filters: float = 0.6
    lr_biases: float = 0.053
    lr_head: float = 0.67
    momentum: float = 0.85
    decay_per_image: float = 2e-6
    whitening_bias_until: float = 3 / 8


class Group(nn.Module):
    """`(N, I, H, W)` → `(N, O, H/2, W/2)`: convolution, max-pool, norm, GELU, convolution, norm, GELU."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first, self.second = filters(width_in, width), filters(width, width)
        self.first_norm, self.second_norm = norm(width), norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        maps = F.gelu(self.first_norm(F.max_pool2d(self.first(maps), 2)))
        return F.gelu(self.second_norm(self.second(maps)))


class Net(nn.Module):
    """The network: normalized images float `(N, 3, 32, 32)` → logits `(N, C)`."""

    def __init__(self, classes: int, widths: Iterable[int]) -> None:
        super().__init__()
        wide = 2 * 3 * PATCH**2
        self.whitening = nn.Conv2d(3, wide, PATCH)
        self.whitening.weight.requires_grad_(False)
        nn.init.zeros_(self.whitening.bias)
        all_widths = [wide, *widths]
        self.groups = nn.Sequential(*map(Group, all_widths, all_widths[1:]))
        self.head = nn.Linear(all_widths[-1], classes, bias=False)
        with torch.no_grad():
            self.head.weight.div_(self.head.weight.std())

    def forward(self, images: Tensor) -> Tensor:
        maps = self.groups(F.gelu(self.whitening(images)))  # (N, 256, 3, 3)
        features = F.max_pool2d(maps, 3).flatten(1)
        logits: Tensor = self.head(features) / features.shape[1]
        return logits

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Set the first filters to the whitening transform of 2×2 patches of normalized `images`, and its negative."""
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (N, 3, 31, 31, 2, 2)
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2).double()  # (M, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        directions = (vectors / (values + EIGENVALUE_FLOOR).sqrt()).T.flip(0).view(-1, 3, PATCH, PATCH)
        self.whitening.weight.copy_(torch.cat([directions, -directions]))


def filters(width_in: int, width: int) -> nn.Conv2d:
    """A 3×3 convolution whose first filters pass their channel on (dirac)."""
    conv = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[: min(width_in, width)])
    return conv


def norm(width: int) -> nn.BatchNorm2d:
    """BatchNorm that trains only its bias and keeps 0.6 of its running statistics at each step."""
    layer = nn.BatchNorm2d(width, eps=1e-12, momentum=1 - 0.6)
    layer.weight.requires_grad_(False)
    return layer


class Muon:
    """Steps along the orthogonalized Nesterov momentum of each filter bank, which is scaled to norm √filters first."""

    def __init__(self, weights: list[nn.Parameter], momentum: float, arithmetic: torch.dtype) -> None:
        self._weights, self._momentum, self._arithmetic = weights, momentum, arithmetic
        self._buffers = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for weight, buffer in zip(self._weights, self._buffers, strict=True):
            assert weight.grad is not None
            buffer.mul_(self._momentum).add_(weight.grad)
            direction = weight.grad.add(buffer, alpha=self._momentum)
            weight.mul_(math.sqrt(len(weight)) / weight.norm())
            update = orthogonalized(direction.flatten(1).to(self._arithmetic)).view_as(weight)
            weight.add_(update.to(weight.dtype), alpha=-lr)
            weight.grad = None


def orthogonalized(matrix: Tensor) -> Tensor:
    """The matrix with all singular values near 1, by Newton–Schulz iteration."""
    linear, cubic, quintic = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = linear * x + (cubic * gram + quintic * gram @ gram) @ x
    return x.T if tall else x


class Training:
    """One training, step by step.

    Args:
        pixels: training images, uint8 `(N, 32, 32, 3)`.
        labels: int64 `(N,)`.
        classes: their number.
        seed: of weights, order and augmentation.
        device: where to train.
        precision: number format of the forward and backward pass.
        settings: the published ones by default.
        steps: number of steps; by default those of all epochs.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        classes: int,
        seed: int,
        device: torch.device,
        precision: torch.dtype,
        settings: Settings | None = None,
        steps: int | None = None,
    ) -> None:
        self.settings = settings = settings or Settings()
        torch.manual_seed(seed)
        self._random = torch.Generator().manual_seed(seed)
        self._pixels, self._labels = pixels.to(device), labels.to(device)
        self._device, self._precision = device, precision
        self._batches = len(labels) // settings.batch_size
        self.steps = steps or settings.epochs * self._batches
        self._order, self._epoch = torch.empty(0, dtype=torch.int64), -1
        self._flip_first = torch.rand(len(labels), generator=self._random) < 0.5
        self.mean, self.std = channel_statistics(self._pixels)
        self.net = Net(classes, settings.widths).to(device).to(memory_format=torch.channels_last)
        self.net.whiten(self.normalized(self._pixels[:WHITENING_IMAGES]))
        weights = [weight for weight in self.net.parameters() if weight.ndim == 4 and weight.requires_grad]
        arithmetic = precision if precision == torch.bfloat16 else torch.float32
        self._muon = Muon(weights, settings.momentum_filters, arithmetic)
        biases = [layer.bias for layer in self.net.modules() if isinstance(layer, nn.BatchNorm2d)]
        groups = [
            ([self.net.whitening.bias], settings.lr_biases),
            (biases, settings.lr_biases),
            ([self.net.head.weight], settings.lr_head),
        ]
        decay = settings.decay_per_image * settings.batch_size
        self._peaks = [lr for _, lr in groups]
        self._sgd = torch.optim.SGD(
            [{"params": params, "lr": lr, "weight_decay": decay / lr} for params, lr in groups],
            momentum=settings.momentum,
            nesterov=True,
        )

    def normalized(self, pixels: Tensor) -> Tensor:
        """Images uint8 `(N, H, W, 3)` as normalized float32 `(N, 3, H, W)`, channels last."""
        return ((pixels.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)

    def trains_whitening_bias(self, number: int) -> bool:
        """Whether step `number` trains the bias of the whitening layer."""
        return number < self.settings.whitening_bias_until * self.steps

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Augmented images `(B, 3, 32, 32)` and labels int64 `(B,)` of step `number`."""
        epoch, place = divmod(number, self._batches)
        if epoch != self._epoch:
            self._order, self._epoch = torch.randperm(len(self._labels), generator=self._random), epoch
        size = self.settings.batch_size
        chosen = self._order[place * size : (place + 1) * size]
        mirrored = (self._flip_first[chosen] ^ (epoch % 2 == 1)).to(self._device)
        chosen = chosen.to(self._device)
        images = self.normalized(self._pixels[chosen])
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return self._translated(images), self._labels[chosen]

    def _translated(self, images: Tensor) -> Tensor:
        most, side = self.settings.translate, images.shape[-1]
        wide = F.pad(images, (most,) * 4, mode="reflect")
        drawn = torch.randint(0, 2 * most + 1, (2, len(images), 1), generator=self._random)
        rows, columns = (drawn + torch.arange(side)).to(self._device)  # (B, 32) each
        place = torch.arange(len(images), device=self._device)[:, None, None]
        return wide[place, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def step(self, number: int) -> Tensor:
        """Train on the batch of step `number`; returns its mean loss."""
        self.net.train()
        whitens = self.trains_whitening_bias(number)
        self.net.whitening.bias.requires_grad_(whitens)
        images, labels = self.batch(number)
        with torch.autocast(self._device.type, self._precision, self._precision != torch.float32):
            logits = self.net(images)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.settings.label_smoothing, reduction="sum")
        loss.backward()
        left = 1 - number / self.steps
        early = max(0.0, 1 - number / (self.settings.whitening_bias_until * self.steps))
        for group, peak, share in zip(self._sgd.param_groups, self._peaks, (early, left, left), strict=True):
            group["lr"] = peak * share
        self._muon.step(self.settings.lr_filters * left)
        self._sgd.step()
        self._sgd.zero_grad()
        return loss.detach() / len(labels)

    def train(self) -> float:
        """Take all steps; returns their seconds."""
        start = time.perf_counter()
        for number in range(self.steps):
            self.step(number)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    @torch.inference_mode()
    def accuracies(self, pixels: Tensor, labels: Tensor) -> dict[str, float]:
        """Accuracy of one view and of six (`tta`) on images uint8 `(N, 32, 32, 3)`."""
        self.net.eval()
        hits = {"single": 0, "tta": 0}
        for start in range(0, len(labels), SCORED):
            images = self.normalized(pixels[start : start + SCORED].to(self._device))
            truth = labels[start : start + SCORED].to(self._device)
            with torch.autocast(self._device.type, self._precision, self._precision != torch.float32):
                found = {"single": self.net(images), "tta": self._six_views(images)}
            for name, logits in found.items():
                hits[name] += int((logits.argmax(1) == truth).sum())
        return {name: count / len(labels) for name, count in hits.items()}

    def _six_views(self, images: Tensor) -> Tensor:
        """Mean logits of the image and its mirror image, and of both shifted by a pixel in either diagonal."""
        side, wide = images.shape[-1], F.pad(images, (1,) * 4, mode="reflect")
        shifted = [wide[:, :, place : place + side, place : place + side] for place in (0, 2)]
        views = [(images, 0.25), *((view, 0.125) for view in shifted)]
        total: Tensor = sum((self.net(view) + self.net(view.flip(3))).float() * share for view, share in views)  # type: ignore[assignment]
        return total


def channel_statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(3,)` of the channels of images uint8 `(N, H, W, 3)`, on a scale from 0 to 1."""
    parts = [part.float().flatten(0, 2) / 255 for part in pixels.split(SCORED)]
    count = sum(len(part) for part in parts)
    mean = torch.stack([part.sum(0) for part in parts]).sum(0) / count
    square = torch.stack([part.square().sum(0) for part in parts]).sum(0) / count
    return mean, (square - mean.square()).sqrt()


def native_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if features.get("amx_bf16") or features.get("avx512_bf16") else torch.float32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--steps", type=int, help="train this many steps only")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.data_root is None or not (Path(options.data_root) / "cifar10").is_dir():
        print("skipped: CIFAR-10 was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    from thirtytwo.data.load import load_dataset
    from thirtytwo.tensors import as_tensor

    dataset = load_dataset("cifar10", data_root=Path(options.data_root))
    assert dataset.test is not None
    train, test = ((as_tensor(part.images), as_tensor(part.labels)) for part in (dataset.train, dataset.test))
    device = torch.device(options.device)
    for seed in map(int, options.seeds.split(",")):
        training = Training(*train, 10, seed, device, native_precision(device), steps=options.steps)
        seconds = training.train()
        found = {"seed": seed, "steps": training.steps, "seconds": round(seconds, 2), **training.accuracies(*test)}
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
