"""The tables `[optimizer]` and `[schedule]` of recipes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from thirtytwo.config.settings import Settings


class OptimizerSettings(Settings):
    """The optimizer.

    With `muon` and `sgd` the loss is summed over the batch: SGD's learning rates and weight decay are per image, so
    they stay valid when the batch size changes; Muon's learning rate is per step and independent of the gradient's
    scale. With timm's optimizers the loss is the mean over the batch, and learning rate and weight decay are as in the
    papers.
    """

    name: str = "muon"
    """`muon`: orthogonalized momentum for convolution filters, SGD for all other weights; `sgd`: SGD for all weights;
    otherwise the name of a timm optimizer (`adamw`, `lion`, `lamb`, …; `timm_muon` and `timm_sgd` select timm's own
    Muon and SGD)."""
    lr: float = Field(0.24, gt=0, le=1000)
    """Peak learning rate of the convolution filters, per step with `muon` and per image with `sgd`; with timm's
    optimizers, of all weights, per step."""
    momentum: float = Field(0.6, ge=0, lt=1)
    """Momentum of the convolution filters; `muon` and `sgd` only."""
    lr_rest: float = Field(0.053, gt=0, le=1000)
    """Peak learning rate of biases and normalization parameters, per image; `muon` and `sgd` only."""
    lr_head: float = Field(0.67, gt=0, le=1000)
    """Peak learning rate of the last linear layer, per image; `muon` and `sgd` only."""
    momentum_rest: float = Field(0.85, ge=0, lt=1)
    """Nesterov momentum of biases, normalization parameters and the last linear layer; `muon` and `sgd` only."""
    weight_decay: float = Field(0.0, ge=0, le=1000)
    """Weight decay. With `muon` and `sgd`: the fraction subtracted per image, at the peak learning rate, from each
    weight that SGD updates; as part of the gradient it goes through the momentum, which multiplies it by 1 / (1 −
    momentum) in the long run. With timm's optimizers: their own weight decay, of filters and linear layers without
    biases."""
    decay_all: bool = False
    """Apply weight decay to biases and normalization parameters as well; timm's optimizers only."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the optimizer, such as `betas`, `eps` or `momentum`; timm's optimizers only."""
    renormalise: bool = True
    """Rescale each layer's filters to the norm √(output channels) in every step; `muon` only."""
    sam: float = Field(0.0, ge=0, le=100)
    """Radius ρ of sharpness-aware minimization (SAM), which needs two passes per step; 0: off (arXiv 2010.01412)."""

    @property
    def per_image(self) -> bool:
        """Whether the loss is summed over the batch."""
        return self.name in ("muon", "sgd")

    @model_validator(mode="after")
    def _check_learning_rate(self) -> OptimizerSettings:
        if not self.per_image and self.lr > ADAPTIVE_RATE and any(part in self.name for part in ADAPTIVE):
            raise ValueError(
                f"lr {self.lr:g} is too high for {self.name}, whose step size is about lr for every weight; "
                "try lr = 0.001"
            )
        if self.per_image and self.options:
            raise ValueError(f"options apply only to timm's optimizers; {self.name} has keys of its own")
        return self


ADAPTIVE = ("adam", "adan", "adab", "adop", "lion", "lamb", "laprop")
"""Substrings in the names of optimizers whose step size is about the learning rate, independent of the gradient."""
ADAPTIVE_RATE = 0.1


class ResolutionStage(Settings):
    """Train at `size` pixels up to the fraction `until` of all steps."""

    size: int = Field(ge=8, le=1024)
    until: float = Field(gt=0, le=1)


class FreezeStage(Settings):
    """Train the first `layers` layers up to the fraction `until` of all steps; they are frozen from then on."""

    layers: int = Field(ge=1, le=10_000)
    until: float = Field(gt=0, lt=1)


class ScheduleSettings(Settings):
    """Number of epochs, batch size, and the learning rate over time."""

    name: Literal["linear", "constant", "step", "cosine", "one-cycle", "plateau"] = "linear"
    """Learning-rate schedule after the warm-up: `linear` and `cosine` decay, `step` drops at `milestones`, `plateau`
    drops when validation stops improving, `constant`; `one-cycle`: rises and falls along cosines (arXiv 1708.07120)."""
    epochs: int = Field(8, ge=1, le=1_000_000)
    """Number of passes over the training images."""
    batch_size: int = Field(1000, ge=1, le=1_000_000)
    """Images per batch; the incomplete last batch of an epoch is dropped."""
    accumulate: int = Field(1, ge=1, le=100_000)
    """Number of batches whose gradients are accumulated into one optimizer step."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Fraction of all steps over which the learning rates rise linearly from 0; with `one-cycle`, along a cosine from
    1/25 of the peak."""
    final: float = Field(0.0, ge=0, le=1)
    """Final learning rate, as a fraction of the peak; with `step` and `plateau` a lower bound."""
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.5, 0.75)
    """Fractions of all steps after which `step` drops the learning rate."""
    drop: float = Field(0.1, gt=0, lt=1)
    """Factor by which `step` and `plateau` multiply the learning rate at each drop."""
    patience: int = Field(3, ge=1, le=1_000_000)
    """Number of validations without improvement of `train.monitor` after which `plateau` drops the learning rate."""
    stem_bias_until: float = Field(0.375, ge=0, le=1)
    """Fraction of all steps during which the bias of the whitening stem is trained."""
    resolution: tuple[ResolutionStage, ...] = ()
    """Progressive resizing: train on smaller images first; after the last stage, images have their full size."""
    freeze: tuple[FreezeStage, ...] = ()
    """Progressive freezing: the first layers, counted from the input with the stem, are trained for fewer steps than
    the others, which shortens the backward pass: `[{layers = 2, until = 0.7}, {layers = 3, until = 0.9}]`. A layer is a
    part of the network, or one member of a list of parts, such as a block. Their learning rate follows the whole
    schedule within their own steps (arXiv 1706.04983). BatchNorm of frozen layers still uses the statistics of each
    batch. Both values increase from stage to stage; not for training from pretrained weights."""

    def size_at(self, progress: float, full: int) -> int:
        """Side of the training images, in pixels, after the fraction `progress` of all steps; `full` at the end."""
        return next((min(stage.size, full) for stage in self.resolution if progress < stage.until), full)

    def work_at(self, progress: float, full: int, besides: float = 0.0) -> float:
        """Share of a training's work up to the fraction `progress` of its steps, 0 to 1, by the pixels of images.

        `besides` is work that every step adds, as a share of a step on full-size images.
        """

        def pixels(end: float) -> float:
            total = start = 0.0
            for until in (*(stage.until for stage in self.resolution), 1.0):
                total += max(0.0, min(until, end) - start) * (self.size_at(start, full) ** 2 + besides * full**2)
                start = until
            return total

        return pixels(progress) / pixels(1.0)

    @model_validator(mode="after")
    def _check_stage_order(self) -> ScheduleSettings:
        ordered: dict[str, list[float]] = {
            "resolution stages must have increasing 'until' values": [stage.until for stage in self.resolution],
            "freeze stages must have increasing 'layers' values": [stage.layers for stage in self.freeze],
            "freeze stages must have increasing 'until' values": [stage.until for stage in self.freeze],
            "milestones must be in increasing order": list(self.milestones),
        }
        for rule, values in ordered.items():
            if values != sorted(set(values)):
                raise ValueError(f"{rule}, found {', '.join(map(str, values))}")
        if self.name == "one-cycle" and not self.warmup:
            raise ValueError("one-cycle starts with a warm-up, so warmup must be above 0, such as 0.3")
        return self
