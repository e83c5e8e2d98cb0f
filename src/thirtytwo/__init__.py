"""Train, evaluate, explain and serve image classifiers.

    run = thirtytwo.train("cifar10")             # needs the extra `train`
    classifier = thirtytwo.load(run.path)        # needs no PyTorch
    classifier.predict("photo.jpg", top=5)

Public functions:

    train           train, evaluate and export a classifier        -> Run
    train_seeds     the same for several seeds                     -> SeedRuns
    train_folds     cross-validate a recipe                        -> FoldRuns
    tune            search the settings of a recipe                -> Tuned
    evaluate        evaluate a run again, or on other data         -> dict, as in metrics.json
    compare         compare runs with paired tests                 -> Comparison
    ensemble        combine runs into one model                    -> Run
    export_model    write a model in another format                -> Exported
    push            upload a run to the Hugging Face hub           -> Pushed
    write_report    write report, figures and model card again     -> Path
    load            open a model for prediction                    -> Classifier
    load_dataset    load images and labels to look at them         -> DataSet

Every error that the user can fix is a `ThirtytwoError`. The modules for extensions (docs/extending.md) are public as
well: `registry`, `augment`, `config.settings`, `data.types`, `data.build`, `models`, `models.base`,
`evaluation.evaluators`, `evaluation.sections`, `explain.methods` and `export.quantize`. All others are internal and may
change without notice. Importing this package is fast: each public name is imported on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thirtytwo.data.types import DataSet
    from thirtytwo.errors import ThirtytwoError
    from thirtytwo.inference.classifier import Classifier, load
    from thirtytwo.report.comparison import Comparison
    from thirtytwo.workflows.compare import compare
    from thirtytwo.workflows.ensemble import ensemble
    from thirtytwo.workflows.evaluate import evaluate
    from thirtytwo.workflows.export import Exported, export_model
    from thirtytwo.workflows.finish import Run
    from thirtytwo.workflows.folds import FoldRuns, train_folds
    from thirtytwo.workflows.load_data import load_dataset
    from thirtytwo.workflows.push import Pushed, push
    from thirtytwo.workflows.report import write_report
    from thirtytwo.workflows.seeds import SeedRuns, train_seeds
    from thirtytwo.workflows.train import train
    from thirtytwo.workflows.tune import Tuned, tune

    __version__: str

__all__ = [
    "Classifier",
    "Comparison",
    "DataSet",
    "Exported",
    "FoldRuns",
    "Pushed",
    "Run",
    "SeedRuns",
    "ThirtytwoError",
    "Tuned",
    "__version__",
    "compare",
    "ensemble",
    "evaluate",
    "export_model",
    "load",
    "load_dataset",
    "push",
    "train",
    "train_folds",
    "train_seeds",
    "tune",
    "write_report",
]

# ONNX Runtime sends telemetry unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "Classifier": "inference.classifier",
    "Comparison": "report.comparison",
    "DataSet": "data.types",
    "Exported": "workflows.export",
    "FoldRuns": "workflows.folds",
    "Pushed": "workflows.push",
    "Run": "workflows.finish",
    "SeedRuns": "workflows.seeds",
    "ThirtytwoError": "errors",
    "Tuned": "workflows.tune",
    "compare": "workflows.compare",
    "ensemble": "workflows.ensemble",
    "evaluate": "workflows.evaluate",
    "export_model": "workflows.export",
    "load": "inference.classifier",
    "load_dataset": "workflows.load_data",
    "push": "workflows.push",
    "train": "workflows.train",
    "train_folds": "workflows.folds",
    "train_seeds": "workflows.seeds",
    "tune": "workflows.tune",
    "write_report": "workflows.report",
}
_WITHOUT_TORCH = frozenset(
    {
        "data.types",
        "errors",
        "inference.classifier",
        "report.comparison",
        "workflows.compare",
        "workflows.load_data",
        "workflows.push",
    }
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from thirtytwo.machine import package_version

        return package_version("thirtytwo")
    if name not in _MODULES:
        raise AttributeError(f"module 'thirtytwo' has no attribute {name!r}")
    if _MODULES[name] not in _WITHOUT_TORCH:
        _require_training()
    return getattr(import_module(f"thirtytwo.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _require_training() -> None:
    from thirtytwo.errors import require

    require("torch", "train")
    require("lightning", "train")
