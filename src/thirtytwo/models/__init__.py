"""Networks, one file a family."""

from thirtytwo.models import fastnet  # noqa: F401  (registers its rows)
from thirtytwo.models.net import MODELS, Net

__all__ = ["MODELS", "Net"]
