"""Complete workflows: train, train several seeds, tune, combine, evaluate, export and report."""

from thirtytwo.workflows.ensemble import ensemble
from thirtytwo.workflows.evaluate import evaluate, report
from thirtytwo.workflows.export import Exported, export_model
from thirtytwo.workflows.finish import Run
from thirtytwo.workflows.seeds import SeedRuns, train_seeds
from thirtytwo.workflows.train import train
from thirtytwo.workflows.tune import Tuned, tune

__all__ = [
    "Exported",
    "Run",
    "SeedRuns",
    "Tuned",
    "ensemble",
    "evaluate",
    "export_model",
    "report",
    "train",
    "train_seeds",
    "tune",
]
