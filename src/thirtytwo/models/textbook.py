"""The convolutional network of textbooks and tutorials, as a baseline."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from thirtytwo.config.settings import Settings, parse_settings
from thirtytwo.models.base import MAX_WIDTH, MODELS, Network, roles_by_kind, takes_options


class TextbookSettings(Settings):
    """Shape of a textbook network."""

    widths: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = Field((32, 64, 128), min_length=1)
    """Channels of each stage; each halves the resolution."""
    convolutions: int = Field(2, ge=1, le=100)
    """Number of 3×3 convolutions per stage."""
    dropout: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.2, 0.3, 0.4)
    """Dropout after each stage; the last value is used for all further stages, an empty list means no dropout."""
    dense: tuple[Annotated[int, Field(ge=1, le=MAX_WIDTH)], ...] = (512, 256)
    """Widths of the hidden layers of the head."""
    dense_dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout after each hidden layer."""
    places: int = Field(4, ge=1, le=64)
    """Side of the maps that the head expects; maps of other sizes are averaged to it."""


class Textbook(Network):
    """Stages of convolution, BatchNorm, ReLU, max-pool and dropout, then flattened maps and a dense head."""

    head_modules = ("hidden", "head")

    def __init__(self, classes: int, settings: TextbookSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for stage, width in enumerate(settings.widths):
            for _ in range(settings.convolutions):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
            if settings.dropout:
                layers.append(nn.Dropout(settings.dropout[min(stage, len(settings.dropout) - 1)]))
        self.stages = nn.Sequential(*layers)
        self.places = settings.places
        hidden: list[nn.Module] = []
        before *= settings.places**2
        for width in settings.dense:
            hidden += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            hidden.append(nn.Dropout(settings.dense_dropout))
            before = width
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(before, classes)
        self.has_heatmaps = not settings.dense
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward_features(self, images: Tensor) -> Tensor:
        maps: Tensor = self.stages(images)
        return maps

    def pool(self, maps: Tensor) -> Tensor:
        return self._pool_to_size(maps).flatten(1)

    def forward_head(self, pooled: Tensor, pre_logits: bool = False) -> Tensor:
        return super().forward_head(self.hidden(pooled), pre_logits)

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def class_weights(self) -> Tensor:
        return self.head.weight

    def heatmaps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Contribution of each position to the logit of `classes`, `(N, h, w)`; every position has its own weights."""
        fitted = self._pool_to_size(maps)
        weights = self.class_weights()[classes].to(maps.dtype)  # (N, D · h · w)
        return (fitted * weights.view(fitted.shape)).sum(dim=1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return roles_by_kind(self, self.head)

    def _pool_to_size(self, maps: Tensor) -> Tensor:
        if maps.shape[-2:] == (self.places, self.places):
            return maps
        return F.adaptive_avg_pool2d(maps, self.places)


@MODELS.register("textbook")
@takes_options(partial(parse_settings, TextbookSettings, where="model.options of textbook"))
def textbook(classes: int, settings: TextbookSettings) -> Textbook:
    """Convolution, BatchNorm, max-pool, dropout and a dense head, as in textbooks."""
    return Textbook(classes, settings)
