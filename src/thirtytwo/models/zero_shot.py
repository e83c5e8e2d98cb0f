"""A classifier that combines a network fine-tuned on small images with a general one trained on ImageNet.

A network fine-tuned on enlarged 32-pixel images fails on sharp photographs, and one with ImageNet weights fails on
enlarged small images. Here the input of the fine-tuned network is reduced to the resolution of its training, and the
general network gets the image unchanged; ImageNet's classes are mapped to ours by name. Their probabilities are mixed,
with a share of the general network that rises with the sharpness of the image: output-space ensembling (Wortsman et
al., arXiv 2109.01903) with a weight for each image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.models.base import MODELS, Network, features_of, roles_by_kind

NAME = "zero_shot"
IMAGENET_CLASSES = 1000
MIN_PROBABILITY = 1e-6


class BranchSettings(Settings):
    """A network by name and options; both networks share the normalization of images."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class ZeroShotSettings(Settings):
    """Both networks, the mapping from ImageNet's classes to ours, and how they are mixed."""

    finetuned: BranchSettings
    """Classifies our classes, on images of `detail` pixels."""
    general: BranchSettings
    """Classifies ImageNet's 1,000 classes."""
    labels: tuple[tuple[Annotated[int, Field(ge=0, lt=IMAGENET_CLASSES)], ...], ...]
    """For each of our classes, the indices of the ImageNet classes that belong to it; may be empty."""
    size: int = Field(ge=32, le=512)
    """Side of the images, in pixels; an odd multiple of `detail`, so that enlarging keeps pixels where they were."""
    detail: int = Field(32, ge=8)
    """Side to which images are reduced for the fine-tuned network."""
    blurred: float = Field(0.006, ge=0)
    """Value of `ZeroShot.detail_beyond` up to which the share of the general network is 0."""
    sharp: float = Field(0.012, gt=0)
    """Value of `ZeroShot.detail_beyond` from which the general network has its full share."""
    share: float = Field(0.5, gt=0, lt=1)
    """Full share of the general network in the probabilities."""
    known_blurred: float = 0.0
    """Subtracted from the OOD score of blurred images: its threshold, so that one of 0 fits all images."""
    known_sharp: float = 0.0
    """Subtracted from the OOD score of sharp images: its threshold, on other images than that of blurred ones."""

    @model_validator(mode="after")
    def _fits(self) -> ZeroShotSettings:
        if self.size % self.detail or self.size // self.detail % 2 == 0:
            raise ValueError(f"size {self.size} must be an odd multiple of detail {self.detail}")
        if self.blurred >= self.sharp:
            raise ValueError(f"blurred {self.blurred} must be less than sharp {self.sharp}")
        return self


