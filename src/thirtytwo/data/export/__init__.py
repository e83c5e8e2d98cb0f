"""Conversion of data sets between layouts: the formats, one in each file, and the export itself."""

import importlib
import pkgutil

from thirtytwo.data.export.base import EXPORTS, DataFormat, Item, Plan
from thirtytwo.data.export.run import Exported, export_dataset

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["EXPORTS", "DataFormat", "Exported", "Item", "Plan", "export_dataset"]
