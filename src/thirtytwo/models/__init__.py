"""Networks, one file a family: every module here is imported, and adds its rows to `MODELS`."""

from importlib import import_module
from pkgutil import iter_modules

from thirtytwo.models.base import MODELS, Choice, Net

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["MODELS", "Choice", "Net"]