class ZeroShot(Network):
    """Mixes the probabilities of two networks with a share for each image.

    Features are those of both networks, then the share of the general one. Logits are the logarithm of the mixed
    probabilities. `known_score` is the log odds of the fine-tuned network's most probable class, for sharp images plus
    those of the most probable mapped class, less the threshold for images of that sharpness: odds of blurred and of
    sharp images have different distributions.
    """

    head_modules = ("finetuned", "general")
    scores_known = True
    holds: Tensor
    enlarge: Tensor

    def __init__(self, classes: int, settings: ZeroShotSettings, finetuned: Network, general: Network) -> None:
        super().__init__()
        if len(settings.labels) != classes:
            raise ValueError(f"labels must have {classes} entries, one per class, found {len(settings.labels)}")
        self.finetuned, self.general = finetuned, general
        self.settings = settings
        holds = torch.zeros((IMAGENET_CLASSES, classes))
        for index, indices in enumerate(settings.labels):
            holds[list(indices), index] = 1.0
        self.register_buffer("holds", holds, persistent=False)
        self.register_buffer("enlarge", _enlarging_matrix(settings.detail, settings.size), persistent=False)
        self.eval()
        with torch.inference_mode():
            images = torch.zeros((1, 3, settings.size, settings.size))
            maps = [net.forward_features(images) for net in (finetuned, general)]
        self.widths = [maps[0].shape[1], maps[1].shape[1], 1]
        if maps[0].shape[2:] != maps[1].shape[2:]:
            raise ValueError("the last maps of both networks must have the same size")
        self.has_heatmaps = finetuned.has_heatmaps and general.has_heatmaps

    def detail_beyond(self, images: Tensor, kept: Tensor) -> Tensor:
        """Detail of images `(N, 3, H, W)` beyond a resolution of `detail` pixels, `(N,)`.

        The mean absolute difference from the bicubic enlargement of their pixels `kept`, `(N, 3, detail, detail)`. For
        an enlarged small image it is only the rounding error.
        """
        again = self.enlarge @ kept @ self.enlarge.T
        return (images - again).abs().mean(dim=(1, 2, 3))

    def forward_features(self, images: Tensor) -> Tensor:
        step, low, high = self.settings.size // self.settings.detail, self.settings.blurred, self.settings.sharp
        kept = images[:, :, step // 2 :: step, step // 2 :: step]
        weight = ((self.detail_beyond(images, kept) - low) / (high - low)).clamp(0, 1).view(-1, 1, 1, 1)
        # an enlarged small image is reduced to its original pixels, a sharp one averaged over areas
        reduced = torch.lerp(kept, F.avg_pool2d(images, step), weight)
        smooth = F.interpolate(reduced, images.shape[-2:], mode="bilinear", align_corners=False)
        branches = [self.finetuned.forward_features(smooth), self.general.forward_features(images)]
        share = (self.settings.share * weight).expand(-1, 1, *branches[0].shape[2:])
        return torch.cat([*branches, share], dim=1)

    def pool(self, maps: Tensor) -> Tensor:
        own, general, share = torch.split(maps, self.widths, dim=1)
        features = [features_of(self.finetuned, own), features_of(self.general, general)]
        return torch.cat([*features, share.mean(dim=(2, 3))], dim=1)

    def branch_probabilities(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities of the fine-tuned network `(N, C)`, of the mapped classes `(N, C)`, and the share `(N, 1)`.

        Those of the mapped classes sum to at most 1: the rest belongs to ImageNet classes that are not mapped.
        """
        own, general, share = torch.split(features, self.widths, dim=1)
        named = torch.softmax(self.general.classify(general), dim=1) @ self.holds
        return torch.softmax(self.finetuned.classify(own), dim=1), named, share

    def classify(self, features: Tensor) -> Tensor:
        own, named, share = self.branch_probabilities(features)
        # unmapped ImageNet classes may still show one of ours: distribute their probability by the fine-tuned network
        general = named + (1 - named.sum(dim=1, keepdim=True)).clamp(min=0) * own
        return ((1 - share) * own + share * general).clamp(min=MIN_PROBABILITY).log()

    def known_score(self, features: Tensor) -> Tensor:
        own, named, share = self.branch_probabilities(features)
        weight = (share / self.settings.share).squeeze(1)
        threshold = self.settings.known_blurred * (1 - weight) + self.settings.known_sharp * weight
        return _log_odds(own.amax(dim=1)) + weight * _log_odds(named.amax(dim=1)) - threshold

    def class_weights(self) -> Tensor:
        return self.finetuned.class_weights()

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Class activation maps of both networks `(N, h, w)`, mixed by the share.

        The general network's map is that of its most likely ImageNet class among those mapped to the class.
        """
        own, general, share = torch.split(maps, self.widths, dim=1)
        logits = self.general.classify(features_of(self.general, general))
        held = self.holds.T[classes]  # (N, 1000)
        best = torch.where(held > 0, logits, torch.full_like(logits, -1e4)).argmax(dim=1)
        named = held.amax(dim=1).view(-1, 1, 1)  # 0 where no ImageNet class is mapped to the class
        part = share[:, 0] * named
        return (1 - part) * self.finetuned.heatmaps(own, classes) + part * self.general.heatmaps(general, best)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return roles_by_kind(self, nn.Identity())


def _log_odds(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY).logit()


def _enlarging_matrix(small: int, large: int) -> Tensor:
    """Matrix `(large, small)` of bicubic enlargement along one axis."""
    unit = Image.fromarray(np.eye(small, dtype=np.float32))
    return torch.from_numpy(np.array(unit.resize((small, large), Image.Resampling.BICUBIC)))


@MODELS.register(NAME)
def zero_shot(classes: int, options: Mapping[str, Any]) -> ZeroShot:
    """Combine a fine-tuned network with one trained on ImageNet; built from both, not trained."""
    settings = parse_settings(ZeroShotSettings, options, f"model.options of {NAME}")
    finetuned = MODELS.get(settings.finetuned.name)(classes, settings.finetuned.options)
    general = MODELS.get(settings.general.name)(IMAGENET_CLASSES, settings.general.options)
    return ZeroShot(classes, settings, finetuned, general)
