"""Networks, one file a family."""

from thirtytwo.models import fastnet, preactivation, published, textbook, timm_net  # noqa: F401  (add their rows)
from thirtytwo.models.net import MODELS, Decision, Net

__all__ = ["MODELS", "Decision", "Net"]
