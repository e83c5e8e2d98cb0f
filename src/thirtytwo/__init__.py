"""Train, evaluate, explain and serve image classifiers.

    run = thirtytwo.train("cifar10")             # needs the extra `train`
    classifier = thirtytwo.load(run.path)        # needs no PyTorch
    classifier.predict("photo.jpg", top=5)

Importing this package is fast: each public name is imported on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thirtytwo import workflows as workflows
    from thirtytwo.errors import ThirtytwoError
    from thirtytwo.inference.classifier import Classifier, load
    from thirtytwo.report.compare import compare
    from thirtytwo.report.comparison import Comparison
    from thirtytwo.workflows import Run, SeedRuns, Tuned, ensemble, evaluate, train, train_seeds, tune

    __version__: str

__all__ = [
    "Classifier",
    "Comparison",
    "Run",
    "SeedRuns",
    "ThirtytwoError",
    "Tuned",
    "__version__",
    "compare",
    "ensemble",
    "evaluate",
    "load",
    "train",
    "train_seeds",
    "tune",
]

# ONNX Runtime sends telemetry unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "Classifier": "thirtytwo.inference.classifier",
    "Comparison": "thirtytwo.report.comparison",
    "Run": "thirtytwo.workflows",
    "SeedRuns": "thirtytwo.workflows",
    "Tuned": "thirtytwo.workflows",
    "compare": "thirtytwo.report.compare",
    "ensemble": "thirtytwo.workflows",
    "evaluate": "thirtytwo.workflows",
    "ThirtytwoError": "thirtytwo.errors",
    "load": "thirtytwo.inference.classifier",
    "train": "thirtytwo.workflows",
    "train_seeds": "thirtytwo.workflows",
    "tune": "thirtytwo.workflows",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "workflows":
        return _workflows()
    if name not in _MODULES:
        raise AttributeError(f"module 'thirtytwo' has no attribute {name!r}")
    return getattr(_workflows() if _MODULES[name] == "thirtytwo.workflows" else import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("thirtytwo")
    except PackageNotFoundError:
        return "0+unknown"


def _workflows() -> ModuleType:
    from thirtytwo.errors import require

    require("torch", "train")
    require("lightning", "train")
    return import_module("thirtytwo.workflows")
