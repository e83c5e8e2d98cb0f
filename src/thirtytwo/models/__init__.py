"""Networks, one module per family; importing this package imports all of them, which registers them in `MODELS`.

Public: `MODELS`, `base` and `packaged`, as in docs/extending.md. The other modules may change without notice.
"""

from importlib import import_module
from pkgutil import iter_modules

from thirtytwo.config.settings import Choice
from thirtytwo.models.base import MODELS, Network

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["MODELS", "Choice", "Network"]
