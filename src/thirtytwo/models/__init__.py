"""Networks, one file a family."""

from thirtytwo.models import fastnet, timm_net  # noqa: F401  (register their rows)
from thirtytwo.models.net import MODELS, Decision, Net

__all__ = ["MODELS", "Decision", "Net"]
